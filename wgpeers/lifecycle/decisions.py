"""Writing down what was decided. A decision never holds a secret: codes, names and addresses only."""

from __future__ import annotations

from typing import Any

from core.clock import moment
from core.rate_limits import count_of, count_view
from users.authorize import Layers
from users.factors.base import Attempt
from users.models import VpnUser
from wgpeers.models import Connection, Decision
from wgpeers.protocol.errors import Refusal

from . import queries
from .accounts import Account

ENVELOPE_OK: Layers = (("envelope", "ok"),)
# Seconds in which refusals that repeat are one row.
REPEATS_WITHIN = 3600
# Of one user, written as rows of their own; beyond them they are counted with the last one of their kind.
REFUSALS_PER_HOUR = 60


def record(
    account: Account,
    attempt: Attempt,
    layers: Layers,
    now: float,
    *,
    allowed: bool = False,
    code: str = "",
    detail: str = "",
) -> None:
    """Store what was decided of an attempt; ``code`` defaults to what the last layer said."""
    device = attempt.device_name
    _store(account, layers, now, code, attempt.address, device_name=device, allowed=allowed, detail=detail)


def _store(account: Account, layers: Layers, now: float, code: str, address: str | None, **fields: Any) -> None:
    decision = Decision(
        time=moment(now),
        user_id=account.user.pk,
        user_name=full_name(account.user),
        server_id=account.server.pk,
        server_name=account.server.name,
        address=address or None,
        layer=layers[-1][0],
        code=code or layers[-1][1],
        layers=[list(layer) for layer in layers],
        **fields,
    )
    if decision.allowed or not _repeats(decision, now):
        queries.insert_decision(decision)


def _repeats(decision: Decision, now: float) -> bool:
    """Whether it is counted with a refusal that is there already. A client that is refused tries again every 7 s, for
    ever; and who offers another device name each time, or comes from other addresses, fills no more than the
    budget."""
    since = moment(now - REPEATS_WITHIN)
    if queries.count_again(decision, since, same_client=True):
        return True
    if count_of("decisions", str(decision.user_id), REFUSALS_PER_HOUR, REPEATS_WITHIN):
        return False
    return queries.count_again(decision, since, same_client=False)


ENVELOPE_CODES = {"malformed", "unauthorized", "clock", "replayed", "too_large"}
# Refused envelopes written down for one address and minute. Who recorded a request can send it again without holding
# any key, and must not be able to fill the database with it.
ENVELOPES_PER_MINUTE = 30


# What is said of these beyond the code tells administrators more than the code's sentence does.
DETAILED = {"malformed", "clock", "too_large", "invalid_key"}


def record_refusal(
    account: Account, attempt: Attempt | None, now: float, refusal: Refusal, address: str | None
) -> None:
    """Store that a request of a known account got no answer but an error. ``attempt`` None: its box was not opened."""
    envelope = refusal.code in ENVELOPE_CODES
    if envelope and not count_view("refused", address or "", ENVELOPES_PER_MINUTE):
        return
    layers = (("envelope" if envelope else "connect", refusal.code),)
    device = attempt.device_name if attempt else ""
    detail = refusal.detail if refusal.code in DETAILED else ""
    _store(account, layers, now, refusal.code, address, device_name=device, detail=detail)


def record_own(
    user: VpnUser, code: str, now: float, address: str | None, *, allowed: bool = True, detail: str = ""
) -> None:
    """Store what somebody did on the user's own page, or could not. How much there is of it is bounded by what that
    page takes of one address, and by the attempt budgets."""
    decision = Decision(
        time=moment(now),
        user_id=user.pk,
        user_name=full_name(user),
        address=address or None,
        allowed=allowed,
        layer="own_page",
        code=code,
        layers=[["own_page", code]],
        detail=detail[:200],
    )
    queries.insert_decision(decision)


def record_end(connection: Connection, layer: str, now: float, detail: str = "") -> None:
    """Store that a connection was ended, by which layer, for the reason it carries."""
    decision = Decision(
        time=moment(now),
        user_id=connection.user_id,
        user_name=connection.user_name,
        server_id=connection.server_id,
        server_name=connection.server_name,
        address=connection.client_address,
        device_name=connection.device_name,
        layer=layer,
        code=connection.end_reason,
        layers=[[layer, connection.end_reason]],
        detail=detail,
    )
    queries.insert_decision(decision)


def full_name(user: VpnUser) -> str:
    return f"{user.name} ({user.organization.name})"
