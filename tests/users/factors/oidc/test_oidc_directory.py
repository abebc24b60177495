"""A provider's directory is asked about accounts, against stand-ins of Google's and Entra's that were written from
their documentation."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings

from core.clock import moment
from core.crypto import Secret
from core.pace import Pace
from servers.models import Server
from tests.conftest import Clock
from tests.counterpart import Said
from tests.factories import Company
from tests.lab import HANGING
from tests.protocol_client import Identity
from users.factors.oidc import discovery
from users.factors.oidc.form import OidcProviderForm
from users.factors.panels import NotDone
from users.factors.providers import config_of
from users.factors.registry import load
from users.models import Provider, RememberedPass
from users.signin.models import SignInGrant
from wgpeers import tasks
from wgpeers.lifecycle import signed_in
from wgpeers.models import Connection, Decision, State

from .attempts import Visit, a_provider, ask
from .directories import DirectoryLiar, Entra, Google, said
from .liar import lying

EVERY = 300
KINDS = (Google, Entra)
TOKEN = "t" * 16


@pytest.fixture(params=KINDS, ids=lambda each: each.preset)
def liar(request: pytest.FixtureRequest, settings: LazySettings) -> Iterator[DirectoryLiar]:
    settings.SIGN_IN_HOLD = 0.0
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    discovery.forget()
    with lying(request.param()) as running:
        yield running


@pytest.fixture
def provider(company: Company, host: object, liar: DirectoryLiar) -> Provider:
    Server.objects.update(factor_token_ttl=86400)
    found = a_provider(liar.url, secrets=liar.secrets(), ask_again=EVERY // 60, **liar.settings())
    ask(company, found)
    return found


@pytest.fixture
def alice(company: Company, provider: Provider) -> Identity:
    return company.hire("alice", email="alice@acme.example")[1]


def signed(identity: Identity, liar: DirectoryLiar, **claims: Any) -> str:
    """The outcome of one attempt's sign-in, which nothing stands for."""
    RememberedPass.objects.all().delete()
    Decision.objects.all().delete()
    visit = Visit(identity)
    visit.connect(token=TOKEN)
    visit.come_back(liar.sign_in(visit.press(), **claims))
    answer = visit.connect(token=TOKEN)
    if "sso_url" in answer:
        return "waiting"
    return "allowed" if answer["allow"] else Decision.objects.latest("pk").code


def step(fixed_clock: Clock, seconds: float = EVERY + 1) -> int:
    return signed_in.step(fixed_clock.advance(seconds))


def connected() -> int:
    return Connection.objects.filter(state=State.OPEN).count()


def test_the_directory_says_the_groups_on_all_pages_and_those_of_groups(
    company: Company, alice: Identity, liar: DirectoryLiar
) -> None:
    for group in liar.groups:
        company.server.factors.update(settings={"groups": group})
        assert signed(alice, liar) == "allowed", group
    company.server.factors.update(settings={"groups": "others"})
    assert signed(alice, liar) == "oidc_group"
    assert sorted(SignInGrant.objects.get().groups or []) == sorted(liar.groups)


def test_it_needs_no_refresh_token(alice: Identity, liar: DirectoryLiar) -> None:
    liar.lasting = True
    visit = Visit(alice)
    visit.connect()
    where = visit.press()
    assert "offline" not in where
    visit.come_back(liar.sign_in(where))
    grant = SignInGrant.objects.get()
    assert (grant.account, bool(grant.refresh_token)) == (
        {"google": "sub-alice", "entra": "oid-alice"}[liar.preset],
        False,
    )


def test_who_is_fine_stays_and_one_token_is_used_for_all_questions(
    alice: Identity, liar: DirectoryLiar, fixed_clock: Clock
) -> None:
    assert signed(alice, liar) == "allowed"
    for _ in range(3):
        assert step(fixed_clock) == 0
    assert (connected(), len(liar.tokens)) == (1, 1)
    liar.tokens.clear()
    step(fixed_clock)  # one that is not taken any more is replaced
    assert SignInGrant.objects.get().silent_since
    step(fixed_clock)
    assert SignInGrant.objects.get().silent_since is None
    assert connected() == 1


