"""What our nftables table lets through between linked servers, and in whose name. Pure.

Every rule names the networks of both, and there is none for "established": a link that is gone ends what it carried.
Which peer a packet is from WireGuard has checked by then, also on another machine. OpenVPN checks who is at the other
end, and no addresses: so each rule of a link that it carries names the link's own interface.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from servers.hostnet.state import LINK_PREFIX, Interface, Link, Route

from . import mapped_links
from .sets import ANSWERS, FAMILY, MESH, TUNNELS, anonymous

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

    def part(self, shown: Iterable[str]) -> Side:
        """What of it is among ``shown``."""
        which = {ipaddress.ip_network(each) for each in shown}
        return Side(*([n for n in every if n in which] for every in (self.clients, self.behind)))

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
        if link.openvpn is None:
            yield from _across(interface, link, f'{own} "{interface.name}"', far, near)


def _across(interface: Interface, link: Link, way: str, far: str, near: str) -> Iterator[str]:
    """Between clients here and what the link leads to elsewhere; ``way`` matches the interfaces."""
    for match in _matches(interface, link, near, far):
        yield f"{way} {match} accept"
    for version, _, _ in _sides(interface, link):
        for match in _to(link.reached, version) if far == "daddr" else _from(link.reached, version):
            yield f"{way} {match} accept"


def from_mesh_outwards(interface: Interface) -> Iterator[str]:
    """From clients of linked servers on other machines to this server's routes, which they reach by this host."""
    for link in interface.links:
        if link.openvpn is None:
            yield from _outwards(interface, link, "")


def to_real_networks(interfaces: Iterable[Interface], mesh: str) -> Iterator[str]:
    """In prerouting: what clients of linked servers elsewhere ask for by other addresses than the real ones."""
    for interface in interfaces:
        for link in interface.links:
            for version, _, there in _sides(interface, link):
                found = mapped_links.pairs(link.offered, version)
                yield from mapped_links.to_real(found, version, _from_there(link, mesh), there.all)


def in_other_names(interfaces: Iterable[Interface], mesh: str) -> Iterator[str]:
    """In postrouting: what such networks open to those clients."""
    for interface in interfaces:
        for link in interface.links:
            for version, _, there in _sides(interface, link):
                found = mapped_links.way_back(link.offered, version)
                yield from mapped_links.to_virtual(found, version, _from_there(link, mesh), there.all)


def _from_there(link: Link, mesh: str) -> str:
    """The interface by which another machine is reached, as the rules have it."""
    return f'"{link.openvpn.device}"' if link.openvpn is not None else mesh


def _outwards(interface: Interface, link: Link, way: str) -> Iterator[str]:
    for version, _, there in _sides(interface, link):
        for match in _to(link.offered, version):
            yield f"{way}{FAMILY[version]} saddr {there.all} {match} accept"


def outside_to_mesh(interface: Interface) -> Iterator[str]:
    """What comes back to them, and from routes without NAT whatever comes."""
    for link in interface.links:
        if link.openvpn is None:
            yield from _inwards(interface, link, "")


def _inwards(interface: Interface, link: Link, way: str) -> Iterator[str]:
    for version, _, there in _sides(interface, link):
        for match in _from(link.offered, version):
            yield f"{way}{FAMILY[version]} daddr {there.all} {match} accept"


def masquerade_outwards(interface: Interface, mesh: str, tunnels: str) -> Iterator[str]:
    """NAT routes, for clients of linked servers on other machines."""
    for link in interface.links:
        from_there = _from_there(link, mesh)
        for version, _, there in _sides(interface, link):
            natted = [route for route in link.offered if route.nat]
            for name in sorted({route.nat_interface for route in natted}):
                ip, out = FAMILY[version], f'oifname "{name}"' if name else f"oifname != {tunnels}"
                mine = [route for route in natted if route.nat_interface == name]
                to = [f"{ip} daddr {anonymous(found)}"] if (found := _networks(mine, version)) else []
                for match in (*to, *mapped_links.asked_for(mine, version)):
                    yield f"iifname {from_there} {out} {ip} saddr {there.all} {match} masquerade"


# Carried by OpenVPN

CARRIED = f'"{LINK_PREFIX}*"'
# Before all other directions: what comes from a link goes nowhere but where one of its own rules says.
CARRIED_DIRECTIONS = (
    f"iifname {TUNNELS} oifname {CARRIED} goto to_links",
    f"iifname {CARRIED} oifname {TUNNELS} goto from_links",
    f"iifname {MESH} oifname {CARRIED} goto to_links",
    f"iifname {CARRIED} oifname {MESH} goto from_links",
    f"iifname {CARRIED} goto links_outwards",
    f"oifname {CARRIED} goto outside_to_links",
)


