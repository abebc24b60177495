"""What our nftables table lets through between linked servers, and in whose name. Pure.

Every rule names the networks of both, and there is none for "established": a link that is gone ends what it carried.
Which peer a packet is from WireGuard has checked by then, also on another machine.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from servers.hostnet.state import Interface, Link

from .sets import FAMILY, anonymous

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Side:
    """One end of a link, by one IP version: addresses of clients, and networks behind them."""

    clients: Sequence[Network]
    behind: Sequence[Network]

    @classmethod
    def of(cls, networks: Iterable[str], behind: Iterable[str], version: int) -> Side:
        ours, sites = ([ipaddress.ip_network(each) for each in every] for every in (networks, behind))
        return cls([n for n in ours if n.version == version], [n for n in sites if n.version == version])

    @property
    def all(self) -> str:
        return anonymous([*self.clients, *self.behind])


def between(interfaces: Sequence[Interface]) -> Iterator[str]:
    """From clients of a server to those of one that it is linked with, both on this host."""
    here = {interface.name for interface in interfaces}
    for interface in interfaces:
        for link in interface.links:
            if link.interface in here:
                way = f'iifname "{interface.name}" oifname "{link.interface}"'
                yield from (f"{way} {match} accept" for match in _matches(interface, link, "saddr", "daddr"))


def over_mesh(interface: Interface, own: str, far: str, near: str) -> Iterator[str]:
    """Between clients of a server here, and those of a linked one on other machines. ``own`` is the field of the
    interface here; ``far`` and ``near`` are those of the addresses there and here."""
    for link in interface.links:
        for match in _matches(interface, link, near, far):
            yield f'{own} "{interface.name}" {match} accept'


def masquerade(interface: Interface) -> Iterator[str]:
    """Whoever comes to clients of this server by a link with NAT has the address of its gateway here, from whichever
    tunnel or machine they come."""
    for link in interface.links:
        for version, _, there in _sides(interface, link) if link.masquerade else ():
            yield f'oifname "{interface.name}" {FAMILY[version]} saddr {there.all} masquerade'


def _matches(interface: Interface, link: Link, mine: str, others: str) -> Iterator[str]:
    """``mine`` is the field of addresses of this server, ``others`` that of the linked one's."""
    for version, here, there in _sides(interface, link):
        ip = FAMILY[version]
        if link.clients:
            yield f"{ip} {mine} {here.all} {ip} {others} {there.all}"
            continue
        # To and from clients' networks always: both are then not clients, or not both of them.
        if there.behind:
            yield f"{ip} {mine} {here.all} {ip} {others} {anonymous(there.behind)}"
        if here.behind:
            yield f"{ip} {mine} {anonymous(here.behind)} {ip} {others} {there.all}"


def _sides(interface: Interface, link: Link) -> Iterator[tuple[int, Side, Side]]:
    """By each IP version that both have."""
    own = [str(ipaddress.ip_interface(address).network) for address in interface.addresses]
    for version in FAMILY:
        here, there = Side.of(own, interface.behind, version), Side.of(link.networks, link.behind, version)
        if here.clients and there.clients:
            yield version, here, there
