"""Make the host what it should be: read, plan, carry out, report.

Every apply may be repeated. What fails is reported and left for the next one; what succeeded is kept.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from servers.hostnet.conntrack import ConntrackError
from servers.hostnet.firewall import FirewallError
from servers.hostnet.links import LinkError
from servers.hostnet.messages import OUR_INTERFACE
from servers.hostnet.plan import (
    AddAddress,
    CreateInterface,
    DeleteInterface,
    RemoveAddress,
    Seen,
    SeenLink,
    SetDevice,
    SetLink,
    SetPeers,
    Step,
    describe,
    plan,
)
from servers.hostnet.state import AddPeer, HostState, Interface, RemovePeers
from servers.hostnet.wanted import Gone, Held, Wanted
from servers.hostnet.wireguard import keys
from servers.hostnet.wireguard.base import Backend, Device, SeenPeer, WireGuardError

log = logging.getLogger("hostnet.apply")

# A WireGuard session that carries packets renews its handshake at least this often (seconds). An older handshake
# means silence; a younger one proves nothing, whatever shorter ping timeout a server has.
HANDSHAKE_LIFE = 180
HOST_ERRORS = (WireGuardError, LinkError, FirewallError)


class LinkTools(Protocol):
    """What apply needs of ``links.Links``."""

    def read(self) -> dict[str, SeenLink]: ...
    def bring_up(self, name: str, mtu: int) -> None: ...
    def add_address(self, name: str, address: str) -> None: ...
    def remove_address(self, name: str, address: str) -> None: ...
    def delete(self, name: str) -> None: ...
    def forward(self, *, ipv6: bool) -> None: ...


class FirewallTools(Protocol):
    """What apply needs of ``firewall.Firewall``."""

    def drifted(self) -> bool: ...
    def apply(self, interfaces: Sequence[Interface], web_port: int) -> None: ...


@dataclass(frozen=True, slots=True)
class FullReport:
    """What came of a full state. ``keys``: WireGuard public keys by server; ``drift``: what others had changed."""

    version: int
    keys: dict[str, str]
    drift: list[str]
    error: str
    gone: list[Gone]


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What came of single changes. ``answers``: for each message, empty when it is done, else why not."""

    answers: list[str]
    gone: list[Gone]


@dataclass(slots=True)
class _Failures:
    """Errors of one apply, by interface; steps on an interface that failed are left out."""

    errors: dict[str, str] = field(default_factory=dict)

    def note(self, interface: str, error: Exception) -> None:
        self.errors.setdefault(interface, str(error))

    def __str__(self) -> str:
        return "; ".join(self.errors.values())


