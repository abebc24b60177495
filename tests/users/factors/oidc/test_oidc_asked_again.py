"""Whoever signed in is asked about again: while they are connected, and where a factor token stands for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection as database
from django.db.models import F
from django.test import Client
from joserfc import jwt
from joserfc.jwk import RSAKey

from core import clock
from core.crypto import Secret
from core.redis_store import redis_client
from servers.models import Server
from tests.admin_site import staff
from tests.concurrency import together
from tests.conftest import Clock
from tests.factories import Company
from users.models import Provider, RememberedPass
from users.signin import grants
from users.signin.models import SignInGrant
from wgpeers.lifecycle import signed_in
from wgpeers.models import Connection, Decision, State

from .attempts import Visit, a_provider, ask
from .liar import Liar

EVERY = 300
TOKEN = "t" * 16
STRANGER = RSAKey.generate_key(2048, {"kid": "k1"})


@pytest.fixture
def provider(company: Company, liar: Liar) -> Provider:
    liar.lasting = True
    return a_provider(liar.url, ask_again=EVERY // 60)


@pytest.fixture
def signed(company: Company, host: object, provider: Provider, liar: Liar) -> Visit:
    """Alice, connected by a sign-in; a token stands for it for a day."""
    Server.objects.update(factor_token_ttl=86400)
    ask(company, provider)
    visit = Visit(company.hire("alice", email="alice@acme.example")[1])
    sign_in(visit, liar)
    return visit


def sign_in(visit: Visit, liar: Liar, **claims: Any) -> str:
    visit.connect(token=TOKEN)
    where = visit.press()
    visit.come_back(liar.sign_in(where, **claims))
    assert visit.connect(token=TOKEN)["allow"] is True
    return where


def step(fixed_clock: Clock, seconds: float = EVERY + 1) -> int:
    return signed_in.step(fixed_clock.advance(seconds))


def connected() -> bool:
    return Connection.objects.filter(state=State.OPEN).exists()


def asked(liar: Liar) -> int:
    return liar.fetched.count("/token")


def test_a_refresh_token_is_asked_for_and_kept_encrypted(company: Company, signed: Visit, liar: Liar) -> None:
    where = sign_in(Visit(company.hire("bob", email="bob@acme.example")[1]), liar, email="bob@acme.example", sub="b")
    assert "offline_access" in where
    assert "prompt=consent" in where
    grant = SignInGrant.objects.get(user__name="alice")
    assert (token := grant.refresh_token.reveal()).startswith("refresh-")
    with database.cursor() as cursor:
        cursor.execute("SELECT refresh_token FROM users_signingrant")
        assert not [row for row in cursor.fetchall() if "refresh-" in row[0]]
    assert token not in f"{grant!r} {vars(grant)}"


def test_a_provider_that_is_not_to_be_asked_gets_nothing_of_it(visit: Visit, liar: Liar) -> None:
    liar.lasting = True
    visit.connect()
    where = visit.press()
    assert "offline_access" not in where
    visit.come_back(liar.sign_in(where))
    assert not SignInGrant.objects.exists()


def test_who_is_fine_stays_and_each_token_is_shown_once(signed: Visit, liar: Liar, fixed_clock: Clock) -> None:
    for _ in range(5):
        assert step(fixed_clock) == 0
        assert SignInGrant.objects.get().refresh_token.reveal() in liar.good
    assert (connected(), asked(liar)) == (True, 6)


def test_nobody_is_asked_about_before_it_is_time(signed: Visit, liar: Liar, fixed_clock: Clock) -> None:
    step(fixed_clock, EVERY - 1)
    assert asked(liar) == 1


def test_nobody_is_asked_about_who_is_not_connected(signed: Visit, liar: Liar, fixed_clock: Clock) -> None:
    Connection.objects.update(state=State.ENDED)
    step(fixed_clock)
    assert asked(liar) == 1


def test_a_token_that_stays_the_same_is_kept(signed: Visit, liar: Liar, fixed_clock: Clock) -> None:
    liar.rotates = liar.lasting = False
    for _ in range(3):
        assert step(fixed_clock) == 0
    assert asked(liar) == 4


def test_who_is_disabled_there_is_disconnected(signed: Visit, liar: Liar, fixed_clock: Clock) -> None:
    liar.good.clear()
    assert step(fixed_clock) == 1
    assert not connected()
    decision = Decision.objects.latest("pk")
    assert (decision.code, decision.layer) == ("sign_in_over", "sign_in")
    assert "no longer stands by the sign-in" in decision.detail
    assert f"{EVERY + 1} s before" in decision.detail
    assert not SignInGrant.objects.exists()
    assert not RememberedPass.objects.exists()
    again = Visit(signed.identity)
    assert "sso_url" in again.connect(token=TOKEN)


@pytest.mark.parametrize(
    ("groups", "code"), [(["vpn"], ""), (["staff"], "in none of the groups"), ([], "in none"), (None, "did not say")]
)
def test_groups_are_looked_at_each_time(
    signed: Visit, liar: Liar, fixed_clock: Clock, company: Company, groups: Any, code: str
) -> None:
    company.server.factors.update(settings={"groups": "vpn"})
    liar.claims["groups"] = groups
    assert step(fixed_clock) == bool(code)
    assert code in Decision.objects.latest("pk").detail


def test_another_account_is_no_answer_about_this_one(signed: Visit, liar: Liar, fixed_clock: Clock) -> None:
    liar.claims["sub"] = "sub-bob"
    assert step(fixed_clock) == 1
    assert not connected()


def lie(liar: Liar) -> None:
    liar.forge = lambda claims: jwt.encode({"alg": "RS256", "kid": "k1"}, claims, STRANGER)


FAULTS: dict[str, Callable[[Liar], object]] = {
    "down": lambda liar: setattr(liar, "down", True),
    "lying": lie,
    "our secret is wrong": lambda liar: Provider.objects.update(secrets=Secret.of('{"client_secret": "old"}')),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_says_nothing_of_the_user_ends_nobody(
    signed: Visit, provider: Provider, liar: Liar, fixed_clock: Clock, fault: str
) -> None:
    FAULTS[fault](liar)
    for _ in range(4):
        assert step(fixed_clock) == 0
    assert SignInGrant.objects.get().silent_since
    provider.save()  # with the right secret
    liar.down, liar.forge = False, None
    assert step(fixed_clock) == 0
    assert SignInGrant.objects.get().silent_since is None
    assert connected()


def test_a_silent_provider_disconnects_where_the_administrator_says_so(
    company: Company, signed: Visit, provider: Provider, liar: Liar, fixed_clock: Clock
) -> None:
    other = Visit(company.hire("bob", email="bob@acme.example")[1])
    sign_in(other, liar, email="bob@acme.example", sub="sub-bob")
    provider.settings["patience"] = 30
    provider.save()
    liar.down = True
    assert [step(fixed_clock) for _ in range(6)] == [0] * 6
    before = asked(liar)
    assert step(fixed_clock) == 2
    assert asked(liar) == before + 1  # about nobody else in the same step
    assert "could not be asked" in Decision.objects.latest("pk").detail


def test_administrators_see_who_gives_no_answer(
    signed: Visit, liar: Liar, fixed_clock: Clock, client: Client, django_assert_max_num_queries: Any
) -> None:
    staff(client, superuser=True)
    for number in range(5):
        a_provider(liar.url, f"another {number}")

    def listed() -> str:
        with django_assert_max_num_queries(12):
            return client.get("/admin/users/provider/").content.decode()

    assert "1 user" in listed()
    liar.down = True
    step(fixed_clock)
    assert "1 user, no answer since 20" in listed()
    liar.down = False
    step(fixed_clock)
    assert "no answer" not in listed()


def test_of_two_workers_at_once_one_asks(signed: Visit, liar: Liar, fixed_clock: Clock) -> None:
    now = fixed_clock.advance(EVERY + 1)
    together([lambda: signed_in.step(now)] * 4)
    assert (connected(), asked(liar)) == (True, 2)
    # Also where both are past that, as after Redis lost what it knew.
    redis_client().flushall()
    grant = SignInGrant.objects.get()
    assert together([lambda: grants.claim(grant, now)] * 4).count(True) == 1


def test_a_sign_in_meanwhile_is_not_undone(signed: Visit, liar: Liar, fixed_clock: Clock) -> None:
    def newer() -> None:
        SignInGrant.objects.update(refresh_token=Secret.of("newer"), serial=F("serial") + 1)
        database.close()

    liar.meanwhile = newer
    liar.good.clear()
    assert step(fixed_clock) == 0
    assert connected()
    assert SignInGrant.objects.get().refresh_token.reveal() == "newer"


def test_a_factor_token_stands_only_while_the_provider_stands_by_it(
    signed: Visit, liar: Liar, fixed_clock: Clock
) -> None:
    Connection.objects.update(state=State.ENDED)
    fixed_clock.advance(7200)
    assert Visit(signed.identity).connect(token=TOKEN)["allow"] is True
    assert asked(liar) == 2
    liar.good.clear()
    fixed_clock.advance(61)
    again = Visit(signed.identity)
    assert again.connect(token=TOKEN)["allow"] is False
    assert Decision.objects.latest("pk").code == "oidc_revoked"
    assert "sso_url" in again.connect(token=TOKEN)


def test_a_factor_token_stands_while_the_provider_is_down(signed: Visit, liar: Liar, fixed_clock: Clock) -> None:
    fixed_clock.advance(7200)
    liar.down = True
    assert Visit(signed.identity).connect(token=TOKEN)["allow"] is True
    assert ["oidc", "not_asked_again"] in Decision.objects.latest("pk").layers


def test_what_is_not_to_be_asked_any_more_is_forgotten(
    signed: Visit, provider: Provider, liar: Liar, fixed_clock: Clock
) -> None:
    provider.settings["ask_again"] = 0
    provider.save()
    assert step(fixed_clock) == 0
    assert (connected(), asked(liar), SignInGrant.objects.exists()) == (True, 1, False)


def test_the_next_question_is_due_after_what_the_provider_says(signed: Visit) -> None:
    assert SignInGrant.objects.get().due == clock.moment(clock.now() + EVERY)
