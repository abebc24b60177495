"""Connecting with a passkey: what the client gets, what the browser is asked, and which answers pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.conf import LazySettings

from core.models import StoredPasskey
from servers.policy import policy_of
from tests.concurrency import together
from tests.conftest import Clock
from tests.factories import Company
from tests.passkey_maker import PRESENT, VERIFIED, PasskeyMaker
from tests.protocol_client import NOW
from users.factors.passkey import enrolment
from users.factors.wanted import profile_flags
from users.models import Enrolment, RememberedPass, SignIn, UserPasskey, VpnUser
from wgpeers.models import Decision

from .visits import ORIGIN, SITE, HttpsClient, OwnPasskeys, PasskeyVisit, a_maker, ask


@pytest.fixture
def visit(company: Company, host: object, settings: LazySettings) -> PasskeyVisit:
    """Alice's; her server asks for a passkey."""
    settings.SIGN_IN_HOLD = 0.0
    ask(company)
    return PasskeyVisit(company.hire("alice")[1])


@pytest.fixture
def maker(visit: PasskeyVisit) -> PasskeyMaker:
    """The one that she has."""
    found = a_maker()
    assert OwnPasskeys(VpnUser.objects.get()).add(found) == "Added the passkey “laptop”."
    return found


def why() -> str:
    return Decision.objects.latest("pk").code


def judged(visit: PasskeyVisit) -> tuple[bool, str]:
    """Whether the client was let in, and the code of the decision."""
    return visit.wait()["allow"], why()


def test_who_shows_their_passkey_is_connected(visit: PasskeyVisit, maker: PasskeyMaker) -> None:
    asked = visit.connect()
    assert set(asked) == {"sso_url", "sso_token", "signature"}
    assert asked["sso_url"].startswith(f"{ORIGIN}/sso/here/")
    assert visit.wait() == 428
    assert "You are signed in" in visit.show(maker)
    answer = visit.wait()
    assert answer["allow"] is True
    assert answer["configuration"]
    assert why() == "allowed"
    assert (maker.counter, UserPasskey.objects.get().counter) == (1, 1)
    assert visit.connect()["allow"] is True  # the same attempt, at the next host


def test_another_attempt_has_to_show_it_anew(visit: PasskeyVisit, maker: PasskeyMaker) -> None:
    visit.connect()
    visit.show(maker)
    other = PasskeyVisit(visit.identity)
    assert "sso_url" in other.connect()
    assert "sso_url" in other.connect("wg_wait", sso_token=visit.asked["sso_token"])


def test_what_the_browser_is_asked(visit: PasskeyVisit, maker: PasskeyMaker) -> None:
    visit.connect(device_name="heron")
    shown = visit.get()
    for text in ("Connect to the VPN?", "alice", "Office", "heron", "Use your passkey", f"{ORIGIN}/sso/passkeys.js"):
        assert text in shown, text
    asked = visit.question()
    assert (asked["rpId"], asked["userVerification"], len(asked["allowCredentials"])) == (SITE, "required", 1)


@pytest.mark.usefixtures("maker")
def test_the_page_runs_this_one_script_alone(visit: PasskeyVisit) -> None:
    visit.connect()
    response = visit.browser.get(visit.page)
    assert f"script-src {ORIGIN}/sso/passkeys.js; connect-src 'self'" in response["Content-Security-Policy"]
    assert "default-src 'none'" in response["Content-Security-Policy"]
    assert "no-store" in response["Cache-Control"]
    script = visit.browser.get("/sso/passkeys.js")
    assert script["Content-Type"].startswith("text/javascript")
    assert b"navigator.credentials" in script.content


def _replayed(visit: PasskeyVisit, maker: PasskeyMaker) -> str:
    """The answer of another sign-in of theirs."""
    other = PasskeyVisit(visit.identity, visit.browser)
    other.connect()
    answer = maker.get(other.question())
    assert "You are signed in" in other.answer(answer)
    visit.question()
    return answer


def _twice(visit: PasskeyVisit, maker: PasskeyMaker) -> str:
    """An answer to a question that another one has taken the place of."""
    answer = maker.get(visit.question())
    visit.question()
    return answer


# Answers that are to no question that is open: nobody is judged by them, and the sign-in stays open.
NOT_JUDGED: list[Callable[[PasskeyVisit, PasskeyMaker], str]] = [_replayed, _twice]


