"""The one nftables table that is ours, ``inet wgvpn``, built whole and replaced in one transaction.

What it lets through is written out in ``ruleset``; everything else from or to a tunnel is dropped, also for an
interface of ours that no rule knows yet. So a half-applied host fails closed, and two servers on one host never
reach each other. An accept here does not overrule a drop in another table (docker's, ufw's): it only ends our own.
"""

from __future__ import annotations

import hashlib
import ipaddress
import subprocess
from collections.abc import Iterable, Iterator

from servers.hostnet.messages import OUR_INTERFACE
from servers.hostnet.state import Interface, Route

TABLE = "inet wgvpn"
TUNNELS = '"wgs*"'
NFT_TIMEOUT = 30  # seconds; thousands of routes take well under one

SET_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
FAMILY = {4: "ip", 6: "ip6"}


class FirewallError(Exception):
    """nftables refused our table, or could not be run."""


class Firewall:
    """Keeps the table as it was last applied. One thread at a time."""

    def __init__(self) -> None:
        self._text = ""
        self._digest = ""

    def guard(self, web_port: int) -> None:
        """Before the first full state: guard ``web_port``, unless a table of an earlier run still does.

        That table is left as it is: replacing it by an empty one would cut the tunnels that outlived that run.
        """
        if not _listing():
            _load(ruleset((), web_port))

    def drifted(self) -> bool:
        """Whether somebody changed or removed the table since it was applied."""
        return bool(self._digest) and _digest(_listing()) != self._digest

    def apply(self, interfaces: Iterable[Interface], web_port: int) -> None:
        """Make the table say what ``interfaces`` need; nothing is touched where it says so already."""
        text = ruleset(interfaces, web_port)
        if text == self._text and not self.drifted():
            return
        self._digest = ""
        _load(text)
        self._text, self._digest = text, _digest(_listing())

    def remove(self) -> None:
        """Remove the table, if there is one."""
        _nft(["-f", "-"], f"table {TABLE}\ndelete table {TABLE}\n")
        self._text = self._digest = ""


