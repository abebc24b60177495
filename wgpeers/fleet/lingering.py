"""Ended connections whose clients are still to hear of it: for how long their hosts keep a peer that can only ping.

A client learns of its end by the answer to its next ping. Were its peer removed at once, no answer would reach it, and
it would show itself as connected for most of a minute, with all that it sends into its tunnel lost.
"""

from __future__ import annotations

from collections.abc import Collection

from core.clock import moment
from servers import networks
from servers.hostnet.state import Peer
from servers.models import Host, Server
from wgpeers.models import Connection, EndReason, State

from .peers import own_addresses

# Not who fell silent, whom no host confirmed, or whose own device has a new connection: nobody is there to hear it. A
# server that is stopped has no interface any more.
REASONS = frozenset(
    {
        EndReason.ADMIN,
        EndReason.BY_USER,
        EndReason.DEVICE_REVOKED,
        EndReason.SIGN_IN,
        EndReason.SESSION,
        EndReason.NOT_PERMITTED,
        EndReason.MOVED,
        EndReason.ELSEWHERE,
        EndReason.DRAINED,
    }
)
# Seconds beyond the interval. Clients send their next ping up to two seconds late.
LATE = 3


def seconds_of(connection: Connection, server: Server) -> int:
    """How long after its end the connection lingers; 0 where it does not. One that was never open has no tunnel."""
    told = connection.end_reason in REASONS and connection.opened is not None and _is_in(connection, server)
    return server.ping_interval + LATE if told else 0


def lingering_on(host: Host, servers: Collection[Server], now: float) -> dict[int, list[Peer]]:
    """The peers that linger on ``host`` at ``now``, by server (primary key)."""
    found: dict[int, list[Peer]] = {}
    if not servers:
        return found
    by_pk = {server.pk: server for server in servers}
    longest = max(server.ping_interval for server in servers) + LATE
    rows = Connection.objects.filter(host=host, state=State.ENDED, ended__gt=moment(now - longest))
    for row in rows.filter(server__in=by_pk, end_reason__in=REASONS).order_by("pk"):
        whole = seconds_of(row, by_pk[row.server_key])
        # Not more than all of it, should the clock have been set back since.
        left = min(whole, row.ended.timestamp() + whole - now) if row.ended else 0
        if left > 0:
            peer = Peer(row.public_id, row.version, row.wg_public_key, own_addresses(row))
            found.setdefault(row.server_key, []).append(peer.lingering(round(left, 3)))
    return found


def _is_in(connection: Connection, server: Server) -> bool:
    """Whether its address is one of the server's network as that is now. If not, the gateway that it pings is gone."""
    try:
        return networks.address(server.wg_network, connection.host_part) == connection.address
    except IndexError:
        return False
