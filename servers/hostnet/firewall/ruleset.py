"""The text of our nftables table: what it lets through, and in whose name. Pure.

Whatever is not let through here is dropped where it comes from or goes to a tunnel. Which peer a packet of a tunnel
is from, and that its source is the peer's own or in a network that is routed to it, WireGuard has checked by then;
hence clients' networks need no rules of their own per network: in a tunnel, an address outside of the tunnel network
is in one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from servers.hostnet.state import Interface, Mesh

from . import links
from . import mesh as between_machines
from .ended import from_ended, gateway_web_only, to_ended
from .forward_chains import DIRECTIONS, SEGMENT_SIZE, forward_chains
from .port_forwards import Element, written
from .route_policy import RoutePolicy, Tunnel
from .sets import ANSWERS, FAMILY, MESH, TUNNELS, common_sets, indented, nat_set, sets_of

TABLE = "inet wgvpn"
ICMP = {4: "icmp", 6: "icmpv6"}
LOOPBACK = {4: "127.0.0.0/8", 6: "::1"}


def table(interfaces: Iterable[Interface], web_port: int, elements: Iterable[Element], mesh: Mesh | None = None) -> str:
    """The whole table; ``elements`` are those that follow the peers. Each set is one look-up, however much is in it."""
    interfaces = tuple(interfaces)
    tunnels = sorted((Tunnel.of(interface) for interface in interfaces), key=lambda tunnel: tunnel.name)
    versions = sorted({version for tunnel in tunnels for version in tunnel.policy})
    filled: dict[str, list[str]] = {}
    for name, element in sorted(elements):
        filled.setdefault(name, []).append(element)
    linked = [
        rule
        for interface in interfaces
        for rule in (
            *links.masquerade(interface),
            *links.masquerade_outwards(interface, MESH, TUNNELS),
        )
    ]
    udp = {tunnel.port for tunnel in tunnels} | between_machines.ports(mesh) | links.carried_ports(interfaces)
    ended = [*from_ended(versions, "drop"), *to_ended(versions, "drop")]
    carried = (*links.goes_no_other_way(interfaces), *links.CARRIED_DIRECTIONS)
    directions = (*carried, *between_machines.DIRECTIONS, *DIRECTIONS)
    lines = [
        f"table {TABLE}",  # so that the next line has something to delete the first time
        f"delete table {TABLE}",
        f"table {TABLE} {{",
        # Both always: a peer may still have an address of a version that its server has no more.
        *indented(line for version in FAMILY for line in common_sets(version, tunnels, filled)),
        *indented(line for tunnel in tunnels for version in tunnel.policy for line in sets_of(tunnel, version)),
        *_chain(
            "prerouting",
            "type nat hook prerouting priority dstnat",
            [
                *links.to_real_networks(interfaces, MESH),
                *_prerouting(tunnels, int(web_port), udp, versions),
            ],
        ),
        # Where chains have names of priorities, "dstnat" is known for prerouting only.
        *_chain("output", "type nat hook output priority -100", _output(int(web_port), udp, versions)),
        *_chain("ended", "", gateway_web_only(tunnels, int(web_port))),
        *_chain("services", "", _services(tunnels, int(web_port), versions)),
        *_chain("mesh", "", between_machines.reaches_us(mesh, ANSWERS)),
        *_chain("input", "type filter hook input priority filter", _input(int(web_port), versions, mesh)),
        *_chain("forward", "type filter hook forward priority filter", directions),
        *(line for name, rules in links.carried(interfaces, ended, SEGMENT_SIZE) for line in _chain(name, "", rules)),
        *(
            line
            for name, rules in between_machines.chains(tunnels, interfaces, versions, SEGMENT_SIZE)
            for line in _chain(name, "", rules)
        ),
        *(
            line
            for name, rules in forward_chains(tunnels, versions, links.between(interfaces))
            for line in _chain(name, "", rules)
        ),
        *_chain(
            "postrouting",
            "type nat hook postrouting priority srcnat",
            [*links.in_other_names(interfaces, MESH), *_postrouting(tunnels, mesh, linked)],
        ),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _chain(name: str, hook: str, rules: Iterable[str]) -> list[str]:
    hooked = [f"{hook}; policy accept;"] if hook else []
    return indented([f"chain {name} {{", *indented([*hooked, *rules]), "}"])


# Translation of destinations


def _prerouting(tunnels: Sequence[Tunnel], web_port: int, udp: Iterable[int], versions: Iterable[int]) -> Iterator[str]:
    yield between_machines.UNTRANSLATED_IN
    yield links.CARRIED_UNTRANSLATED_IN
    for tunnel in tunnels:
        for version, policy in tunnel.policy.items():
            if policy.netmap:
                ip = FAMILY[version]
                yield f'iifname "{tunnel.name}" dnat {ip} prefix to {ip} daddr map @{tunnel.name}_netmap{version}'
    yield from _ours_first(web_port, udp)
    # Not from tunnels: by its host's public address no client gets at another's ports, least of another server.
    yield from _to_peers(f"iifname != {TUNNELS} ", versions)


def _output(web_port: int, udp: Iterable[int], versions: Iterable[int]) -> Iterator[str]:
    """The host itself reaches forwarded ports at its own addresses too, but what its programs say to each other over
    the loopback (to Redis, to the database) is never sent to a client."""
    yield from _ours_first(web_port, udp)
    for version in versions:
        yield from _to_peers(f"{FAMILY[version]} daddr != {LOOPBACK[version]} ", [version])


def _ours_first(web_port: int, udp: Iterable[int]) -> Iterator[str]:
    """No forward takes the ports by which clients and other machines reach this host, whatever we are told."""
    yield f"tcp dport {web_port} return"
    if udp:
        yield f"udp dport {{ {', '.join(str(port) for port in sorted(udp))} }} return"


def _to_peers(match: str, versions: Iterable[int]) -> Iterator[str]:
    for version in versions:
        ip = FAMILY[version]
        here = f"{match}{ip} daddr != @gateways{version} fib daddr type local"
        yield f"{here} dnat {ip} to meta l4proto . th dport map @forwards{version}"


# What reaches the host itself


def _input(web_port: int, versions: Iterable[int], mesh: Mesh | None) -> Iterator[str]:
    """What reaches the host itself by other ways than a tunnel: everything, but what is there for tunnels alone.

    The kernel answers for any of its addresses on any link: without these rules a neighbour on the public side could
    send packets for a gateway's address and reach gateway web, or the names of clients, without a tunnel.
    """
    yield f"iifname {TUNNELS} goto services"
    yield between_machines.FROM_MESH
    yield from links.REACHES_US
    yield 'iifname "lo" accept'
    yield from between_machines.by_no_other_way(mesh)
    yield f"tcp dport {web_port} drop"
    for version in versions:
        yield f"{FAMILY[version]} daddr @gateways{version} meta l4proto {{ tcp, udp }} th dport 53 drop"


def _services(tunnels: Sequence[Tunnel], web_port: int, versions: Iterable[int]) -> Iterator[str]:
    """What reaches the host itself from a tunnel: only its own gateway address, and there only three services."""
    yield from from_ended(versions, "goto ended")
    # Only replies to what the host itself began. A plain "established" would also keep alive what a client had opened
    # while somebody had our table removed.
    yield f"{ANSWERS} accept"
    for tunnel in tunnels:
        for gateway in tunnel.gateways:
            to = f'iifname "{tunnel.name}" {FAMILY[gateway.version]} daddr {written(gateway.ip)}'
            yield f"{to} {ICMP[gateway.version]} type echo-request accept"
            yield f"{to} tcp dport {{ 53, {web_port} }} accept"
            yield f"{to} udp dport 53 accept"
        if 6 in tunnel.policy:
            yield f'iifname "{tunnel.name}" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept'
    yield "drop"


# In whose name


def _postrouting(tunnels: Sequence[Tunnel], mesh: Mesh | None, linked: Iterable[str]) -> Iterator[str]:
    yield from between_machines.in_our_name(mesh)
    yield between_machines.UNTRANSLATED_OUT
    yield links.CARRIED_UNTRANSLATED_OUT
    yield from linked
    for tunnel in tunnels:
        for version, policy in tunnel.policy.items():
            if policy.unmap:
                ip, out = FAMILY[version], f'iifname != {TUNNELS} oifname "{tunnel.name}"'
                yield f"{out} snat {ip} prefix to {ip} saddr map @{tunnel.name}_unmap{version}"
        yield from _in_gateways_name(tunnel)
        for version, policy in tunnel.policy.items():
            yield from _masquerade(tunnel.name, version, policy)


def _in_gateways_name(tunnel: Tunnel) -> Iterator[str]:
    """Forwarded connections reach the client from their real source where the server's routes lead back there: the
    client then takes packets from it and answers through the tunnel. A client that was given the tunnel network and a
    few routes would drop them (WireGuard takes from a peer only what it would send to it), so it sees the gateway
    instead: the ports work in either case, and who wants the real addresses sends everything through the tunnel.

    The host's own addresses are never such a source: clients keep them out of the tunnel, which ends there.
    """
    yield from between_machines.in_gateways_name(tunnel)
    forwarded = f'oifname "{tunnel.name}" ct status dnat'
    yield f"{forwarded} fib saddr type local masquerade"
    for version in tunnel.policy:
        strange = f"iifname != {TUNNELS} {FAMILY[version]} saddr != @{tunnel.name}_given{version}"
        yield f"{forwarded} {strange} masquerade"


def _masquerade(name: str, version: int, policy: RoutePolicy) -> Iterator[str]:
    """NAT routes, for clients and what is behind them alike. What the client asked for decides, netmap or not. Other
    routes keep the client's address, so their network needs a route back to us."""
    for index, interface in policy.nat_interfaces():
        out = f'oifname "{interface}"' if interface else f"oifname != {TUNNELS}"
        asked = f"ct original {FAMILY[version]} daddr @{name}_{nat_set(version, index)}"
        yield f'iifname "{name}" {out} {asked} masquerade'
