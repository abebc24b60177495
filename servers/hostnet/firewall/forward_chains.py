"""What our nftables table lets pass through the host: from tunnels, to tunnels, and within a tunnel. Pure.

A packet is looked at by few rules, however many servers there are: first its direction decides, then one look-up finds
the rules of its server and IP version. What carries the most traffic comes first in each chain. Every chain here ends
with a drop, or returns to one that does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .ended import from_ended, to_ended
from .route_policy import Tunnel
from .sets import ANSWERS, FAMILY, NFPROTO, TUNNELS, forwarded

# A packet between two tunnels is in neither of the other chains: no route of a server leads to another's clients, not
# even one of 0.0.0.0/0. A link does; see ``links``.
DIRECTIONS = (
    f"iifname {TUNNELS} oifname {TUNNELS} goto between",
    f"iifname {TUNNELS} goto outwards",
    f"oifname {TUNNELS} goto inwards",
)

# "rt mtu" is the lower of both ways, and the size is only ever lowered, so one rule for each direction will do.
# Without them TCP through networks that swallow ICMP errors stalls at the first full segment.
SEGMENT_SIZE = "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu"

# A router on the way is not in the route, but its "too big" or "unreachable" must get there, either way.
ICMP_ERRORS = "meta l4proto { icmp, ipv6-icmp } ct state related accept"

Chain = tuple[str, list[str]]


def forward_chains(tunnels: Sequence[Tunnel], versions: Sequence[int], linked: Iterable[str] = ()) -> Iterator[Chain]:
    """The chains that ``DIRECTIONS`` lead to and theirs, each with its rules; ``linked`` are those between tunnels of
    linked servers."""
    for tunnel in tunnels:
        for version in tunnel.policy:
            yield f"{tunnel.name}_out{version}", list(_outwards(tunnel, version))
            yield f"{tunnel.name}_in{version}", list(_inwards(tunnel, version))
    clients = [rule for tunnel in tunnels for rule in _between_clients(tunnel)]
    off, back = from_ended(versions, "drop"), to_ended(versions, "drop")
    yield "between", [*off, *back, SEGMENT_SIZE, *clients, *linked, "drop"]
    for name, own, side, direction in (("outwards", "out", "s", "reply"), ("inwards", "in", "d", "original")):
        ports = [forwarded(version, side, direction) for version in versions]
        servers = list(_of_server(tunnels, "iifname" if own == "out" else "oifname", own))
        yield name, [*(off if own == "out" else back), SEGMENT_SIZE, *servers, ICMP_ERRORS, *ports, "drop"]


def _of_server(tunnels: Iterable[Tunnel], interface: str, own: str) -> Iterator[str]:
    leads = [
        f'"{tunnel.name}" . {NFPROTO[version]} : jump {tunnel.name}_{own}{version}'
        for tunnel in tunnels
        for version in tunnel.policy
    ]
    if leads:
        yield f"{interface} . meta nfproto vmap {{ {', '.join(leads)} }}"


def _between_clients(tunnel: Tunnel) -> Iterator[str]:
    same = f'iifname "{tunnel.name}" oifname "{tunnel.name}"'
    if tunnel.inter_client:
        yield f"{same} accept"
        return
    for gateway in tunnel.gateways:
        # To and from clients' networks always: both are then not clients, or not both of them.
        for side in ("saddr", "daddr"):
            yield f"{same} {FAMILY[gateway.version]} {side} != {gateway.network} accept"


def _outwards(tunnel: Tunnel, version: int) -> Iterator[str]:
    """From clients to what is a route of theirs."""
    ip, name = FAMILY[version], tunnel.name
    yield f"{ip} daddr @{name}_routes{version} accept"
    if tunnel.policy[version].netmap:
        # Networks that clients know by other addresses. Destinations are translated before we look at them here, and
        # sources after: what passes here has the real addresses, and only conntrack knows what the client asked for.
        yield f"ct original {ip} daddr @{name}_virtual{version} {ip} daddr @{name}_real{version} accept"
        yield f"{ip} daddr @{name}_open{version} {ANSWERS} accept"


def _inwards(tunnel: Tunnel, version: int) -> Iterator[str]:
    """Without NAT a network may open connections to clients; with it, it only answers. Bound to the route's addresses,
    so that a removed route ends what it carried."""
    ip, name = FAMILY[version], tunnel.name
    yield f"{ip} saddr @{name}_plain{version} accept"
    yield f"{ip} saddr @{name}_routes{version} {ANSWERS} accept"
    if tunnel.policy[version].netmap:
        asked = f"ct original {ip} daddr @{name}_virtual{version}"
        yield f"{asked} {ip} saddr @{name}_real{version} {ANSWERS} accept"
        # Without NAT the real network opens connections too, in the name of the other.
        yield f"{ip} saddr @{name}_open{version} accept"
