"""All combinations of factors that a client's ``password_mode`` can name, and any three of all there are, with their
real judges: what is right passes as one attempt however it is joined, one that is wrong refuses, and what nobody could
tell apart is neither stored nor asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, combinations, permutations

import pytest
from django.conf import LazySettings
from django.core.exceptions import ValidationError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.redis_store import redis_client
from servers.models import ServerFactor
from tests.attempts import a_policy, an_attempt
from tests.factories import Company
from tests.protocol_client import NOW
from users.authorize import Allowed, Denied, authorize
from users.factors.base import AskedFactor
from users.factors.cutting import MAX_WAYS, inseparable
from users.factors.oidc import discovery
from users.factors.okta.factor import OktaPush
from users.factors.onelogin import api as onelogin_api
from users.factors.onelogin.factor import OneLoginPush
from users.factors.providers import ProviderConfig
from users.factors.registry import FACTORS, load
from users.models import Provider

from .all_real import FIXED, Alice, Providers

TYPED = tuple(kind for kind in FACTORS if load(kind).typed)
TEXTS, OURS, THEIRS = ("pin", "radius", "ldap"), ("totp", "yubikey"), ("duo_otp", "okta_otp", "onelogin_otp")


def every(kinds: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Each choice of some of them."""
    return list(chain.from_iterable(combinations(kinds, count) for count in range(1, len(kinds) + 1)))


def tell_apart(kinds: tuple[str, ...]) -> bool:
    """One text at most, and one code at most that a service alone can judge."""
    return len(set(kinds) & set(TEXTS)) <= 1 and len(set(kinds) & set(THEIRS)) <= 1


CHOICES = [kinds for kinds in every(TYPED) if tell_apart(kinds)]
THREES = [kinds for kinds in combinations(FACTORS, 3) if tell_apart(kinds)]


def test_nothing_that_is_typed_was_forgotten() -> None:
    assert set(TYPED) == {*TEXTS, *OURS, *THEIRS}
    assert len(CHOICES) == 63


@pytest.fixture(scope="module")
def providers() -> Iterator[Providers]:
    with ExitStack() as stack:
        yield Providers(stack)


@pytest.fixture
def alice(company: Company, providers: Providers, settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> Alice:
    settings.SIGN_IN_HOLD = 0.0
    for push in (OktaPush, OneLoginPush):
        monkeypatch.setattr(push, "pause", staticmethod(lambda seconds: None))
    discovery.forget()
    onelogin_api.forget_tokens()
    company.server.factors.all().delete()
    company.server.factors.create(kind="passkey")  # so that her page has a place to add one
    found = Alice(company.hire("alice", email="alice@acme.example")[0], providers)
    company.server.factors.all().delete()
    return found


def both_orders(alice: Alice, kinds: tuple[str, ...], wrong: str = "") -> list[str]:
    """The text first, as most clients join, and the codes first."""
    texts = [kind for kind in kinds if kind in TEXTS]
    codes = [kind for kind in kinds if kind not in TEXTS]
    orders = [[*texts, *codes], [*codes, *texts]] if texts and codes else [[*texts, *codes]]
    return ["".join(alice.typed(kind, kind == wrong) for kind in order) for order in orders]


@pytest.mark.parametrize("theirs", ["", *THEIRS])
def test_each_combination_passes_in_both_orders_as_one_attempt_and_with_one_wrong_in_none(
    alice: Alice, theirs: str
) -> None:
    for kinds in [kinds for kinds in CHOICES if (set(kinds) & set(THEIRS)) == ({theirs} - {""})]:
        for order in range(2):
            for password in both_orders(alice, kinds)[order : order + 1]:
                verdict = alice.tries(kinds, password)
                assert isinstance(verdict, Allowed), (kinds, order, verdict)
                assert set(kinds) <= {layer for layer, _ in verdict.layers}
                # What was right was given back.
                assert redis_client().get(f"attempts:user:{alice.user.public_id}") in (None, "0", b"0")
        for number, wrong in enumerate(kinds):
            passwords = both_orders(alice, kinds, wrong)
            verdict = alice.tries(kinds, passwords[number % len(passwords)])
            assert isinstance(verdict, Denied), (kinds, wrong)
            assert verdict.reason.startswith("Second factor refused")
            assert redis_client().get(f"attempts:user:{alice.user.public_id}") in ("1", b"1"), (kinds, wrong)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.sampled_from(CHOICES).flatmap(st.permutations),
    wrong=st.sets(st.sampled_from(TYPED), max_size=2),
    missing=st.sets(st.sampled_from(TYPED), max_size=1),
    more=st.sampled_from(["", "", "", "7", "000000", " "]),
)
def test_in_whatever_order_it_passes_exactly_if_all_is_right_and_nothing_is_left_over(
    alice: Alice, kinds: list[str], wrong: set[str], missing: set[str], more: str
) -> None:
    parts = [alice.typed(kind, kind in wrong) for kind in kinds if kind not in missing]
    verdict = alice.tries(kinds, "".join(parts) + more)
    right = not (wrong | missing) & set(kinds) and not more
    # A space belongs to a code of an app that stands last.
    right = right or (more == " " and kinds[-1] == "totp" and not (wrong | missing) & set(kinds))
    assert isinstance(verdict, Allowed) == right, (kinds, wrong, missing, more, verdict)