class Applier:
    """Everything that changes this host. Its methods lock each other out, so that threads may share it."""

    def __init__(
        self,
        wanted: Wanted,
        backend: Backend,
        links: LinkTools,
        firewall: FirewallTools,
        key_dir: Path,
        flush: Callable[[Collection[str]], int],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lock = threading.Lock()
        self._wanted = wanted
        self._backend = backend
        self._links = links
        self._firewall = firewall
        self._key_dir = key_dir
        self._flush = flush
        self._clock = clock
        self._private_keys: dict[str, bytes] = {}
        self._names: dict[str, str] = {}  # of interfaces by server, those included that are still to be removed
        self._settled = False  # whether the last full apply succeeded: only then is a difference somebody else's doing

    # A full state

    def full(self, state: HostState) -> FullReport | None:
        """Take ``state`` and make the host so; ``None`` when the state is stale or from another run."""
        with self._lock:
            before = self._wanted.interfaces()
            unfinished = set(self._wanted.changed())
            if not self._wanted.take_full(state, self._clock()):
                return None
            failures = _Failures()
            try:
                seen = self._read()
                drift = self._drift(before, unfinished, seen) if self._settled else []
                self._settled = False
                interfaces = self._wanted.interfaces()
                public_keys = self._public_keys(interfaces, failures)
                released = self._carry_out(interfaces, state.web_port, public_keys, seen, failures)
            except HOST_ERRORS as error:  # the host could not even be read
                log.error("full state %d: %s", state.version, error)
                return FullReport(state.version, {}, [], str(error), [])
            self._settled = not failures.errors
            gone = self._finish(self._settle(interfaces, failures), released)
            return FullReport(state.version, public_keys, drift, str(failures), gone)

    def _settle(self, interfaces: Sequence[Interface], failures: _Failures) -> set[str]:
        """Note what needs no further work; return the servers where something failed.

        Servers that are wanted no more count as well: their peers are gone only when their interface is.
        """
        self._names |= {interface.server: interface.name for interface in interfaces}
        failed = {server for server, name in self._names.items() if name in failures.errors}
        wanted = {interface.server for interface in interfaces}
        self._names = {server: name for server, name in self._names.items() if server in failed | wanted}
        for server in self._wanted.changed():
            if server not in failed:
                self._wanted.settle(server)
        return failed

    def _read(self) -> Seen:
        devices: dict[str, Device] = {}
        for name in self._backend.list():
            if OUR_INTERFACE.fullmatch(name):
                try:
                    devices[name] = self._backend.get(name)
                except WireGuardError as error:  # as good as gone: the plan makes it anew
                    log.warning("reading %s: %s", name, error)
        return Seen(devices, self._links.read())

    def _drift(self, before: tuple[Interface, ...], unfinished: set[str], seen: Seen) -> list[str]:
        """In words, how the host differs from what the last apply left there."""
        keys_before = {server: keys.public_of(private) for server, private in self._private_keys.items()}
        busy = {interface.name for interface in before if interface.server in unfinished}
        steps = [step for step in plan(before, keys_before, seen) if step.interface not in busy]
        table = ["the nftables table was changed or removed"] if self._firewall.drifted() else []
        return table + [describe(step, seen) for step in steps]

    def _public_keys(self, interfaces: Sequence[Interface], failures: _Failures) -> dict[str, str]:
        for interface in interfaces:
            try:
                self._private_keys[interface.server] = keys.load_or_make(self._key_dir / interface.server)
            except WireGuardError as error:
                failures.note(interface.name, error)
        servers = {interface.server for interface in interfaces}
        self._private_keys = {server: key for server, key in self._private_keys.items() if server in servers}
        return {server: keys.public_of(private) for server, private in self._private_keys.items()}

    def _carry_out(
        self,
        interfaces: Sequence[Interface],
        web_port: int,
        public_keys: dict[str, str],
        seen: Seen,
        failures: _Failures,
    ) -> set[str]:
        """Do every step that can be done; return the allowed IPs of peers taken off."""
        try:
            self._firewall.apply(interfaces, web_port)
            self._links.forward(ipv6=any(":" in address for i in interfaces for address in i.addresses))
        except (FirewallError, LinkError) as error:
            failures.note("", error)
        released: set[str] = set()
        for step in plan(interfaces, public_keys, seen):
            if step.interface in failures.errors:
                continue
            # Without our firewall a new tunnel would open the whole host. Those that run keep what rules they have.
            if isinstance(step, CreateInterface) and "" in failures.errors:
                failures.note(step.interface, FirewallError(f"{step.interface}: not made without the firewall"))
                continue
            try:
                self._do(step)
                released |= _released(step, seen)
            except HOST_ERRORS as error:
                log.error("%s: %s", type(step).__name__, error)
                failures.note(step.interface, error)
        return released

    def _do(self, step: Step) -> None:
        match step:
            case DeleteInterface(name):
                self._backend.delete(name)
                self._links.delete(name)  # a link of that name which is no WireGuard interface
            case CreateInterface(name):
                self._backend.create(name)
            case SetDevice(name, server, port):
                self._backend.set(name, private_key=self._private_keys[server] if server else None, port=port)
            case AddAddress(name, address):
                self._links.add_address(name, address)
            case RemoveAddress(name, address):
                self._links.remove_address(name, address)
            case SetLink(name, mtu):
                self._links.bring_up(name, mtu)
            case SetPeers(name, changes):
                self._backend.set(name, peers=changes)

    # Single changes

    def changes(self, messages: Sequence[AddPeer | RemovePeers]) -> BatchReport:
        """Take a batch of single changes and tell WireGuard of them in one request per interface.

        The device is not read: a batch costs what it changes, however many peers there are.
        """
        with self._lock:
            now = self._clock()
            answers = [self._take(message, now) for message in messages]
            failed = self._push()
            for index, message in enumerate(messages):
                if isinstance(message, AddPeer) and not answers[index]:
                    answers[index] = failed.get(message.server, "")
                    # A later message of the same batch may have ended it again.
                    if not answers[index] and not self._wanted.holds(message.peer.connection):
                        answers[index] = "this connection has ended"
            # Before the first full state nothing was removed yet: the ends are kept until then.
            return BatchReport(answers, self._finish(failed, set()) if self._wanted.ready else [])

    def _take(self, message: AddPeer | RemovePeers, now: float) -> str:
        if isinstance(message, AddPeer):
            return self._wanted.add(message, now)
        self._wanted.remove(message.connections)
        return ""

    def _push(self) -> dict[str, str]:
        """Tell WireGuard what changed; return the errors by server. What failed stays to be done."""
        failed: dict[str, str] = {}
        for server in self._wanted.changed():
            interface = self._wanted.interface(server)
            if interface is None:
                continue
            try:
                self._backend.set(interface.name, peers=self._wanted.changes(server))
            except WireGuardError as error:
                log.error("changing peers of %s: %s", interface.name, error)
                failed[server] = str(error)
            else:
                self._wanted.settle(server)
        return failed

    # Silence

    def drop_silent(self) -> list[Gone]:
        """Remove every peer that has been silent for its server's ping timeout, judged by its last handshake alone.

        For the time when nobody can tell this host who still pings.
        """
        with self._lock:
            for server in {held.server for held in self._wanted.held()}:
                interface = self._wanted.interface(server)
                if interface is not None:
                    self._wanted.remove(self._silent(interface), "silent")
            return self._finish(self._push(), set()) if self._wanted.ready else []

    def _silent(self, interface: Interface) -> list[str]:
        try:
            peers: dict[str, SeenPeer] = self._backend.get(interface.name).peers
        except WireGuardError as error:
            log.warning("reading %s: %s", interface.name, error)
            return []
        oldest = self._clock() - max(interface.ping_timeout, HANDSHAKE_LIFE)

        def last_heard(held: Held) -> float:
            seen = peers.get(held.peer.public_key)
            return seen.last_handshake if seen is not None and seen.last_handshake else held.since

        mine = [held for held in self._wanted.held() if held.server == interface.server]
        return [held.peer.connection for held in mine if last_heard(held) < oldest]

    # Afterwards

    def peer_count(self) -> int:
        """How many peers are wanted now. Needs no lock."""
        return len(self._wanted.held())

    def _finish(self, unsettled: Collection[str], released: set[str]) -> list[Gone]:
        """Hand out what is really gone, and have the kernel forget connections of addresses that nobody has now."""
        gone = self._wanted.take_gone(unsettled)
        for each in gone:
            released.update(each.allowed_ips)
        free = {ip.partition("/")[0] for ip in released if not self._wanted.uses(ip)}
        if free:
            try:
                self._flush(free)
            except ConntrackError as error:
                log.warning("%s", error)
        return gone


def _released(step: Step, seen: Seen) -> set[str]:
    """Allowed IPs of the peers that ``step`` takes off."""
    device = seen.devices.get(step.interface)
    if device is None:
        return set()
    if isinstance(step, DeleteInterface):
        off = list(device.peers.values())
    elif isinstance(step, SetPeers):
        off = [device.peers[change.public_key] for change in step.changes if change.remove]
    else:
        return set()
    return {ip for peer in off for ip in peer.allowed_ips}