def goes_no_other_way(interfaces: Sequence[Interface]) -> Iterator[str]:
    """What is for the other end never leaves by another way, in the clear: not even while the link's interface is not
    there, and a route of 0.0.0.0/0 would have it."""
    for interface in interfaces:
        for link in interface.links:
            if link.openvpn is not None:
                way = f'iifname "{interface.name}" oifname != "{link.openvpn.device}"'
                for version, _, there in _sides(interface, link):
                    every = [*there.clients, *there.behind, *_networks(link.reached, version)]
                    yield f"{way} {FAMILY[version]} daddr {anonymous(every)} drop"


# As in the mesh, each is known at the other end by its own address, or by that which the other end gives it.
CARRIED_UNTRANSLATED_IN, CARRIED_UNTRANSLATED_OUT = f"iifname {CARRIED} accept", f"oifname {CARRIED} accept"
ICMP_ERRORS = "meta l4proto { icmp, ipv6-icmp } ct state related accept"
# The other end may be another company's: this host itself has nothing for it.
REACHES_US = (f"iifname {CARRIED} {ICMP_ERRORS}", f"iifname {CARRIED} drop")


def carried(
    interfaces: Sequence[Interface], ended: Sequence[str], segment_size: str
) -> Iterator[tuple[str, list[str]]]:
    """The chains that ``CARRIED_DIRECTIONS`` lead to, each with its rules; ``ended`` are those for clients whose
    connection has ended."""
    pairs = [(each, link, link.openvpn.device) for each in interfaces for link in each.links if link.openvpn]
    to_links, from_links, outwards, inwards = list[str](), list[str](), list[str](), list[str]()
    for interface, link, device in pairs:
        # By the mesh come and go the server's clients that are on other machines: from where a packet may be WireGuard
        # has checked there.
        for own in (f'"{interface.name}"', MESH):
            to_links += _across(interface, link, f'iifname {own} oifname "{device}"', "daddr", "saddr")
            from_links += _across(interface, link, f'iifname "{device}" oifname {own}', "saddr", "daddr")
        outwards += _outwards(interface, link, f'iifname "{device}" ')
        inwards += _inwards(interface, link, f'oifname "{device}" ')
    yield "to_links", [*ended, segment_size, *to_links, ICMP_ERRORS, "drop"]
    yield "from_links", [*ended, segment_size, *from_links, ICMP_ERRORS, "drop"]
    for name, rules in (("links_outwards", outwards), ("outside_to_links", inwards)):
        yield name, [segment_size, *rules, ICMP_ERRORS, "drop"]


def carried_ports(interfaces: Iterable[Interface]) -> set[int]:
    """UDP ports at which links listen here."""
    ends = (link.openvpn for interface in interfaces for link in interface.links)
    return {end.port for end in ends if end is not None and end.listens}


def _to(routes: Sequence[Route], version: int) -> Iterator[str]:
    if found := _networks(routes, version):
        yield f"{FAMILY[version]} daddr {anonymous(found)}"
    yield from mapped_links.reaching(routes, version)


def _from(routes: Sequence[Route], version: int) -> Iterator[str]:
    """Without NAT a network may open connections to clients; with it, it only answers."""
    if plain := _networks([route for route in routes if not route.nat], version):
        yield f"{FAMILY[version]} saddr {anonymous(plain)}"
    if found := _networks(routes, version):
        yield f"{FAMILY[version]} saddr {anonymous(found)} {ANSWERS}"
    yield from mapped_links.coming(routes, version)


def _networks(routes: Iterable[Route], version: int) -> list[Network]:
    every = [ipaddress.ip_network(route.network) for route in routes if not route.netmap]
    return [network for network in every if network.version == version]


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
        if not here.clients and not here.behind:
            continue  # the other end is shown nothing of this version but routes
        if link.clients:
            yield f"{ip} {mine} {here.all} {ip} {others} {there.all}"
            continue
        # To and from clients' networks always: both are then not clients, or not both of them.
        if there.behind:
            yield f"{ip} {mine} {here.all} {ip} {others} {anonymous(there.behind)}"
        if here.behind:
            yield f"{ip} {mine} {anonymous(here.behind)} {ip} {others} {there.all}"


def _sides(interface: Interface, link: Link) -> Iterator[tuple[int, Side, Side]]:
    """By each IP version that both have: what the other end may know of here, and what is there."""
    own = [str(ipaddress.ip_interface(address).network) for address in interface.addresses]
    for version in FAMILY:
        here, there = Side.of(own, interface.behind, version), Side.of(link.networks, link.behind, version)
        if here.clients and there.clients:
            yield version, here.part(link.shown) if link.outside else here, there