@pytest.mark.parametrize("made", NOT_JUDGED)
def test_an_answer_to_another_question_counts_for_nothing(
    visit: PasskeyVisit, maker: PasskeyMaker, made: Callable[[PasskeyVisit, PasskeyMaker], str]
) -> None:
    visit.connect()
    assert "This sign-in is over" in visit.answer(made(visit, maker))
    assert visit.wait() == 428
    assert "You are signed in" in visit.show(maker)


@pytest.mark.parametrize("answer", ["", "{}", "[]", "null", '{"id":"AA","rawId":"AA"}', "\x00", '{"id":"\\ud800"}'])
@pytest.mark.usefixtures("maker")
def test_nonsense_counts_for_nothing(visit: PasskeyVisit, answer: str) -> None:
    visit.connect()
    visit.question()
    assert "This sign-in is over" in visit.answer(answer)
    assert visit.wait() == 428


# By the code of the decision.
WRONG: list[tuple[str, str, dict[str, Any]]] = [
    ("of another origin", "wrong", {"origin": "https://evil.example.com"}),
    ("of another port", "wrong", {"origin": "https://vpn.example.com"}),
    ("of another site", "wrong", {"site": "example.com"}),
    ("by another key", "wrong", {"key": PasskeyMaker().key}),
    ("with nobody present", "wrong", {"flags": VERIFIED}),
    ("with its user not verified", "unverified", {"flags": PRESENT}),
    ("unknown", "unknown", {"credential_id": b"x" * 32}),
]


@pytest.mark.parametrize(("code", "changes"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG])
def test_an_answer_that_is_not_right_is_refused(
    visit: PasskeyVisit, maker: PasskeyMaker, code: str, changes: dict[str, Any]
) -> None:
    visit.connect()
    for name, value in changes.items():
        setattr(maker, name, value)
    assert "This passkey is not accepted" in visit.show(maker)
    assert judged(visit) == (False, f"passkey_{code}")


def test_anothers_passkey_does_not_pass(company: Company, visit: PasskeyVisit, maker: PasskeyMaker) -> None:
    other = a_maker()
    OwnPasskeys(company.hire("bob")[0]).add(other)
    visit.connect()
    assert "This passkey is not accepted" in visit.show(other)
    assert judged(visit) == (False, "passkey_unknown")


@pytest.mark.parametrize("counter", [0, 1, 5])
def test_a_copy_is_refused_and_locks_the_passkey(visit: PasskeyVisit, maker: PasskeyMaker, counter: int) -> None:
    UserPasskey.objects.update(counter=5)
    maker.counter, maker.step = counter, 0
    visit.connect()
    visit.show(maker)
    assert judged(visit) == (False, "passkey_copied")
    assert UserPasskey.objects.get().locked is not None
    maker.counter, maker.step = 100, 1  # whichever of the two it is
    other = PasskeyVisit(visit.identity)
    assert other.connect()["allow"] is False
    assert why() == "passkey_none_usable"


def test_one_that_is_locked_while_it_is_asked_for_does_not_pass(visit: PasskeyVisit, maker: PasskeyMaker) -> None:
    visit.connect()
    answer = maker.get(visit.question())
    UserPasskey.objects.update(locked=UserPasskey.objects.get().created)
    visit.answer(answer)
    assert (SignIn.objects.get().outcome, visit.wait()["allow"]) == ("locked", False)


def test_one_without_a_counter_works_again_and_again(visit: PasskeyVisit, maker: PasskeyMaker) -> None:
    maker.step = 0
    for _ in range(3):
        again = PasskeyVisit(visit.identity)
        again.connect()
        assert "You are signed in" in again.show(maker)


def test_a_sign_in_ends_after_five_minutes(visit: PasskeyVisit, maker: PasskeyMaker, fixed_clock: Clock) -> None:
    visit.connect()
    answer = maker.get(visit.question())
    fixed_clock.advance(301)
    assert "This sign-in is over" in visit.answer(answer)
    assert not SignIn.objects.exclude(outcome="").exists()
    assert "sso_url" in visit.wait()


def test_only_the_browser_that_was_asked_answers(visit: PasskeyVisit, maker: PasskeyMaker) -> None:
    # Else a thief with a profile has its owner answer the thief's question.
    visit.connect()
    answer = maker.get(visit.question())
    victim = PasskeyVisit(visit.identity, asked=visit.asked)
    victim.get()
    assert "This sign-in is over" in victim.answer(answer)
    assert visit.wait() == 428


