"""Which address a new connection has, and which connections it takes the place of. All in the transaction that makes
it."""

from __future__ import annotations

from core.clock import moment
from servers import addresses, networks
from servers.models import Server
from users.models import VpnUser
from wgpeers.models import Connection, EndReason
from wgpeers.protocol.errors import Refusal, SealedRefusal

from . import queries
from .accounts import Account
from .ending import mark_ended

# A client that was told of its end by its next ping is back after 13 s, one that was not after 54 s.
COMES_BACK = 120.0
CHANGED = "the account or the server was changed at the same moment; try again"


class CameBack(Exception):
    """The device was replaced by another one a moment ago and seems to come by itself; nothing was changed. The
    argument is its old connection's primary key."""


def take_place(account: Account, connection: Connection, now: float, held: frozenset[int]) -> list[Connection]:
    """Give the new connection its address, and end what it takes the place of."""
    user, server = account.user, account.server
    standing = queries.standing(user, server)
    if not standing.permitted:
        raise Refusal("in_progress", CHANGED)
    if not server.multi_device:
        _yield_to_another_device(connection, server, standing.live, now)
    replaced: list[Connection] = []
    keep = None
    others: set[int] = set()
    for before in standing.live:
        same_device = before.device_id == connection.device_id
        if not same_device and server.multi_device:
            others.add(before.host_part)
            continue
        if mark_ended(before, EndReason.REPLACED if same_device else EndReason.ELSEWHERE, now):
            replaced.append(before)
            keep = before.host_part if same_device else keep
    if server.multi_device and len(others) >= server.max_devices:
        reason = f"{server.max_devices} devices may be connected at the same time. Disconnect one of the others first."
        raise SealedRefusal("too_many_devices", reason)
    part = connection.host_part = _part(server, user, standing.host_part, keep, others, held)
    connection.address = networks.address(server.wg_network, part)
    connection.address6 = networks.address(server.network6, part) if server.ipv6 else None
    return replaced


def _yield_to_another_device(connection: Connection, server: Server, live: list[Connection], now: float) -> None:
    """Refuse a device that must not take over from the one that is connected."""
    if all(other.device_id == connection.device_id for other in live):
        return
    if server.keep_connected_device:
        raise SealedRefusal("device_connected", "You are connected with another device. Disconnect that one first.")
    before = Connection.objects.filter(
        user_id=connection.user_id,
        server=server,
        device_id=connection.device_id,
        end_reason=EndReason.ELSEWHERE,
        ended__gt=moment(now - COMES_BACK),
        opened__isnull=False,
        device_told=False,
    ).first()
    if before is not None:
        raise CameBack(before.pk)


def _part(
    server: Server, user: VpnUser, static: int | None, keep: int | None, others: set[int], held: frozenset[int]
) -> int:
    """The address that the same device had; else the user's static one, unless one of their other devices (whose
    parts are ``others``) has it; else one from the pool. ``static`` None: they have none yet."""
    if static is None:
        static = addresses.static_address(server, user, held).host_part
    # Ending the replaced connection has released a dynamic address; in this transaction nobody else has seen that.
    if keep is not None and (keep == static or addresses.retake(server, user, keep)):
        return keep
    return addresses.dynamic_address(server, user, held).host_part if static in others else static
