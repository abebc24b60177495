"""Carrying out what was planned on the real host, step by step. What fails is noted, and the rest goes on."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from servers.hostnet.marks import MARK
from servers.hostnet.netlink.links import LinkError
from servers.hostnet.observed import Observed, ObservedLink
from servers.hostnet.state import OUR_INTERFACE, Code, HostCondition, Interface
from servers.hostnet.state.host_networks import HostNetwork
from servers.hostnet.subsystem import SubsystemError
from servers.hostnet.wireguard import keys
from servers.hostnet.wireguard.base import Backend, Device, ObservedPeer, WireGuardError

from .plan import (
    AddAddress,
    AddRoute,
    CreateInterface,
    DeleteInterface,
    Plan,
    RemoveAddress,
    RemoveRoute,
    SetDevice,
    SetLink,
    SetPeers,
    Step,
    plan,
)

log = logging.getLogger("hostnet.apply")

HOST_ERRORS = (WireGuardError, LinkError, SubsystemError)


class LinkTools(Protocol):
    """What apply needs of ``links.Links``."""

    def read(self) -> dict[str, ObservedLink]: ...
    def observe(self, devices: Mapping[str, Device]) -> Observed: ...
    def bring_up(self, name: str, mtu: int) -> None: ...
    def add_address(self, name: str, address: str) -> None: ...
    def remove_address(self, name: str, address: str) -> None: ...
    def add_route(self, name: str, network: str) -> None: ...
    def remove_route(self, name: str, network: str) -> None: ...
    def delete(self, name: str) -> None: ...
    def forward(self, *, ipv6: bool) -> None: ...


@dataclass(slots=True)
class Failures:
    """Errors of one apply, by interface; steps on an interface that failed are left out. ``guard``: what keeps the
    tunnels shut failed. ``others`` are what stops nothing else: a network that cannot be routed."""

    errors: dict[str, HostCondition] = field(default_factory=dict)
    guard: HostCondition | None = None
    others: list[HostCondition] = field(default_factory=list)

    def note(self, interface: str, text: str, code: Code = Code.INTERFACE_FAILED) -> None:
        self.errors.setdefault(interface, HostCondition.of(code, text))

    def conditions(self) -> list[HostCondition]:
        guard = [self.guard] if self.guard else []
        return [*guard, *self.errors.values(), *self.others]


class Executor:
    """The hands of the ``Applier``, and the private keys of the servers. One thread at a time."""

    def __init__(self, backend: Backend, links: LinkTools, key_dir: Path) -> None:
        self._backend = backend
        self._links = links
        self._key_dir = key_dir
        self._private_keys: dict[str, bytes] = {}

    def observe(self) -> Observed:
        """What the host has now. Raise ``WireGuardError`` or ``LinkError`` where it cannot be read."""
        devices: dict[str, Device] = {}
        for name in self._backend.list():
            if OUR_INTERFACE.fullmatch(name):
                try:
                    devices[name] = self._backend.get(name)
                except WireGuardError as error:  # as good as gone: the plan makes it anew
                    log.warning("reading %s: %s", name, error)
        return self._links.observe(devices)

    def links_match(self, desired: Iterable[Interface]) -> bool:
        """Whether links, addresses and routes are as they should be. WireGuard is not asked: reading its peers takes
        long where there are many. Raise ``LinkError``."""
        keys = self.public_keys()
        interfaces = [dataclasses.replace(i, peers=tuple(p for p in i.peers if p.networks)) for i in desired]
        devices = {interface.name: _untouched(interface, keys.get(interface.server, "")) for interface in interfaces}
        return not plan(interfaces, keys, self._links.observe(devices)).steps

    def own_networks(self) -> tuple[HostNetwork, ...]:
        """What the host has besides our tunnels. Raise ``LinkError``."""
        return self._links.observe({}).own

    def public_keys(self) -> dict[str, str]:
        """WireGuard public keys by server, as far as they are loaded."""
        return {server: keys.public_of(private) for server, private in self._private_keys.items()}

    def known_keys(self, interfaces: Iterable[Interface]) -> dict[str, str]:
        """Public keys of the servers that have a key already; none is made. Raise ``WireGuardError``."""
        paths = {i.server: self._key_dir / i.server for i in interfaces}
        return {server: keys.public_of(keys.load_or_make(path)) for server, path in paths.items() if path.exists()}

    def load_keys(self, interfaces: Iterable[Interface], failures: Failures) -> dict[str, str]:
        """Load or make the private key of each server; return the public ones."""
        loaded: dict[str, bytes] = {}
        for interface in interfaces:
            try:
                loaded[interface.server] = keys.load_or_make(self._key_dir / interface.server)
            except WireGuardError as error:
                failures.note(interface.name, str(error))
                if interface.server in self._private_keys:
                    loaded[interface.server] = self._private_keys[interface.server]
        self._private_keys = loaded
        return self.public_keys()

    def forward(self, interfaces: Iterable[Interface]) -> None:
        """Have the host route what the tunnels carry. Raise ``LinkError``."""
        self._links.forward(ipv6=any(":" in address for i in interfaces for address in i.addresses))

    def execute(self, plan: Plan, failures: Failures) -> set[str]:
        """Do every step that can be done; return the allowed IPs that were taken off peers."""
        failures.others += [HostCondition.of(Code.ROUTE_REFUSED, text) for text in plan.refused.values()]
        for name, collision in plan.collisions.items():
            if collision.unmade:
                failures.note(name, collision.text, Code.NETWORK_COLLIDES)
            else:
                failures.others.append(HostCondition.of(Code.NETWORK_COLLIDES, collision.text))
        released: set[str] = set()
        for step in plan.steps:
            if step.interface in failures.errors:
                continue
            # Without our firewall a new tunnel would open the whole host. Those that run keep what rules they have.
            if isinstance(step, CreateInterface) and failures.guard is not None:
                failures.note(step.interface, f"{step.interface}: not made without the firewall")
                continue
            try:
                self._do(step)
                released |= _released(step, plan.observed)
            except HOST_ERRORS as error:
                log.error("%s: %s", type(step).__name__, error)
                if isinstance(step, AddRoute | RemoveRoute):
                    failures.others.append(HostCondition.of(Code.ROUTE_FAILED, str(error)))
                else:
                    failures.note(step.interface, str(error))
        return released

    def _do(self, step: Step) -> None:
        match step:
            case DeleteInterface(name):
                self._backend.delete(name)
                self._links.delete(name)  # a link of that name which is no WireGuard interface
            case CreateInterface(name):
                self._backend.create(name)
            case SetDevice(name, server, port):
                private_key = self._private_keys[server] if server else None
                self._backend.set(name, private_key=private_key, port=port, mark=MARK)
            case AddAddress(name, address):
                self._links.add_address(name, address)
            case RemoveAddress(name, address):
                self._links.remove_address(name, address)
            case AddRoute(name, network):
                self._links.add_route(name, network)
            case RemoveRoute(name, network):
                self._links.remove_route(name, network)
            case SetLink(name, mtu):
                self._links.bring_up(name, mtu)
            case SetPeers(name, changes):
                self._backend.set(name, peers=changes)

    def route(self, name: str, add: Iterable[str], remove: Iterable[str]) -> list[str]:
        """Add and remove single routes; return the errors, in words."""
        steps: list[Step] = [*(AddRoute(name, each) for each in add), *(RemoveRoute(name, each) for each in remove)]
        errors = []
        for step in steps:
            try:
                self._do(step)
            except LinkError as error:
                errors.append(str(error))
        return errors


def _untouched(interface: Interface, public_key: str) -> Device:
    """WireGuard's part of an interface to which nobody did anything."""
    peers = {
        peer.public_key: ObservedPeer(peer.public_key, frozenset(peer.routed), "", 0, 0, 0) for peer in interface.peers
    }
    return Device(interface.name, public_key, interface.port, peers)


def _released(step: Step, observed: Observed) -> set[str]:
    """Allowed IPs that ``step`` takes off peers."""
    device = observed.devices.get(step.interface)
    if device is None:
        return set()
    if isinstance(step, DeleteInterface):
        return {ip for peer in device.peers.values() for ip in peer.allowed_ips}
    if not isinstance(step, SetPeers):
        return set()
    before = {change.public_key: device.peers.get(change.public_key) for change in step.changes}
    off = [peer.allowed_ips - {*c.allowed_ips} for c in step.changes if (peer := before[c.public_key]) is not None]
    return {ip for allowed_ips in off for ip in allowed_ips}