def test_no_other_site_can_answer_or_ask(visit: PasskeyVisit, maker: PasskeyMaker) -> None:
    visit.connect()
    answer = maker.get(visit.question())
    for path, form in ((visit.page, {"answer": answer}), (f"{visit.page}/question", {})):
        assert visit.browser.post(path, form, headers={"origin": "https://evil.example.com"}).status_code == 403
    assert SignIn.objects.get().outcome == ""


def test_of_answers_that_come_at_once_one_is_judged(visit: PasskeyVisit, maker: PasskeyMaker) -> None:
    visit.connect()
    answer = maker.get(visit.question())
    together([lambda: visit.answer(answer)] * 4)
    assert SignIn.objects.get().outcome == "ok"
    assert UserPasskey.objects.get().locked is None  # as by a second look at the same counter


def test_what_passed_is_void_when_a_passkey_is_removed_or_locked(visit: PasskeyVisit, maker: PasskeyMaker) -> None:
    alice = VpnUser.objects.get()
    for change in (lambda: enrolment.changed(alice), lambda: OwnPasskeys(alice).show(maker)):
        fresh = PasskeyVisit(visit.identity)
        fresh.connect()
        assert "You are signed in" in fresh.show(maker)
        RememberedPass.objects.create(
            user=alice, scope="s", kind="token", device_id="d", device_name="n", digest="x", expires=_soon()
        )
        maker.step = -1  # a copy
        change()
        maker.step = 1
        assert not RememberedPass.objects.exists()
        assert fresh.wait().get("allow") is not True


def _soon() -> Any:
    found: StoredPasskey = UserPasskey.objects.get()
    return found.created.replace(year=2030)


def test_who_has_none_is_told_where_to_add_one(company: Company, host: object) -> None:
    ask(company)
    bob = PasskeyVisit(company.hire("bob")[1])
    assert "Add one on the page of your profile link" in bob.connect()["reason"]
    assert why() == "passkey_not_enrolled"
    ask(company, "optional")
    assert bob.connect()["allow"] is True


@pytest.mark.parametrize("mode", ["required", "optional"])
@pytest.mark.parametrize(
    ("urls", "code"),
    [
        (["https://192.0.2.10", "https://[2001:db8::1]:8443"], "passkey_no_name"),
        ([], "passkey_no_name"),
        (["https://other.example.com"], "passkey_none_usable"),
    ],
)
@pytest.mark.usefixtures("maker")
def test_where_none_can_be_shown_nobody_is_let_in(
    company: Company, visit: PasskeyVisit, settings: LazySettings, mode: str, urls: list[str], code: str
) -> None:
    ask(company, mode)
    company.server.factors.update(if_unavailable="skip")
    settings.API_URLS = urls
    assert visit.connect()["allow"] is False
    assert why() == code


def test_the_profile_says_that_one_signs_in(company: Company, maker: PasskeyMaker) -> None:
    assert profile_flags(VpnUser.objects.get(), policy_of(company.server), NOW).sso_auth


@pytest.mark.usefixtures("maker")
def test_sign_ins_of_one_user_are_bounded(visit: PasskeyVisit) -> None:
    for _ in range(20):
        assert "sso_url" in PasskeyVisit(visit.identity).connect()
    assert PasskeyVisit(visit.identity).connect()["allow"] is False
    assert why() == "passkey_too_many"


@pytest.mark.usefixtures("maker")
def test_a_page_of_a_provider_is_none_of_these_and_the_other_way_round(visit: PasskeyVisit) -> None:
    visit.connect()
    page = SignIn.objects.get().page
    assert visit.browser.get(f"/sso/{page}").status_code == 404
    assert visit.browser.get(f"/sso/here/{'x' * 32}").status_code == 404
    assert HttpsClient().get(visit.page).status_code == 200


def test_an_enrolment_stands_for_the_passkeys(maker: PasskeyMaker) -> None:
    before = Enrolment.objects.get(kind="passkey")
    alice = VpnUser.objects.get()
    page = OwnPasskeys(alice)
    page.show(maker)
    page.add(a_maker(), "key ring")
    assert Enrolment.objects.get(kind="passkey").pk != before.pk
