"""The packets that a server needs other firewalls to let pass: a few for each, which stand for all of their kind."""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from servers.hostnet.state import PREFIX, Interface
from servers.hostnet.state.routing_table import TableRoute

from .match import Address, Packet

Statement = Mapping[str, Any]

# Somebody out there. Nothing is ever sent to these addresses; they are none that firewalls treat specially.
SOMEBODY: dict[int, Address] = {4: ipaddress.ip_address("44.127.0.1"), 6: ipaddress.ip_address("2a00:0:0:1::1")}
# Ports that no rule is likely to name: a firewall that lets only some services pass drops the others.
SERVICE, EPHEMERAL = 27183, 40961
MOST_ROUTES = 16  # of one server; a few stand for a thousand


class Kind(enum.Enum):
    OUT = "packets from clients"
    IN = "packets to clients"
    PORT = "WireGuard packets"
    GATEWAY = "what clients ask of the gateway"
    MACHINES = "what other machines ask of this one"
    THROUGH = "what other machines send or get by way of this one"


@dataclass(frozen=True, slots=True)
class Case:
    """A packet of a server's ``interface``, or of the mesh's, whose WireGuard has ``port``; ``rule`` are the nft
    statements (JSON) that match all packets of its kind."""

    kind: Kind
    interface: str
    port: int
    packet: Packet
    rule: tuple[Statement, ...]


def match(left: Statement, right: object) -> Statement:
    return {"match": {"op": "==", "left": left, "right": right}}


FROM_TUNNELS = match({"meta": {"key": "iifname"}}, f"{PREFIX}*")
TO_TUNNELS = match({"meta": {"key": "oifname"}}, f"{PREFIX}*")


def to_port(protocol: str, port: int) -> Statement:
    return match({"payload": {"protocol": protocol, "field": "dport"}}, port)


# Where packets leave this host


class Exits:
    """The interface that leads to an address, by the kernel's main tables."""

    def __init__(self, routes: Iterable[TableRoute]) -> None:
        ways = (route for route in routes if route.interface not in {"", "lo"})
        self._routes = sorted(ways, key=lambda route: (-route.network.prefixlen, route.metric))

    def leading_to(self, address: Address) -> str:
        """Empty if there is no way."""
        return next((route.interface for route in self._routes if address in route.network), "")


# Packets


def cases(interfaces: Sequence[Interface], web_port: int, exits: Exits) -> list[Case]:
    return [case for interface in interfaces for case in (*_forwarded(interface, exits), *_input(interface, exits))] + [
        case for interface in interfaces for case in _gateway(interface, web_port)
    ]


def _forwarded(interface: Interface, exits: Exits) -> Iterator[Case]:
    name = interface.name
    for gateway in map(ipaddress.ip_interface, interface.addresses):
        client = _client(gateway)
        for number, (target, nat) in enumerate(_targets(interface, gateway.version)):
            exit_name = exits.leading_to(target)
            if not exit_name or exit_name.startswith(PREFIX):
                continue
            for protocol in ("tcp", "udp")[: 1 if number else 2]:
                there = Packet("forward", name, exit_name, client, target, protocol, SERVICE, EPHEMERAL)
                yield _case(Kind.OUT, interface, there, FROM_TUNNELS)
                back = Packet("forward", exit_name, name, target, client, protocol, EPHEMERAL, SERVICE, reply=True)
                yield _case(Kind.IN, interface, back, TO_TUNNELS)
                if not nat:  # that network may open connections to clients
                    new = Packet("forward", exit_name, name, target, client, protocol, SERVICE, EPHEMERAL)
                    yield _case(Kind.IN, interface, new, TO_TUNNELS)
        yield from _between_and_into(interface, gateway.version, client, exits)


def _between_and_into(interface: Interface, version: int, client: Address, exits: Exits) -> Iterator[Case]:
    """Clients, and networks behind them, among each other; and port forwards."""
    name = interface.name
    if interface.inter_client or any(peer.networks for peer in interface.peers):
        between = Packet("forward", name, name, client, client + 1, "tcp", SERVICE, EPHEMERAL)
        yield _case(Kind.OUT, interface, between, FROM_TUNNELS)
    outside = exits.leading_to(SOMEBODY[version])
    if outside and any(peer.forwards for peer in interface.peers):
        into = Packet("forward", outside, name, SOMEBODY[version], client, "tcp", SERVICE, EPHEMERAL, dnat=True)
        yield _case(Kind.IN, interface, into, TO_TUNNELS)


def _targets(interface: Interface, version: int) -> Iterator[tuple[Address, bool]]:
    """An address in each of the networks that clients reach, as the forward hook sees it, and whether by NAT."""
    networks = [(ipaddress.ip_network(route.netmap or route.network), route.nat) for route in interface.routes]
    if not interface.restrict:
        networks.append((ipaddress.ip_network("0.0.0.0/0" if version == 4 else "::/0"), True))
    for network, nat in [(network, nat) for network, nat in networks if network.version == version][:MOST_ROUTES]:
        if network.prefixlen == 0:
            yield SOMEBODY[version], nat
        else:
            yield network.network_address + (1 if network.num_addresses > 1 else 0), nat


def _input(interface: Interface, exits: Exits) -> Iterator[Case]:
    for somebody in SOMEBODY.values():
        outside = exits.leading_to(somebody)
        if outside:
            packet = Packet("input", outside, "", somebody, None, "udp", interface.port, EPHEMERAL)
            yield _case(Kind.PORT, interface, packet, to_port("udp", interface.port))


def _gateway(interface: Interface, web_port: int) -> Iterator[Case]:
    for gateway in map(ipaddress.ip_interface, interface.addresses):
        client, name = _client(gateway), interface.name
        services = [("tcp", web_port)] + ([("udp", 53), ("tcp", 53)] if interface.dns is not None else [])
        for protocol, port in services:
            packet = Packet("input", name, "", client, gateway.ip, protocol, port, EPHEMERAL)
            yield _case(Kind.GATEWAY, interface, packet, FROM_TUNNELS, to_port(protocol, port))
        ping = Packet("input", name, "", client, gateway.ip, "icmp")
        by_protocol = match({"meta": {"key": "l4proto"}}, "icmp" if gateway.version == 4 else "ipv6-icmp")
        yield _case(Kind.GATEWAY, interface, ping, FROM_TUNNELS, by_protocol)


def _client(gateway: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> Address:
    """An address in the tunnel network that is not the gateway's; another follows it."""
    return gateway.ip + 1


def _case(kind: Kind, interface: Interface, packet: Packet, *rule: Statement) -> Case:
    return case(kind, interface.name, interface.port, packet, *rule)


def case(kind: Kind, interface: str, port: int, packet: Packet, *rule: Statement) -> Case:
    return Case(kind, interface, port, packet, rule)
