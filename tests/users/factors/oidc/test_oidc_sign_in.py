"""Connecting with a sign-in: what the client gets, what the browser sees, and whose account is taken."""

from __future__ import annotations

import html
import re
import threading

import pytest
from django.conf import LazySettings
from django.db import connection
from django.test import Client
from wgpeer.envelope import verify_mac
from wgpeer.responses import SignInRequired

from core import clock
from core.redis_store import redis_client
from servers.models import ServerFactor
from tests.concurrency import together
from tests.conftest import Clock
from tests.factories import Company
from tests.lab import until
from users.factors.oidc import discovery
from users.models import Enrolment, SignIn, VpnUser
from users.signin import sign_ins
from wgpeers.models import Decision
from wgpeers.protocol import envelope

from .attempts import Visit, a_provider, ask
from .liar import Liar


def why() -> str:
    return Decision.objects.latest("pk").code


def test_who_signs_in_is_connected(visit: Visit, liar: Liar) -> None:
    asked = visit.connect()
    assert set(asked) == {"sso_url", "sso_token", "signature"}
    assert visit.wait() == 428
    assert "You are signed in" in visit.come_back(liar.sign_in(visit.press()))
    answer = visit.wait()
    assert answer["allow"] is True
    assert answer["configuration"]
    assert why() == "allowed"
    assert Enrolment.objects.get(kind="oidc").user.name == "alice"


def test_the_address_is_signed_as_our_client_requires(visit: Visit) -> None:
    asked = visit.connect()
    assert verify_mac(visit.identity.secret, f"{asked['sso_token']}&{asked['sso_url']}", asked["signature"])
    assert asked["sso_url"].startswith("https://vpn.acme.example/sso/")
    assert len(asked["sso_token"]) <= envelope.TEXT_FIELDS["sso_token"]


def test_the_same_attempt_is_asked_the_same_and_passes_again(visit: Visit, liar: Liar) -> None:
    first = visit.connect()
    assert visit.connect() == first
    visit.come_back(liar.sign_in(visit.press()))
    assert visit.connect()["allow"] is True
    assert visit.wait()["allow"] is True


def test_another_attempt_has_to_sign_in_anew(visit: Visit, liar: Liar) -> None:
    visit.connect()
    visit.come_back(liar.sign_in(visit.press()))
    other = Visit(visit.identity)
    assert "sso_url" in other.connect()
    assert "sso_url" in other.connect("wg_wait", sso_token=visit.asked["sso_token"])


@pytest.mark.parametrize("token", ["", "unknown", "0" * 64])
def test_a_token_that_nobody_waits_for_is_a_connect(visit: Visit, token: str) -> None:
    assert visit.connect("wg_wait", sso_token=token)["sso_url"]


def test_a_sign_in_ends_after_five_minutes(visit: Visit, liar: Liar, fixed_clock: Clock) -> None:
    visit.connect()
    back = liar.sign_in(visit.press())
    fixed_clock.advance(301)
    assert "This sign-in is over" in visit.come_back(back)
    assert "This sign-in is over" in visit.browser.get(visit.page).content.decode()
    assert not SignIn.objects.exclude(outcome="").exists()


def test_the_page_says_what_for(visit: Visit) -> None:
    visit.connect(device_name="<b>heron</b>")
    shown = html.unescape(raw := visit.browser.get(visit.page).content.decode())
    sign_in = SignIn.objects.get()
    for text in ("alice", "Office", "<b>heron</b>", "127.0.0.1", sign_ins.code_of(sign_in), "Sign in with Acme"):
        assert text in shown, text
    assert "<b>heron" not in raw
    assert "<script" not in raw
    assert visit.asked["sso_token"] not in raw


def test_our_client_makes_the_code_that_the_page_shows(visit: Visit) -> None:
    asked = visit.connect()
    code = SignInRequired(asked["sso_url"], asked["sso_token"]).code
    assert re.fullmatch("[A-Z2-7]{3}-[A-Z2-7]{3}", code)
    assert code == sign_ins.code_of(SignIn.objects.get())
    assert f">{code}<" in visit.browser.get(visit.page).content.decode()