@pytest.mark.parametrize("why", ["disabled", "gone"])
def test_who_is_disabled_or_deleted_there_is_disconnected_and_kept_out(
    alice: Identity, liar: DirectoryLiar, fixed_clock: Clock, why: str
) -> None:
    ways = [{"account": each} for each in liar.disabled] if why == "disabled" else [{"gone": True}]
    for way in ways:
        liar.account, liar.gone = {}, False
        assert signed(alice, liar) == "allowed"
        for name, value in way.items():
            setattr(liar, name, value)
        assert step(fixed_clock) == 1
        assert not connected()
        decision = Decision.objects.latest("pk")
        assert (decision.code, decision.layer) == ("sign_in_over", "sign_in")
        assert f"{EVERY + 1} s before" in decision.detail
        assert not RememberedPass.objects.exists()
        # Nor by a new sign-in, whatever the provider's page let them do.
        assert signed(alice, liar) == "oidc_revoked"


def test_who_is_in_no_group_any_more_is_disconnected(
    company: Company, alice: Identity, liar: DirectoryLiar, fixed_clock: Clock
) -> None:
    company.server.factors.update(settings={"groups": liar.groups[0]})
    assert signed(alice, liar) == "allowed"
    groups = {"google": ("/groups", {"kind": "…"}), "entra": ("/transitiveMemberOf", {"value": []})}
    part, nothing = groups[liar.preset]
    liar.says[part] = said(nothing)
    assert step(fixed_clock) == 1
    assert "in none of the groups" in Decision.objects.latest("pk").detail


def test_a_factor_token_stands_only_while_the_directory_stands_by_it(
    alice: Identity, liar: DirectoryLiar, fixed_clock: Clock
) -> None:
    assert signed(alice, liar) == "allowed"
    Connection.objects.update(state=State.ENDED)
    fixed_clock.advance(7200)
    assert Visit(alice).connect(token=TOKEN)["allow"] is True
    liar.gone = True
    fixed_clock.advance(61)
    assert Visit(alice).connect(token=TOKEN)["allow"] is False
    assert Decision.objects.latest("pk").code == "oidc_revoked"


