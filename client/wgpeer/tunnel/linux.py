"""The whole tunnel on a Linux machine: build it, change it, repair what others change, remove it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from nacl.public import PrivateKey
from pyroute2.netlink.exceptions import NetlinkError

from wgpeer.constants import HANDSHAKE_ATTEMPTS, HANDSHAKE_POLL, HANDSHAKE_POLLS, REPAIR_QUIET, SOCKET_MARK
from wgpeer.envelope import b64_decode
from wgpeer.responses import Configuration
from wgpeer.status import Health
from wgpeer.tunnel import copies, coverage, link, recovery, routing
from wgpeer.tunnel.backend import Backend, BackendError, InterfaceConfig
from wgpeer.tunnel.contract import TunnelError
from wgpeer.tunnel.dns import DnsConfig
from wgpeer.tunnel.endpoint import reachable_endpoint, strict_reverse_path
from wgpeer.tunnel.guard import Guard
from wgpeer.tunnel.interface import Interface
from wgpeer.tunnel.names import Names
from wgpeer.tunnel.recovery import Claim, clean_up
from wgpeer.tunnel.routing import Surroundings, Tables
from wgpeer.tunnel.split_tunnel import SplitTunnel, split_routes

VERSIONS = {4: routing.FAMILIES[0], 6: routing.FAMILIES[1]}


@dataclass(frozen=True, slots=True)
class Desired:
    """A tunnel as it should be while it is up."""

    configuration: Configuration
    config: InterfaceConfig
    split: SplitTunnel
    mtu: int
    dns: DnsConfig


@dataclass(slots=True)
class LinuxTunnel:
    """The ``Tunnel`` of ``session``. ``resolve`` gives the addresses of a host name, ``log`` takes a line of text,
    ``wait`` waits for seconds (and may raise to end it all), ``backend_choice`` is a key of ``interface.BACKENDS``.
    ``on_change`` is called when a repair has changed something that people should see. ``beside`` is another tunnel of
    the same profile, while one takes the place of the other.

    ``repair`` runs on another thread than all else; what both touch is theirs while they hold the lock.
    """

    recovery_file: Path
    resolve: Callable[[str], list[str]]
    log: Callable[[str], None]
    wait: Callable[[float], object] = time.sleep
    backend_choice: str = "auto"
    on_change: Callable[[], None] = lambda: None
    beside: LinuxTunnel | None = None
    routes: str = ""
    health: Health = field(default_factory=Health)
    _desired: Desired | None = None
    _link: Interface = field(init=False)
    _guard: Guard = field(default_factory=Guard)
    _tables: Tables = field(default_factory=dict)
    _names: Names = field(default_factory=Names)
    _problem: str = ""
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._link = Interface(self._write_recovery_file, self.wait, self.backend_choice)

    @property
    def interface(self) -> str:
        """Empty while the tunnel is down."""
        return self._link.name

    @property
    def backend(self) -> str:
        """``kernel`` or ``userspace``, empty while the tunnel is down."""
        return self._link.backend.name if self._link.backend else ""

    @property
    def dns(self) -> str:
        """For people, empty while there are no name servers."""
        return self._names.said

    @property
    def mtu(self) -> int:
        """In bytes, 0 while the tunnel is down."""
        return self._desired.mtu if self._desired else 0

    def up(self, configuration: Configuration, key: PrivateKey, *, use_dns: bool, use_default_route: bool) -> str:
        """See ``Tunnel`` of ``session``."""
        endpoint, path_mtu = self._choose_endpoint(configuration)
        split = split_routes(configuration.routes, configuration.gateway, use_default_route=use_default_route)
        config = InterfaceConfig(
            private_key=bytes(key),
            fwmark=SOCKET_MARK,
            peer_public_key=b64_decode(configuration.public_key, 32),
            endpoint_address=endpoint,
            endpoint_port=configuration.port,
            allowed_ips=split.allowed_ips,
        )
        names = DnsConfig(
            configuration.dns_servers if use_dns else (),
            configuration.search_domains,
            configuration.routing_domains,
            default_route=bool(split.default_routes),
        )
        try:
            with self._lock:
                self._desired = Desired(configuration, config, split, configuration.mtu or path_mtu, names)
                self.routes = split.description
                backend = self._build(self._desired, changed=True)[0]
            self._start_handshake(backend, config, configuration.gateway)
        except (BackendError, NetlinkError, OSError) as error:
            raise TunnelError(f"the tunnel cannot be built: {error}") from error
        self._warn(configuration, split)
        with self._lock:
            self._set_names(self._desired)
            self._look(self._desired)
        return f"[{endpoint}]:{configuration.port}" if ":" in endpoint else f"{endpoint}:{configuration.port}"

    def _copy_from_the_old(self) -> None:
        """Before the first handshake: with that the server begins to take packets by the new key. It comes as soon as
        the link is up, for the kernel greets its neighbours there, where everything is sent to the peer."""
        if self.beside and self.beside.interface and (problem := copies.start(self.beside.interface, self.interface)):
            self.log(f"some packets may be lost while the key changes: {problem}")

    def settle(self) -> None:
        """Alone from now on: look at the surroundings without the one that was beside it."""
        with self._lock:
            self.beside = None
            if self._desired is not None:
                self._build(self._desired, changed=False)
                self._set_names(self._desired)
                self._look(self._desired)

    def down(self) -> None:
        """See ``Tunnel`` of ``session``."""
        with self._lock:
            self._desired = None
            clean_up(self.recovery_file)
            self._link = Interface(self._write_recovery_file, self.wait, self.backend_choice)
            self._guard, self._tables, self.health = Guard(), {}, Health()
            self._names, self.routes = Names(), ""

    def repair(self) -> bool:
        """Compare with what is desired, and put back what differs. False when that must be tried again."""
        with self._lock:
            if self._desired is None or not self.interface:
                return True
            shown = self.health, self.interface, self.dns
            try:
                self._repair(self._desired)
                self._problem = ""
            except (BackendError, NetlinkError, OSError) as error:
                if str(error) != self._problem:
                    self.log(f"the tunnel cannot be repaired: {error}")
                self._problem = str(error)
                self.health = replace(self.health, all_traffic=False, coverage=f"not known, a repair fails: {error}")
            different = shown != (self.health, self.interface, self.dns)
        if different:
            self.on_change()
        return not self._problem

    def _repair(self, desired: Desired) -> None:
        gone, before = not self._link.is_there(), self._tables
        words = self._build(desired, changed=False)[1]
        if gone:
            link.trigger_handshake(self.interface, desired.configuration.gateway)
            words = ["its interface", *words]
        elif self._tables != before and words:
            self.log(f"the networks of this machine have changed: adapted {', '.join(words)}")
            words = [word for word in words if word != "its routes"]
        if words:
            self._note_repair(", ".join(dict.fromkeys(words)))
        if gone or self._names.winner_now(self._claim(desired), self._others()) != self._names.winner:
            self._set_names(desired)
        self._look(desired)

    def _note_repair(self, what: str) -> None:
        health, now = self.health, time.time()
        if what != health.repaired or now - health.last_repair > REPAIR_QUIET:
            self.log(f"put back what another program had removed or changed: {what}")
        self.health = replace(health, repairs=health.repairs + 1, repaired=what, last_repair=now)

    def _build(self, desired: Desired, *, changed: bool) -> tuple[Backend, list[str]]:
        """Make everything as desired; ``changed``: its WireGuard configuration is another than before. Returns what
        else was not so, for people. Raises ``BackendError``, ``NetlinkError`` or ``OSError``."""
        there, words = self._link.is_there(), list[str]()
        if not there and self.interface and not link.interface_index(self.interface):
            words += self._set_routes(desired)  # first of all they hold back what went through the interface
        backend = self._link.ensure()
        if changed and not there:
            self._copy_from_the_old()
        if changed or not there:
            backend.configure(self.interface, desired.config)
        words += link.configure_link(self.interface, desired.configuration.addresses, desired.mtu)
        words += self._set_routes(desired)
        if self._link.lost:
            recovery.clear_lost(self._link.lost)
            self._link.lost.clear()
            self._write_recovery_file(self.interface, self._link.index)
        return backend, words

    def _set_routes(self, desired: Desired) -> list[str]:
        """The guard first: until the routes stand, nothing that they are meant for leaves."""
        observed = routing.observe()
        around = routing.surroundings(self.interface, observed)
        words = ["its guard"] if self._set_guard(desired, around) else []
        self._tables = routing.desired_tables(self.interface, desired.split, around)
        return words + routing.set_routes(self.interface, self._tables, observed)

    def _set_guard(self, desired: Desired, around: Surroundings) -> bool:
        number, known = link.interface_number(self.interface), self._guard.problem
        outside = _outside(desired.split, around)
        if not outside:
            self._guard.remove(number)
            return False
        harmed = self._guard.ensure(number, outside)
        if self._guard.problem and self._guard.problem != known:
            self.log(f"no guard against leaks: {self._guard.problem}. The routes alone must hold")
        return harmed

    def _look(self, desired: Desired) -> None:
        """Note how it stands now, for people; not while two tunnels are one."""
        if self.beside:
            return
        around = routing.surroundings(self.interface, routing.observe())
        titles = {f"{link.INTERFACE_PREFIX}{claim.number}": claim.title for claim in self._others()}
        number, split = link.interface_number(self.interface), desired.split
        said = coverage.conflicts(number, split, around, titles)
        if self._names.winner:
            said.append(f"all names are asked through {self._names.winner.title}")
        everything, words = coverage.describe(
            self.interface, split, _outside(split, around), self._guard.problem, titles
        )
        conflicts = "; ".join(said)
        if conflicts and conflicts != self.health.conflicts:
            self.log(conflicts)
        if words != self.health.coverage and not everything and words:
            self.log(f"all traffic through the tunnel: {words}")
        self.health = replace(self.health, all_traffic=everything, coverage=words, conflicts=conflicts)

    def _start_handshake(self, backend: Backend, config: InterfaceConfig, gateway: str) -> None:
        """Begin the handshake now, and once more should it be lost: WireGuard by itself would wait 5 s to do so, in
        which nothing gets through. Whether the host is dead is for the first ping to decide."""
        for attempt in range(HANDSHAKE_ATTEMPTS):
            if attempt:
                backend.configure(self.interface, config)  # the peer anew, and so a new handshake at once
            link.trigger_handshake(self.interface, gateway)
            for _ in range(HANDSHAKE_POLLS):
                if backend.last_handshake(self.interface):
                    return
                self.wait(HANDSHAKE_POLL)

    def _others(self) -> list[Claim]:
        mine = recovery.profile_of(self.recovery_file)
        return [claim for claim in recovery.other_tunnels(self.recovery_file) if claim.profile != mine]

    def _claim(self, desired: Desired) -> Claim:
        number = link.interface_number(self.interface) if self.interface else 0
        everything = bool(desired.split.default_routes)
        return Claim("", number, everything, bool(desired.dns.servers) and desired.dns.all_names)

    def _set_names(self, desired: Desired) -> None:
        index, claim = link.interface_index(self.interface), self._claim(desired)
        before = partial(self._write_recovery_file, self.interface, index)
        self._names.apply(self.interface, index, desired.dns, claim, self._others(), before)
        astray = [server for server in self._names.servers if not desired.split.covers(server)]
        if astray:
            self._names.said += f"; {', '.join(astray)} is in no route of the tunnel, so it may not answer"

    def _write_recovery_file(self, interface: str, index: int) -> None:
        claim = self._claim(self._desired) if self._desired else Claim("", 0)
        recovery.write(self.recovery_file, interface, index, self._names.change, self._link.lost, claim)

    def _choose_endpoint(self, configuration: Configuration) -> tuple[str, int]:
        """The first address of the host that this machine has a route to, and the tunnel's MTU (bytes) on that route.
        Raises ``TunnelError``."""
        found = reachable_endpoint(configuration, self.resolve)
        everything = self._desired is not None and bool(self._desired.split.default_routes)
        if not found and self._names.change.manager and not everything:
            # Perhaps a name that is new to us, while the name servers we set are behind the very tunnel that died.
            # Where everything goes through it they stay: no name of any program may leave by another way.
            with self._lock:
                self._names.revert()
            found = reachable_endpoint(configuration, self.resolve)
        if found:
            return found
        shown = " or ".join(configuration.endpoints)
        why = "; its name may be known only by name servers within the tunnel" if self._names.change.manager else ""
        raise TunnelError(f"there is no way to the host {shown} from here{why}")

    def _warn(self, configuration: Configuration, split: SplitTunnel) -> None:
        if configuration.network_links:
            shown = ", ".join(configuration.network_links)
            self.log(f"the server routes {shown} to this machine; let it forward them if that is meant (ip_forward)")
        if any(":" in address for address in configuration.addresses) and not link.has_ipv6(self.interface):
            self.log(
                f"IPv6 does not work on {self.interface} (switched off in net.ipv6.conf, or an MTU below 1280), so "
                "what should go through the tunnel over IPv6 goes nowhere"
            )
        if split.default_routes and strict_reverse_path():
            self.log(
                "rp_filter is strict (1) on this machine: packets of the host would be dropped while all traffic goes "
                "through the tunnel. Set net.ipv4.conf.all.rp_filter=2"
            )


def _outside(split: SplitTunnel, around: Surroundings) -> dict[int, list[tuple[int, int]]]:
    """What stays outside, for each IP version of which everything goes through the tunnel."""
    return {
        version: split.outside(family, around.main)
        for version, family in VERSIONS.items()
        if any(net.version == version for net in split.default_routes)
    }
