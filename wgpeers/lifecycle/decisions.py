"""Writing down what was decided. A decision never holds a secret: codes, names and addresses only."""

from __future__ import annotations

from core.clock import moment
from core.rate_limits import count_view
from servers.models import Server
from users.authorize import Layers
from users.models import VpnUser
from wgpeers.models import Connection, Decision
from wgpeers.protocol.errors import Refusal

from . import queries

ENVELOPE_OK: Layers = (("envelope", "ok"),)


def record(
    user: VpnUser,
    server: Server,
    now: float,
    *,
    layers: Layers,
    allowed: bool = False,
    code: str = "",
    address: str | None = None,
    device_name: str = "",
) -> None:
    """Store one decision; ``code`` defaults to what the last layer said."""
    decision = Decision(
        time=moment(now),
        user_id=user.pk,
        user_name=full_name(user),
        server_id=server.pk,
        server_name=server.name,
        address=address,
        device_name=device_name,
        allowed=allowed,
        layer=layers[-1][0],
        code=code or layers[-1][1],
        layers=[list(layer) for layer in layers],
    )
    queries.insert_decision(decision)


ENVELOPE_CODES = {"malformed", "unauthorized", "clock", "replayed", "too_large"}
# Refused envelopes written down for one address and minute. Who recorded a request can send it again without holding
# any key, and must not be able to fill the database with it.
ENVELOPES_PER_MINUTE = 30


def record_refusal(user: VpnUser, server: Server, now: float, refusal: Refusal, address: str | None) -> None:
    """Store that a request of a known account got no answer but an error."""
    envelope = refusal.code in ENVELOPE_CODES
    if envelope and not count_view("refused", address or "", ENVELOPES_PER_MINUTE):
        return
    layers = refusal.layers or (("envelope" if envelope else "connect", refusal.code),)
    record(user, server, now, layers=layers, code=refusal.code, address=address)


def record_end(connection: Connection, layer: str, now: float) -> None:
    """Store that a connection was ended, by which layer, for the reason it carries."""
    Decision.objects.create(
        time=moment(now),
        user_id=connection.user_id,
        user_name=connection.user_name,
        server_id=connection.server_id,
        server_name=connection.server.name,
        address=connection.client_address,
        device_name=connection.device_name,
        layer=layer,
        code=connection.end_reason,
        layers=[[layer, connection.end_reason]],
    )


def full_name(user: VpnUser) -> str:
    return f"{user.name} ({user.organization.name})"