def ruleset(interfaces: Iterable[Interface], web_port: int) -> str:
    """The whole table as nft text. Each route set is one look-up, however many routes there are."""
    servers = sorted(interfaces, key=lambda interface: interface.name)
    for interface in servers:
        if not OUR_INTERFACE.fullmatch(interface.name):  # it is written into a program text below
            raise FirewallError("an interface name that is not ours")
    lines = [
        f"table {TABLE}",  # so that the next line has something to delete the first time
        f"delete table {TABLE}",
        f"table {TABLE} {{",
        *_indent(line for interface in servers for line in _sets(interface)),
        *_chain("input", "type filter hook input priority filter; policy accept;", _input(servers, int(web_port))),
        *_chain("forward", "type filter hook forward priority filter; policy accept;", _forward(servers)),
        *_chain("postrouting", "type nat hook postrouting priority srcnat; policy accept;", _postrouting(servers)),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _chain(name: str, hook: str, rules: Iterable[str]) -> list[str]:
    return _indent([f"chain {name} {{", *_indent([hook, *rules]), "}"])


def _indent(lines: Iterable[str]) -> list[str]:
    return ["\t" + line for line in lines]


def _gateways(interface: Interface) -> list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
    return [ipaddress.ip_interface(address) for address in interface.addresses]


def _input(servers: list[Interface], web_port: int) -> Iterator[str]:
    """What reaches the host itself: from a tunnel only its own gateway address, and there only three services."""
    # The kernel answers for any of its addresses on any link: without this rule a neighbour on the public side could
    # send packets for a gateway's address and reach gateway web without a tunnel.
    yield f'iifname != "lo" iifname != {TUNNELS} tcp dport {web_port} drop'
    # Only replies to what the host itself began. A plain "established" would also keep alive what a client had opened
    # while somebody had our table removed.
    yield f"iifname {TUNNELS} ct direction reply ct state established,related accept"
    for interface in servers:
        for gateway in _gateways(interface):
            to = f'iifname "{interface.name}" {FAMILY[gateway.version]} daddr {gateway.ip}'
            yield f"{to} {'icmp' if gateway.version == 4 else 'icmpv6'} type echo-request accept"
            yield f"{to} tcp dport {{ 53, {web_port} }} accept"
            yield f"{to} udp dport 53 accept"
        if any(gateway.version == 6 for gateway in _gateways(interface)):
            yield f'iifname "{interface.name}" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept'
    yield f"iifname {TUNNELS} drop"


def _forward(servers: list[Interface]) -> Iterator[str]:
    for interface in servers:
        name = f'"{interface.name}"'
        if interface.inter_client:
            yield f"iifname {name} oifname {name} accept"
        for version in _versions(interface):
            routes = f"{FAMILY[version]} {{}} @{interface.name}_routes{version}"
            # Never to another tunnel, not even by a route of 0.0.0.0/0.
            yield f"iifname {name} oifname != {TUNNELS} {routes.format('daddr')} accept"
            # Towards clients only replies: a routed network cannot open connections to a client in this version, with
            # masquerading or without. Bound to the route's addresses, so that a removed route ends what it carried.
            back = f"oifname {name} iifname != {TUNNELS} ct direction reply"
            yield f"{back} {routes.format('saddr')} ct state established,related accept"
            # A router on the way is not in the route, but its "too big" or "unreachable" must get back.
            yield f"{back} meta l4proto {'icmp' if version == 4 else 'icmpv6'} ct state related accept"
    yield f"iifname {TUNNELS} drop"
    yield f"oifname {TUNNELS} drop"


def _postrouting(servers: list[Interface]) -> Iterator[str]:
    """Masquerade NAT routes. Other routes keep the client's address, so their network needs a route back to us."""
    for interface in servers:
        for gateway in _gateways(interface):
            if gateway.version in _versions(interface):
                ip = FAMILY[gateway.version]
                yield (
                    f"{ip} saddr {gateway.network} oifname != {TUNNELS} "
                    f"{ip} daddr @{interface.name}_nat{gateway.version} masquerade"
                )


def _versions(interface: Interface) -> list[int]:
    """The IP versions this server carries: those of its own addresses. Routes of another version do nothing."""
    return sorted({gateway.version for gateway in _gateways(interface)})


def _sets(interface: Interface) -> Iterator[str]:
    for version in _versions(interface):
        spans = route_spans(interface.routes, version)
        yield from _set(f"{interface.name}_routes{version}", version, [(first, last) for first, last, _ in spans])
        yield from _set(f"{interface.name}_nat{version}", version, [(first, last) for first, last, nat in spans if nat])


def _set(name: str, version: int, spans: list[tuple[int, int]]) -> list[str]:
    address = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    elements = ", ".join(f"{address(first)}-{address(last)}" for first, last in spans)
    body = [f"type {SET_TYPE[version]}", "flags interval", *([f"elements = {{ {elements} }}"] if spans else [])]
    return [f"set {name} {{", *_indent(body), "}"]


def route_spans(routes: Iterable[Route], version: int) -> list[tuple[int, int, bool]]:
    """The routes of one IP version as sorted, disjoint spans ``(first, last, nat)`` of addresses as numbers.

    nft's interval sets take no overlaps. Where routes overlap, the more specific one decides about NAT, so that
    0.0.0.0/0 with NAT and 10.0.0.0/8 without mean what they say. Neighbouring spans alike are joined.
    """
    networks = [(ipaddress.ip_network(route.network), route.nat) for route in routes]
    ordered = sorted(
        ((int(n.network_address), -int(n.broadcast_address), nat) for n, nat in networks if n.version == version),
    )
    spans: list[tuple[int, int, bool]] = []
    open_routes: list[tuple[int, bool]] = []  # the networks around the present position, outermost first
    position = 0

    def emit(last: int, nat: bool) -> None:
        if last < position:
            return
        if spans and spans[-1][1] == position - 1 and spans[-1][2] == nat:
            spans[-1] = (spans[-1][0], last, nat)
        else:
            spans.append((position, last, nat))

    for first, negative_last, nat in [*ordered, (1 << 129, 0, False)]:
        while open_routes and open_routes[-1][0] < first:
            last, its_nat = open_routes.pop()
            emit(last, its_nat)
            position = max(position, last + 1)
        if open_routes and first > position:
            emit(first - 1, open_routes[-1][1])
        position = max(position, first)
        open_routes.append((-negative_last, nat))
    return spans


def _load(text: str) -> None:
    _nft(["-f", "-"], text)


def _listing() -> str:
    """The table as nftables has it, without counters; empty where there is none."""
    tables = _nft(["list", "tables"])
    return _nft(["--stateless", "list", "table", *TABLE.split()]) if f"table {TABLE}" in tables.splitlines() else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest() if text else "no table"


def _nft(arguments: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(
            ["nft", *arguments], input=text, capture_output=True, text=True, timeout=NFT_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FirewallError(f"nft: {type(error).__name__}") from error
    if done.returncode != 0:
        raise FirewallError(f"nft: {done.stderr.strip()[:300]}")
    return done.stdout