# What the directory may say, by a part of the path, that says nothing of Alice.
USER, GROUPS = {"google": "/users/", "entra": "/users/oid-alice"}, {"google": "/groups", "entra": "/transitiveMemberOf"}
NOTHING = {
    "no such address": (USER, Said(404, b"<html>")),
    "another 404": (USER, said({"error": {"code": "BadRequest", "errors": [{"reason": "invalid"}]}}, 404)),
    "not allowed": (USER, said({"error": {"code": "Authorization_RequestDenied"}}, 403)),
    "too often": (USER, said({"error": {"code": "TooManyRequests"}}, 429)),
    "empty": (USER, said({})),
    "a list": (USER, said([])),
    "redirect": (USER, Said(302, b"", {"Location": "/"})),
    "somebody else": (USER, said({"id": "bob", "accountEnabled": False, "suspended": True})),
    "no word of it": (USER, said({"id": "sub-alice"})),
    "words for it": (USER, said({"id": "sub-alice", "suspended": "true", "accountEnabled": "false"})),
    "no list of groups": (GROUPS, said({"value": {}, "groups": {}})),
    "groups without a name": (GROUPS, said({"value": [{"id": None}], "groups": [{"email": 5}]})),
    "groups of no kind": (GROUPS, said({"value": [{"id": "x"}], "groups": [{}]})),
    "broken off": (GROUPS, Said(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{")),
}


@pytest.mark.parametrize("case", NOTHING)
def test_what_says_nothing_of_the_account_ends_nobody_and_lets_nobody_in(
    alice: Identity, liar: DirectoryLiar, fixed_clock: Clock, case: str
) -> None:
    assert signed(alice, liar) == "allowed"
    part, answer = NOTHING[case][0][liar.preset], NOTHING[case][1]
    liar.says[part] = answer
    assert step(fixed_clock) == 0
    assert SignInGrant.objects.get().silent_since
    assert signed(alice, liar) == "waiting"
    liar.says.clear()
    assert step(fixed_clock) == 0
    assert SignInGrant.objects.get().silent_since is None
    assert connected() == 1


@pytest.mark.parametrize("fault", ["down", "no_token"])
def test_a_directory_that_is_silent_disconnects_where_the_administrator_says_so(
    alice: Identity, provider: Provider, liar: DirectoryLiar, fixed_clock: Clock, fault: str
) -> None:
    provider.settings["patience"] = 30
    provider.save()
    assert signed(alice, liar) == "allowed"
    discovery.forget()
    setattr(liar, fault, True)
    assert [step(fixed_clock) for _ in range(6)] == [0] * 6
    assert step(fixed_clock) == 1
    assert "could not be asked" in Decision.objects.latest("pk").detail


def also_connected(company: Company, name: str, account: str) -> None:
    """Somebody else, as Alice is."""
    user = company.hire(name, email=f"{name}@acme.example")[0]
    row = Connection.objects.get(user__name="alice", state=State.OPEN)
    row.pk, row.public_id, row.user, row.wg_public_key = None, f"of-{name}", user, f"{name:A<43}="
    row.host_part = max(Connection.objects.values_list("host_part", flat=True)) + 1
    row.save()
    grant = SignInGrant.objects.get(user__name="alice")
    grant.pk, grant.user, grant.account = None, user, account
    grant.due -= timedelta(seconds=1)
    grant.save()


def test_of_whom_nothing_can_be_known_keeps_nobody_else_from_being_asked_about(
    company: Company, alice: Identity, liar: DirectoryLiar, fixed_clock: Clock
) -> None:
    assert signed(alice, liar) == "allowed"
    also_connected(company, "bob", "bob")
    liar.says["/users/bob"] = said({"error": {"code": "Authorization_RequestDenied"}}, 403)
    liar.gone = True
    assert step(fixed_clock) == 1
    assert any("/users/bob" in each for each in liar.looked)
    assert SignInGrant.objects.get().account == "bob"


# Google's pages are asked for by a word, not by an address.
@pytest.mark.parametrize("liar", [Entra], indirect=True)
def test_a_token_goes_nowhere_else(alice: Identity, liar: Entra) -> None:
    liar.next_link = "https://evil.example/v1.0/users"
    assert signed(alice, liar) == "waiting"
    liar.next_link = liar.url.replace("http://localhost", "http://127.0.0.1") + "/v1.0/users"
    assert signed(alice, liar) == "waiting"
    assert not [each for each in liar.looked if each == "/v1.0/users"]


def test_pages_without_end_are_not_followed_for_ever(alice: Identity, liar: DirectoryLiar) -> None:
    again = {"nextPageToken": "1", "@odata.nextLink": f"{liar.url}/v1.0/x/transitiveMemberOf"}
    liar.says[GROUPS[liar.preset]] = said({"value": [], "groups": [], **again})
    assert signed(alice, liar) == "waiting"
    assert len(liar.looked) < 120


@pytest.mark.parametrize(
    "claims",
    [
        {"groups": None},
        {"groups": None, "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://…"}}},
        {"groups": [], "_claim_names": {"groups": "src1"}},
        {"groups": None, "hasgroups": True},
    ],
    ids=str,
)
def test_too_many_groups_for_a_token_are_asked_for_or_refuse(
    company: Company, alice: Identity, provider: Provider, liar: DirectoryLiar, claims: dict[str, Any]
) -> None:
    """Entra leaves the claim out where an account is in more than 200."""
    company.server.factors.update(settings={"groups": liar.groups[2]})
    assert signed(alice, liar, **claims) == "allowed"
    provider.settings |= {"directory": False, "groups_claim": "groups"}
    provider.save()
    assert signed(alice, liar, **claims) == "oidc_groups_unknown"


def test_without_the_directorys_own_id_nobody_is_let_in(alice: Identity, liar: DirectoryLiar) -> None:
    if isinstance(liar, Entra):
        assert signed(alice, liar, oid=None) == "oidc_bad_answer"
        assert signed(alice, liar, oid=["oid-alice"]) == "oidc_bad_answer"
        assert liar.looked == []


def test_turned_on_it_is_asked_about_who_is_connected_already_and_turned_off_nobody_is(
    alice: Identity, provider: Provider, liar: DirectoryLiar, fixed_clock: Clock
) -> None:
    liar.lasting = True
    provider.settings["directory"] = False
    provider.save()
    assert signed(alice, liar) == "allowed"
    provider.settings["directory"] = True
    provider.save()
    step(fixed_clock)
    assert liar.looked
    SignInGrant.objects.update(refresh_token=Secret(""))
    provider.settings["directory"] = False
    provider.save()
    assert step(fixed_clock) == 0
    assert (connected(), SignInGrant.objects.count()) == (1, 0)


def test_it_can_be_tried(provider: Provider, liar: DirectoryLiar) -> None:
    oidc = load("oidc")
    assert "Its directory answers, too." in oidc.try_out(config_of(provider, OidcProviderForm))
    liar.says["/groups"] = said({"error": {"code": "Authorization_RequestDenied"}}, 403)
    with pytest.raises(NotDone, match="does not let us ask"):
        oidc.try_out(config_of(provider, OidcProviderForm))
    liar.no_token = True
    with pytest.raises(NotDone, match="status 401"):
        oidc.try_out(config_of(provider, OidcProviderForm))


def form(**changes: Any) -> set[str]:
    """Where it has errors."""
    key = {"type": "service_account", "client_email": "a@b", "private_key": "…", "token_uri": "https://oauth2.example/"}
    usual = {
        "preset": "google", "client_id": "c", "client_secret": "s", "our_address": "https://vpn.acme.example",
        "directory": True, "directory_admin": "root@acme.example", "directory_key": json.dumps(key),
    }  # fmt: skip
    return set(OidcProviderForm(usual | changes).errors)


def test_what_cannot_be_asked_is_refused_when_it_is_said() -> None:
    assert form() == set()
    assert form(preset="entra", domain="tenant", directory_key="", directory_admin="") == set()
    assert form(directory=False, directory_key="", directory_admin="") == set()
    assert form(preset="okta", domain="acme.okta.com") == {"directory"}
    assert form(preset="", issuer="https://id.acme.example") == {"directory"}
    assert form(directory_admin="") == {"directory_admin"}
    assert form(directory_admin="root") == {"directory_admin"}
    assert form(directory_key="") == {"directory_key"}
    plain = {
        "type": "service_account",
        "client_email": "a@b",
        "private_key": "…",
        "token_uri": "http://oauth2.example/",
    }
    for key in ("{", "[]", "5", '{"type": "authorized_user"}', '{"type": "service_account"}', json.dumps(plain)):
        assert form(directory_key=key) == {"directory_key"}, key
    assert form(directory_address="http://graph.example") == {"directory_address"}


def test_secrets_of_the_directory_are_shown_nowhere(provider: Provider, liar: DirectoryLiar) -> None:
    config = config_of(provider, OidcProviderForm)
    assert "PRIVATE KEY" not in f"{config!r} {config.settings!r} {provider.settings!r} {provider.secrets!r}"


def test_a_step_ends_with_its_turn_and_the_next_one_goes_on(
    company: Company, alice: Identity, liar: DirectoryLiar, fixed_clock: Clock
) -> None:
    assert signed(alice, liar) == "allowed"
    for name in ("bob", "carol", "dave"):
        also_connected(company, name, SignInGrant.objects.get(user__name="alice").account)
    now = fixed_clock.advance(EVERY + 1)
    for left in (3, 2, 1, 0):
        signed_in.step(now, Pace(steady=Elapsing(), turn=signed_in.TURN))
        assert SignInGrant.objects.filter(due__lte=moment(now)).count() == left


@dataclass
class Elapsing:
    """A clock by which a turn is over as soon as it has begun."""

    seconds: float = -signed_in.TURN

    def __call__(self) -> float:
        self.seconds += signed_in.TURN
        return self.seconds


def test_a_slow_provider_holds_no_thread_of_the_queue(alice: Identity, liar: DirectoryLiar, fixed_clock: Clock) -> None:
    assert signed(alice, liar) == "allowed"
    fixed_clock.advance(EVERY + 1)
    asked, go_on, before = threading.Event(), threading.Event(), len(liar.looked)

    def slowly() -> None:
        asked.set()
        assert go_on.wait(HANGING)

    liar.asked_before = slowly
    tasks.ask_again()
    assert asked.wait(HANGING)
    tasks.ask_again()  # beat's next one: nothing is done twice
    assert len(liar.looked) == before + 1
    liar.asked_before = lambda: None
    go_on.set()
    assert tasks._asking.wait(HANGING)
    assert SignInGrant.objects.get().due > moment(fixed_clock.advance(0))