def test_pages_from_one_address_are_limited(visit: Visit, settings: LazySettings) -> None:
    settings.SIGN_IN_VIEWS_PER_MINUTE, settings.TRUSTED_PROXIES = 4, ["127.0.0.1"]
    visit.connect()
    paths = [visit.page, "/sso/back", f"/sso/{'x' * 32}", visit.page]
    assert 429 not in [visit.browser.get(path).status_code for path in paths]
    for path in paths:
        response = visit.browser.get(path)
        assert response.status_code == 429
        assert "default-src 'none'" in response["Content-Security-Policy"]
    assert visit.browser.get(visit.page, headers={"X-Forwarded-For": "192.0.2.7"}).status_code == 200


def test_pages_say_so_while_redis_is_away(visit: Visit, settings: LazySettings) -> None:
    visit.connect()
    settings.REDIS_URL = "unix:///nowhere.sock"
    response = visit.browser.get(visit.page)
    assert (response.status_code, "Wait a minute" in response.content.decode()) == (503, True)


def test_a_state_is_looked_up_by_an_index(db: None) -> None:
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, SignIn._meta.db_table).values()
    assert [each for each in found if each["index"] and each["columns"][0] == "state_hash"]


def test_pages_are_held_to_a_strict_policy(visit: Visit) -> None:
    visit.connect()
    for path in (visit.page, "/sso/back", f"/sso/{'x' * 32}"):
        response = visit.browser.get(path)
        policy = response["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src" not in policy
        assert "no-store" in response["Cache-Control"]
        assert response["Referrer-Policy"] == "same-origin"


def test_looking_at_the_page_begins_nothing(visit: Visit) -> None:
    visit.connect()
    before = SignIn.objects.values().get()
    visit.browser.get(visit.page)
    assert SignIn.objects.values().get() == before


def test_no_other_site_can_press_the_button(visit: Visit) -> None:
    visit.connect()
    assert visit.browser.post(visit.page).status_code == 403
    assert SignIn.objects.get().state_hash == ""


def test_only_the_browser_that_pressed_the_button_brings_an_answer_back(visit: Visit, liar: Liar) -> None:
    # Else a thief with a profile sends its owner straight to a provider that knows them.
    visit.connect()
    address = visit.press()
    victim = Client()
    assert victim.get(liar.sign_in(address)).status_code == 400
    assert visit.wait() == 428


def test_a_state_and_a_code_are_good_once(visit: Visit, liar: Liar) -> None:
    visit.connect()
    back = liar.sign_in(visit.press())
    assert "You are signed in" in visit.come_back(back)
    assert "This sign-in is over" in visit.come_back(back)
    other = Visit(visit.identity, visit.browser)
    other.connect()
    state = liar.sign_in(other.press()).partition("&state=")[2]
    assert "You cannot connect" in other.come_back(f"/sso/back?code=code-1&state={state}")
    assert (other.wait()["allow"], why()) == (False, "oidc_bad_answer")


def test_of_answers_that_come_at_once_one_is_taken(visit: Visit, liar: Liar) -> None:
    visit.connect()
    back = liar.sign_in(visit.press())
    state = back.partition("&state=")[2]
    browser = visit.browser.cookies["sign-in"].value
    now = clock.now()
    found = together([lambda: sign_ins.by_state(state, browser, now)] * 4)
    assert sum(isinstance(each, SignIn) for each in found) == 1


def test_somebody_elses_account_is_refused(visit: Visit, liar: Liar) -> None:
    visit.connect()
    assert "You cannot connect" in visit.come_back(liar.sign_in(visit.press(), email="bob@acme.example", sub="sub-bob"))
    assert (visit.wait()["allow"], why()) == (False, "oidc_other_account")
    assert not Enrolment.objects.filter(kind="oidc").exists()


def test_after_the_first_sign_in_the_providers_own_id_counts(visit: Visit, liar: Liar) -> None:
    visit.connect()
    visit.come_back(liar.sign_in(visit.press()))
    renamed = Visit(visit.identity)
    renamed.connect()
    renamed.come_back(liar.sign_in(renamed.press(), email="alice.smith@acme.example"))
    assert renamed.wait()["allow"] is True
    reused = Visit(visit.identity)  # the address was given to somebody else
    reused.connect()
    reused.come_back(liar.sign_in(reused.press(), email="alice@acme.example", sub="sub-other"))
    assert (reused.wait()["allow"], why()) == (False, "oidc_other_account")


@pytest.mark.parametrize("verified", [None, False, "false", 1, [True], "yes"])
def test_an_address_that_is_not_verified_matches_nobody(visit: Visit, liar: Liar, verified: object) -> None:
    visit.connect()
    visit.come_back(liar.sign_in(visit.press(), email_verified=verified))
    assert (visit.wait()["allow"], why()) == (False, "oidc_address_unverified")


def test_a_user_without_an_address_is_told(company: Company, visit: Visit) -> None:
    VpnUser.objects.update(email="")
    answer = visit.connect()
    assert "no e-mail address" in answer["reason"]
    assert why() == "oidc_not_enrolled"


@pytest.mark.parametrize(
    ("groups", "code"),
    [
        (["staff", "vpn"], "allowed"),
        ("vpn", "allowed"),
        (["staff"], "oidc_group"),
        ([], "oidc_group"),
        (None, "oidc_groups_unknown"),
    ],
)
def test_groups_that_a_server_names(company: Company, visit: Visit, liar: Liar, groups: object, code: str) -> None:
    ServerFactor.objects.update(settings={"groups": "vpn\nadmins"})
    visit.connect()
    visit.come_back(liar.sign_in(visit.press(), groups=groups))
    assert (visit.wait()["allow"], why()) == (code == "allowed", code)


def test_claims_that_a_provider_must_send(company: Company, visit: Visit, liar: Liar) -> None:
    ask(company, a_provider(liar.url, "Tight", required_claims="hd=acme.example"))
    visit.connect()
    visit.come_back(liar.sign_in(visit.press(), hd="evil.example"))
    assert (visit.wait()["allow"], why()) == (False, "oidc_claim")
    again = Visit(visit.identity)
    again.connect()
    again.come_back(liar.sign_in(again.press(), hd="acme.example"))
    assert again.wait()["allow"] is True


def test_a_provider_that_is_down(company: Company, visit: Visit, liar: Liar) -> None:
    liar.down = True
    assert visit.connect()["allow"] is False
    assert why() == "oidc_unavailable"
    ServerFactor.objects.update(if_unavailable="skip")
    assert visit.connect()["allow"] is True


def test_a_provider_that_goes_down_meanwhile_can_be_tried_again(visit: Visit, liar: Liar, fixed_clock: Clock) -> None:
    visit.connect()
    back = liar.sign_in(visit.press())
    liar.down = True
    assert "Not right now" in visit.come_back(back)
    assert visit.wait() == 428
    liar.down = False
    fixed_clock.advance(discovery.PAUSE + 1)
    assert "You are signed in" in visit.come_back(liar.sign_in(visit.press()))


def test_who_is_disabled_while_waiting_is_refused(visit: Visit, liar: Liar) -> None:
    visit.connect()
    visit.come_back(liar.sign_in(visit.press()))
    VpnUser.objects.get().save()
    VpnUser.objects.all().update(enabled=False)
    assert visit.wait()["allow"] is False


def test_what_was_asked_back_costs_no_attempt(visit: Visit, settings: LazySettings) -> None:
    settings.ATTEMPTS_PER_USER = settings.ATTEMPTS_PER_ADDRESS = 2
    for _ in range(5):
        assert "sso_url" in Visit(visit.identity).connect()


def test_sign_ins_of_one_user_are_bounded(visit: Visit) -> None:
    for _ in range(20):
        assert "sso_url" in Visit(visit.identity).connect()
    assert Visit(visit.identity).connect()["allow"] is False
    assert why() == "oidc_too_many"


def test_a_client_is_held_until_its_user_has_signed_in(visit: Visit, liar: Liar, settings: LazySettings) -> None:
    visit.connect()
    back = liar.sign_in(visit.press())
    settings.SIGN_IN_HOLD = 25.0
    answers = []

    def wait() -> None:
        answers.append(visit.wait())
        connection.close()

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: redis_client().info("clients")["blocked_clients"])  # it listens for the bell
    assert not answers
    visit.come_back(back)
    waiting.join(60)
    assert answers[0]["allow"] is True


def test_no_more_are_held_than_may_be(visit: Visit, settings: LazySettings) -> None:
    visit.connect()
    settings.SIGN_IN_HOLD, settings.SIGN_INS_HELD = 600.0, 0  # it would be seen
    assert visit.wait() == 428
