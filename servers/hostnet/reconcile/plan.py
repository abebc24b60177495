"""What must be done to turn what a host has into what it should have. Pure: no system call, no clock.

Peers, addresses and routes that are right already appear in no step, so nothing that did not change is ever touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace

from servers.hostnet.marks import GROUP, MARK
from servers.hostnet.observed import Observed, ObservedLink
from servers.hostnet.state import Interface
from servers.hostnet.wireguard.base import Device, PeerChange

from .collisions import Collision, collisions
from .route_conflicts import Conflicts, conflicts, networks_of

OVERHEAD = 80  # bytes that WireGuard adds to a packet, at most: over IPv6
SMALLEST_MTU = 1280  # IPv6 needs it


@dataclass(frozen=True, slots=True)
class DeleteInterface:
    interface: str


@dataclass(frozen=True, slots=True)
class CreateInterface:
    interface: str


@dataclass(frozen=True, slots=True)
class SetDevice:
    """Set the private key of ``server`` (empty: leave it), the port (0: any, to free the present one) and the mark of
    its packets."""

    interface: str
    server: str
    port: int


@dataclass(frozen=True, slots=True)
class AddAddress:
    interface: str
    address: str


@dataclass(frozen=True, slots=True)
class SetLink:
    """Bring the link up with this MTU, in our group."""

    interface: str
    mtu: int


@dataclass(frozen=True, slots=True)
class SetPeers:
    """All changes of one interface's peers, additions first."""

    interface: str
    changes: tuple[PeerChange, ...]


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    interface: str
    address: str


@dataclass(frozen=True, slots=True)
class AddRoute:
    interface: str
    network: str


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    interface: str
    network: str


Step = (
    DeleteInterface
    | CreateInterface
    | SetDevice
    | AddAddress
    | SetLink
    | SetPeers
    | RemoveAddress
    | AddRoute
    | RemoveRoute
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done on one host: made once for each apply, and whoever needs it takes this one.

    ``steps`` are in their order, from ``observed`` to what is desired. ``refused`` are, by interface and network, the
    networks that are not routed, and why in words. ``collisions`` are, by interface, tunnel networks that the host has
    itself.
    """

    steps: tuple[Step, ...]
    refused: Conflicts
    observed: Observed
    collisions: Mapping[str, Collision] = field(default_factory=dict)

    def without(self, interfaces: Set[str]) -> Plan:
        """The plan without the steps on ``interfaces``."""
        return replace(self, steps=tuple(step for step in self.steps if step.interface not in interfaces))


def plan(desired: Iterable[Interface], keys: Mapping[str, str], observed: Observed) -> Plan:
    """How to get from ``observed`` to ``desired``; ``keys`` are the servers' WireGuard public keys by server id."""
    interfaces = sorted(desired, key=lambda interface: interface.name)
    names = {interface.name for interface in interfaces}
    # An interface that nobody wants carries nothing that anybody wants, and may sit on a port or address that is
    # needed now: it goes first. Within an interface it is the other way round, add before delete.
    steps: list[Step] = [
        DeleteInterface(name) for name in sorted((observed.devices.keys() | observed.links.keys()) - names)
    ]
    steps += _free_ports(interfaces, observed)
    refused = conflicts(interfaces, observed.host_routes)
    routes = {interface.name: _routes(interface, refused) for interface in interfaces}
    freed = list(_free_routes(routes, observed))
    steps += freed
    collided = collisions(interfaces, observed)
    for interface in interfaces:
        collision = collided.get(interface.name)
        if collision is not None and collision.unmade:
            continue
        held_back = {AddAddress(interface.name, each) for each in collision.held_back} if collision else set()
        made = _interface_steps(interface, keys.get(interface.server, ""), observed)
        steps += [step for step in made if step not in held_back]
        steps += [step for step in _route_steps(interface.name, routes[interface.name], observed) if step not in freed]
    return Plan(tuple(steps), refused, observed, collided)


def mtu_of(interface: Interface, observed: Observed) -> int:
    """The server's own MTU, else what is left of the way out once WireGuard has added its headers."""
    return interface.mtu or max(SMALLEST_MTU, observed.outer_mtu - OVERHEAD)


def _routes(interface: Interface, refused: Conflicts) -> frozenset[str]:
    return frozenset(network for network in networks_of(interface) if (interface.name, network) not in refused)


def _free_routes(routes: Mapping[str, Set[str]], observed: Observed) -> Iterator[Step]:
    """The kernel has one route to a network: what now belongs to another interface is let go of first."""
    owners = {network: name for name, networks in routes.items() for network in networks}
    for name in sorted(routes.keys() & observed.links.keys()):
        for network in sorted(observed.links[name].routes):
            if owners.get(network, name) != name:
                yield RemoveRoute(name, network)


def _route_steps(name: str, routes: Set[str], observed: Observed) -> Iterator[Step]:
    link = observed.links.get(name)
    ours = link.routes if link is not None else frozenset()
    # A route that somebody else made to the same interface serves as well, and is left to them.
    there = ours | {route.network for route in observed.host_routes if route.link == name}
    yield from (AddRoute(name, network) for network in sorted(routes - there))
    yield from (RemoveRoute(name, network) for network in sorted(ours - routes))


def _free_ports(interfaces: list[Interface], observed: Observed) -> Iterator[Step]:
    """Interfaces that trade ports would each wait for the other: whoever holds another's port lets it go first."""
    desired = {interface.port: interface.name for interface in interfaces}
    for interface in interfaces:
        device = observed.devices.get(interface.name)
        if device is not None and device.port and desired.get(device.port, device.name) != device.name:
            yield SetDevice(interface.name, "", 0)


def _interface_steps(interface: Interface, public_key: str, observed: Observed) -> Iterator[Step]:
    name = interface.name
    device = observed.devices.get(name)
    link = observed.links.get(name)
    if device is None or link is None:
        yield CreateInterface(name)
    device = device or Device(name, "", 0, {})
    link = link or ObservedLink(False, 0, frozenset())
    if (device.public_key, device.port, device.mark) != (public_key, interface.port, MARK):
        yield SetDevice(name, interface.server, interface.port)
    for address in interface.addresses:
        if address not in link.addresses:
            yield AddAddress(name, address)
    mtu = mtu_of(interface, observed)
    if (link.up, link.mtu, link.group) != (True, mtu, GROUP):
        yield SetLink(name, mtu)
    changes = peer_changes(interface, device)
    if changes:
        yield SetPeers(name, changes)
    for address in sorted(link.addresses - set(interface.addresses)):
        yield RemoveAddress(name, address)


def peer_changes(interface: Interface, device: Device) -> tuple[PeerChange, ...]:
    """What differs between the desired peers and those of ``device``.

    WireGuard moves an allowed IP to the peer that is set last, so peers that trade addresses need no order among
    themselves: each of them differs, hence each is set, and no two desired peers share an address or a network. But
    who wins a network comes before who loses it, so that no packet finds it with nobody.
    """
    desired = {peer.public_key: peer.routed for peer in interface.peers}
    gaining, losing = [], []
    for key, allowed_ips in desired.items():
        has = device.peers[key].allowed_ips if key in device.peers else frozenset()
        if key not in device.peers or not has.issuperset(allowed_ips):
            gaining.append(PeerChange(key, allowed_ips))
        elif len(has) != len(set(allowed_ips)):
            losing.append(PeerChange(key, allowed_ips))
    return (*gaining, *losing, *(PeerChange(key, remove=True) for key in device.peers if key not in desired))