@pytest.mark.parametrize("first", [kind for kind in FACTORS if any(each[0] == kind for each in THREES)])
def test_of_any_three_all_must_be_right(alice: Alice, first: str) -> None:
    for kinds in [kinds for kinds in THREES if kinds[0] == first]:
        right = alice.tries(kinds, both_orders(alice, kinds)[0])
        assert isinstance(right, Allowed), (kinds, right)
        for wrong in kinds:
            verdict = alice.tries(kinds, both_orders(alice, kinds, wrong)[0], wrong)
            assert isinstance(verdict, Denied), (kinds, wrong, verdict)
            assert verdict.code.startswith(f"{wrong}_"), (kinds, wrong, verdict)


def test_more_orders_than_are_tried_can_be_asked_of_nobody() -> None:
    """Whoever is asked for what can be told apart may type it in any order."""
    for kinds in CHOICES:
        assert len(list(permutations(kinds))) <= MAX_WAYS


def test_what_cannot_be_told_apart_is_named_whatever_else_is_asked(alice: Alice) -> None:
    for kinds in every(TYPED):
        assert bool(inseparable((load(kind), None) for kind in kinds)) != tell_apart(kinds), kinds


@pytest.mark.parametrize("pair", [pair for pair in combinations(TYPED, 2) if not tell_apart(pair)], ids=str)
def test_what_cannot_be_told_apart_is_not_stored_and_nobody_is_asked_for_it(
    company: Company, alice: Alice, pair: tuple[str, str]
) -> None:
    refused_when_saved(company, pair)
    refused_at_connect(alice, pair)


@pytest.mark.parametrize("code", ["joined", "challenge"])
@pytest.mark.parametrize("other", [*OURS, *THEIRS])
def test_a_radius_password_with_its_own_code_goes_with_no_other_code(
    company: Company, alice: Alice, other: str, code: str
) -> None:
    """``otp_otp_password``: whose code is whose nobody could say, and clients ask for one."""
    provider = Provider.objects.get(kind="radius")
    provider.settings["code"] = code
    provider.save()
    refused_when_saved(company, (other, "radius"))
    refused_when_saved(company, ("radius", other))
    refused_at_connect(alice, ("radius", other))


def refused_when_saved(company: Company, pair: tuple[str, str]) -> None:
    company.server.factors.all().delete()
    first, second = (ServerFactor(server=company.server, kind=kind, mode="optional") for kind in pair)
    first.full_clean()
    first.save()
    with pytest.raises(ValidationError, match="nobody could tell them apart") as error:
        second.full_clean()
    assert list(error.value.message_dict) == ["mode"]


def refused_at_connect(alice: Alice, pair: tuple[str, str]) -> None:
    """Before it costs anybody an attempt, here or there."""
    redis_client().flushall()
    policy = a_policy(alice.user, factors=tuple(AskedFactor(kind) for kind in pair))
    typed = "".join(FIXED.get(kind, ("123456",))[0] for kind in pair)
    verdict = authorize(alice.user, policy, an_attempt(typed), NOW)
    assert isinstance(verdict, Denied)
    assert verdict.code == "factors_inseparable"
    assert not redis_client().keys("attempts:*")


def test_a_provider_of_a_password_alone_goes_with_codes(alice: Alice) -> None:
    config = ProviderConfig("p", "radius", "p", {"code": "none"}, {})
    assert inseparable([(load("radius"), config), (load("totp"), None)]) == []
