"""Addresses of connections that have ended and linger, as elements of the firewall's sets. Pure.

``ended4`` and ``ended6`` hold them by interface. What is from one of them reaches gateway web alone, what is for one
comes from there alone; and that is asked before anything else, so that nothing which it had begun goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from servers.hostnet.state import Peer

from .port_forwards import Element, version_and_address, written
from .route_policy import Tunnel
from .sets import FAMILY


def ended_elements(interface: str, peers: Iterable[Peer]) -> set[Element]:
    """Raise ``ValueError`` where an address of theirs is none."""
    found: set[Element] = set()
    for peer in peers:
        if peer.lingers:
            for allowed in peer.allowed_ips:
                version, address = version_and_address(allowed.partition("/")[0])
                found.add((f"ended{version}", f'"{interface}" . {address}'))
    return found


def from_ended(versions: Iterable[int], verdict: str) -> list[str]:
    return [f"iifname . {FAMILY[version]} saddr @ended{version} {verdict}" for version in versions]


def to_ended(versions: Iterable[int], verdict: str) -> list[str]:
    return [f"oifname . {FAMILY[version]} daddr @ended{version} {verdict}" for version in versions]


def gateway_web_only(tunnels: Sequence[Tunnel], web_port: int) -> Iterator[str]:
    """What an ended one reaches of this host."""
    for tunnel in tunnels:
        for gateway in tunnel.gateways:
            to = f'iifname "{tunnel.name}" {FAMILY[gateway.version]} daddr {written(gateway.ip)}'
            yield f"{to} tcp dport {web_port} accept"
    yield "drop"
