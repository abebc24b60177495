"""Which secrets are asked for, and how they are joined."""

from __future__ import annotations

import pytest
from wgpeer.factors import MissingSecret, join_password


@pytest.mark.parametrize(
    ("mode", "joined", "asked"),
    [
        (None, "", []),
        ("", "", []),
        ("pin", "<PIN>", ["PIN"]),
        ("otp", "<Passcode>", ["Passcode"]),
        ("otp_pin", "<PIN><Passcode>", ["PIN", "Passcode"]),
        ("yubikey", "<YubiKey (touch it)>", ["YubiKey (touch it)"]),
        ("yubikey_pin", "<PIN><YubiKey (touch it)>", ["PIN", "YubiKey (touch it)"]),
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
        return f"<{what}>"

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
