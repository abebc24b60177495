"""Who is connected by a sign-in is asked about again: one who was disabled at the provider is disconnected here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db.models import Min, QuerySet
from redis.exceptions import LockError

from core.clock import moment
from core.http import NoAnswer
from core.one_at_a_time import is_ending
from core.pace import Pace
from core.redis_store import redis_client
from servers.policy import policy_of
from users.factors import providers
from users.factors.base import AskedFactor, Denied
from users.factors.providers import ProviderConfig
from users.factors.registry import FACTORS, load
from users.factors.wanted import NOBODY_CAN_JUDGE, wanted_factors
from users.models import Provider
from users.signin import grants
from users.signin.factor import SignInFactor, in_groups
from users.signin.models import SignInGrant
from users.signin.outcomes import NotSignedIn, SaysNothing
from wgpeers.models import Connection, EndReason, State

from .ending import end

log = logging.getLogger(__name__)

# Grants that one step looks at.
BATCH = 500
# Seconds that one step takes, beside the question that it is at then. Beat's next one comes after fifteen.
TURN = 12.0
# Seconds after which whoever asks a provider is taken to have died: more than a turn and the longest question.
LONGEST = 90


def step(now: float, pace: Pace | None = None) -> int:
    """Ask about those whose turn it is, one after the other, until the turn of ``pace`` is over; how many connections
    were ended. Raise ``RedisError``."""
    pace, ended = pace or Pace(turn=TURN), 0
    # Whose oldest question has waited for longest comes first, so that none takes all of the turns.
    waiting = Provider.objects.filter(grants__in=_due(now)).annotate(oldest=Min("grants__due")).order_by("oldest")
    for provider in waiting:
        with _alone(provider) as alone:
            if alone:
                ended += _step_at(provider, now, pace)
        if pace.over or is_ending():
            break
    return ended


def _due(now: float) -> QuerySet[SignInGrant]:
    open_ones = Connection.objects.filter(state=State.OPEN).values("user")
    return SignInGrant.objects.filter(due__lte=moment(now), user__in=open_ones)


@contextmanager
def _alone(provider: Provider) -> Iterator[bool]:
    """Whether nobody else asks this provider now, on whichever control node."""
    turn = redis_client().lock(f"asked-again:{provider.public_id}", timeout=LONGEST)
    alone = turn.acquire(blocking=False)
    try:
        yield alone
    finally:
        if alone:
            # It took so long that the turn is over already, or somebody else's.
            with suppress(LockError):
                turn.release()


def _step_at(provider: Provider, now: float, pace: Pace) -> int:
    """One that gives no answer is asked about nobody else in this step."""
    due = _due(now).filter(provider=provider).select_related("user__organization", "provider").order_by("due")[:BATCH]
    found, ended, silent = _config_of(provider), 0, False
    for grant in due:
        if found is None or not found[0].can_ask(found[1], grant):
            grants.drop(grant)
            continue
        factor, config = found
        try:
            if silent:
                if not factor.too_long_silent(config, grant, now):
                    continue
                raise NotSignedIn("silent")
            if not grants.claim(grant, now):
                continue
            factor.ask_again(config, grant, now)
            ended += _end_out_of_groups(grant, now)
        except NotSignedIn as error:
            ended += _end(grant, error.code, now)
            grants.end(grant)
            silent = silent or error.code == "silent"
        except SaysNothing as error:
            log.warning("somebody cannot be asked about: %s", error)
        except NoAnswer as error:
            log.warning("nobody can be asked about sign-ins: %s", error)
            silent = True
        if pace.over or is_ending():
            break
    return ended


def _config_of(provider: Provider) -> tuple[SignInFactor, ProviderConfig] | None:
    """None where it is asked about nobody, or nobody can say how."""
    factor = load(provider.kind) if provider.kind in FACTORS else None
    if not isinstance(factor, SignInFactor) or factor.provider_form is None:
        return None
    try:
        config = providers.config_of(provider, factor.provider_form)
    except providers.NotConfigured:
        return None
    return (factor, config) if factor.every(config) else None


def _end(grant: SignInGrant, code: str, now: float) -> int:
    return _end_all([connection for connection, _ in _connections(grant, now)], grant, code, now)


def _end_out_of_groups(grant: SignInGrant, now: float) -> int:
    """Those on servers whose groups they are not in any more."""
    ended = 0
    for connection, asked in _connections(grant, now):
        outcome = in_groups(grant.groups, asked)
        if isinstance(outcome, Denied):
            ended += _end_all([connection], grant, outcome.code, now)
    return ended


def _connections(grant: SignInGrant, now: float) -> Iterator[tuple[Connection, AskedFactor]]:
    """The open ones of its user on servers that ask for a sign-in at its provider, and what these ask."""
    live = Connection.objects.filter(user=grant.user, state=State.OPEN).select_related("server")
    for connection in live:
        if connection.server is None:
            continue
        try:
            wanted = wanted_factors(policy_of(connection.server), grant.user, now)
        except tuple(NOBODY_CAN_JUDGE):
            continue
        for each in wanted:
            if each.asked.provider and each.asked.provider.public_id == grant.provider.public_id:
                yield connection, each.asked


def _end_all(connections: list[Connection], grant: SignInGrant, code: str, now: float) -> int:
    """The decision says after how long at most it was found out."""
    for connection in connections:
        said = load(grant.provider.kind).sentence(code)
        seconds = now - grant.agreed.timestamp()
        connection.end_detail = f"{said} It last stood by it {seconds:.0f} s before."[:200]
    return end(connections, EndReason.SIGN_IN, now, due=grant.agreed.timestamp())
