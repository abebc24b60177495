"""What must be done to turn what a host has into what it should have. Pure: no system call, no clock.

Peers and addresses that are right already appear in no step, so nothing that did not change is ever touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from servers.hostnet.state import Interface
from servers.hostnet.wireguard.base import Device, PeerChange

DEFAULT_MTU = 1420  # 1500 less the largest overhead of WireGuard, that over IPv6


@dataclass(frozen=True, slots=True)
class SeenLink:
    """A link as the kernel has it. ``addresses`` in prefix notation, without IPv6 link-local ones."""

    up: bool
    mtu: int
    addresses: frozenset[str]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the host has: WireGuard devices and links by name. A broken interface may be in one of them only."""

    devices: Mapping[str, Device]
    links: Mapping[str, SeenLink]


@dataclass(frozen=True, slots=True)
class DeleteInterface:
    interface: str


@dataclass(frozen=True, slots=True)
class CreateInterface:
    interface: str


@dataclass(frozen=True, slots=True)
class SetDevice:
    """Set the private key of ``server`` (empty: leave it) and the port (0: any, to free the present one)."""

    interface: str
    server: str
    port: int


@dataclass(frozen=True, slots=True)
class AddAddress:
    interface: str
    address: str


@dataclass(frozen=True, slots=True)
class SetLink:
    """Bring the link up with this MTU."""

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


Step = DeleteInterface | CreateInterface | SetDevice | AddAddress | SetLink | SetPeers | RemoveAddress


def plan(wanted: Iterable[Interface], keys: Mapping[str, str], seen: Seen) -> list[Step]:
    """Ordered steps from ``seen`` to ``wanted``; ``keys`` are the servers' WireGuard public keys by server id."""
    interfaces = sorted(wanted, key=lambda interface: interface.name)
    names = {interface.name for interface in interfaces}
    # An interface that nobody wants carries nothing that anybody wants, and may sit on a port or address that is
    # needed now: it goes first. Within an interface it is the other way round, add before delete.
    steps: list[Step] = [DeleteInterface(name) for name in sorted((seen.devices.keys() | seen.links.keys()) - names)]
    steps += _free_ports(interfaces, seen)
    for interface in interfaces:
        steps += _interface_steps(interface, keys.get(interface.server, ""), seen)
    return steps


def _free_ports(interfaces: list[Interface], seen: Seen) -> Iterator[Step]:
    """Interfaces that trade ports would each wait for the other: whoever holds another's port lets it go first."""
    wanted = {interface.port: interface.name for interface in interfaces}
    for interface in interfaces:
        device = seen.devices.get(interface.name)
        if device is not None and device.port and wanted.get(device.port, device.name) != device.name:
            yield SetDevice(interface.name, "", 0)


def _interface_steps(interface: Interface, public_key: str, seen: Seen) -> Iterator[Step]:
    name = interface.name
    device = seen.devices.get(name)
    link = seen.links.get(name)
    if device is None or link is None:
        yield CreateInterface(name)
    device = device or Device(name, "", 0, {})
    link = link or SeenLink(False, 0, frozenset())
    if device.public_key != public_key or device.port != interface.port:
        yield SetDevice(name, interface.server, interface.port)
    for address in interface.addresses:
        if address not in link.addresses:
            yield AddAddress(name, address)
    mtu = interface.mtu or DEFAULT_MTU
    if not link.up or link.mtu != mtu:
        yield SetLink(name, mtu)
    changes = peer_changes(interface, device)
    if changes:
        yield SetPeers(name, changes)
    for address in sorted(link.addresses - set(interface.addresses)):
        yield RemoveAddress(name, address)


def peer_changes(interface: Interface, device: Device) -> tuple[PeerChange, ...]:
    """What differs between the wanted peers and those of ``device``.

    WireGuard moves an allowed IP to the peer that is set last, so peers that trade addresses need no order among
    themselves: each of them differs, hence each is set, and no two wanted peers share an address.
    """
    wanted = {peer.public_key: peer.routed for peer in interface.peers}
    add = [
        PeerChange(key, allowed_ips)
        for key, allowed_ips in wanted.items()
        if key not in device.peers or device.peers[key].allowed_ips != frozenset(allowed_ips)
    ]
    return (*add, *(PeerChange(key, remove=True) for key in device.peers if key not in wanted))


def describe(step: Step, seen: Seen) -> str:
    """In words what was found wrong, for an administrator."""
    match step:
        case DeleteInterface(name):
            return f"{name}: an interface nobody asked for"
        case CreateInterface(name):
            return f"{name}: the interface was gone"
        case SetDevice(name):
            return f"{name}: another key or port"
        case AddAddress(name, address):
            return f"{name}: address {address} was gone"
        case SetLink(name):
            return f"{name}: link down or another MTU"
        case RemoveAddress(name, address):
            return f"{name}: address {address} was added"
        case SetPeers(name, changes):
            return f"{name}: {_describe_peers(changes, seen.devices.get(name))}"


def _describe_peers(changes: tuple[PeerChange, ...], device: Device | None) -> str:
    known = device.peers if device is not None else {}
    added = sum(change.remove for change in changes)
    altered = sum(not change.remove and change.public_key in known for change in changes)
    counts = {"gone": len(changes) - added - altered, "altered": altered, "added": added}
    return "peers " + ", ".join(f"{what}: {count}" for what, count in counts.items() if count)
