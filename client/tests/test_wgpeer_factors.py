"""Which secrets are asked for, and how they are joined."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wgpeer.factors import PASSCODE, PASSWORD, PIN, MissingSecret, join_password


@pytest.mark.parametrize(
    ("mode", "joined", "asked"),
    [
        (None, "", []),
        ("", "", []),
        ("pin", "<PIN>", ["PIN"]),
        ("otp", "<Passcode>", ["Passcode"]),
        ("otp_pin", "<PIN><Passcode>", ["PIN", "Passcode"]),
        ("yubikey", "<YubiKey>", ["YubiKey (touch it)"]),
        ("yubikey_pin", "<PIN><YubiKey>", ["PIN", "YubiKey (touch it)"]),
        ("duo_otp", "<Passcode>", ["Passcode"]),
        ("okta_otp_pin", "<PIN><Passcode>", ["PIN", "Passcode"]),
        ("onelogin_otp_pin", "<PIN><Passcode>", ["PIN", "Passcode"]),
        ("password", "<Password>", ["Password"]),
        ("otp_password", "<Password><Passcode>", ["Password", "Passcode"]),
        ("something_new", "<Password>", ["Password"]),
    ],
)
def test_secrets_are_asked_for_and_joined_as_the_server_wants_them(
    mode: str | None, joined: str, asked: list[str]
) -> None:
    questions: list[str] = []

    def ask(what: str) -> str:
        questions.append(what)
        return f"<{what.split()[0]}>"

    assert join_password(mode, {}, ask) == joined
    assert questions == asked


def test_what_was_given_is_not_asked_for() -> None:
    assert join_password("otp_pin", {"pin": "2718", "passcode": "314159 "}, None) == "2718314159"
    with pytest.raises(MissingSecret, match="--otp"):
        join_password("otp_pin", {"pin": "2718"}, None)


@pytest.mark.parametrize(
    ("mode", "given", "joined"),
    [
        ("pin", {"pin": "2718", "passcode": "314159"}, "2718314159"),
        (None, {"passcode": "314159", "pin": "2718"}, "2718314159"),
        ("otp", {"passcode": "314159", "password": "secret"}, "secret314159"),
    ],
)
def test_what_was_given_is_sent_though_the_profile_does_not_ask_for_it(
    mode: str | None, given: dict[str, str | None], joined: str
) -> None:
    """The server may ask for more by now than when the profile was made."""
    assert join_password(mode, given, None) == joined


SEPARATORS = [" ", "\u00a0", "\u202f", "\u2009", "\u2007", "-", "\u2011", "\t", "\u200b", "\ufeff", "\r\n"]


@given(st.lists(st.tuples(st.sampled_from("0123456789"), st.lists(st.sampled_from(SEPARATORS))), min_size=1))
def test_a_code_is_sent_without_what_apps_show_between_its_digits(typed: list[tuple[str, list[str]]]) -> None:
    text = "".join(digit + "".join(between) for digit, between in typed)
    wanted = "".join(digit for digit, _ in typed)
    assert join_password("otp", {PASSCODE: text}, None) == wanted
    assert join_password("otp", {}, lambda _prompt: text) == wanted
    assert join_password("otp_pin", {PIN: " 12 34 "}, lambda _prompt: text) == "12 34" + wanted


def test_digits_of_any_script_are_digits() -> None:
    assert join_password("otp", {PASSCODE: "\u0661\u0662\u0663 \uff14\uff15\uff16"}, None) == "123456"
    assert join_password("yubikey", {PASSCODE: "cccccb hknv\n"}, None) == "cccccbhknv"
    assert join_password("password", {PASSWORD: "two words"}, None) == "two words"


@pytest.mark.parametrize("typed", ["abcde-fgh23", " ABCDE-FGH23 "])
def test_a_recovery_code_in_the_place_of_a_passcode_keeps_its_hyphen(typed: str) -> None:
    assert join_password("otp_pin", {"pin": "2718", "passcode": typed}, None) == f"2718{typed.strip()}"
    assert join_password("otp", {"passcode": "12345-67890"}, None) == "1234567890"
