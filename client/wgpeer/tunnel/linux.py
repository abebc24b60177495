"""The whole tunnel on a Linux machine: build it, change it, remove it, also what an earlier process left behind.

The recovery file is a JSON object: ``interface`` and its ``index`` (0: perhaps not made yet), ``boot`` (the id of the
boot in which it was made), ``dns`` (the ``DnsChange`` of its name servers) and ``lost_interfaces`` (names of ours that
are lost, whose tables still hold back traffic). It is written before each change, so that a crash leaves nothing that
nobody knows of.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nacl.public import PrivateKey
from pyroute2.netlink.exceptions import NetlinkError

from wgpeer.constants import (
    HANDSHAKE_ATTEMPTS,
    HANDSHAKE_POLL,
    HANDSHAKE_POLLS,
    MTU_MAX,
    MTU_MIN,
    NAME_FREE_POLLS,
    SOCKET_MARK,
    TUNNEL_OVERHEAD,
)
from wgpeer.envelope import b64_decode
from wgpeer.responses import Configuration
from wgpeer.session import TunnelError
from wgpeer.store import read_json, write_file
from wgpeer.tunnel import dns, routing
from wgpeer.tunnel.backend import Backend, BackendError, InterfaceConfig
from wgpeer.tunnel.dns import DnsChange, DnsConfig
from wgpeer.tunnel.kernel import KernelBackend
from wgpeer.tunnel.split_tunnel import SplitTunnel, split_routes
from wgpeer.tunnel.userspace import UserspaceBackend, socket_is_alive

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
IP_MTU, IPV6_MTU = 14, 24  # socket options that the socket module has no names for
BACKENDS: dict[str, tuple[type[KernelBackend] | type[UserspaceBackend], ...]] = {
    "auto": (KernelBackend, UserspaceBackend),
    "kernel": (KernelBackend,),
    "userspace": (UserspaceBackend,),
}


@dataclass(slots=True)
class LinuxTunnel:
    """The ``Tunnel`` of ``session``. ``resolve`` gives the addresses of a host name, ``log`` takes a line of text,
    ``wait`` waits for seconds (and may raise to end it all), ``backend_choice`` is a key of ``BACKENDS``."""

    recovery_file: Path
    resolve: Callable[[str], list[str]]
    log: Callable[[str], None]
    wait: Callable[[float], None] = time.sleep
    backend_choice: str = "auto"
    interface: str = ""
    dns: str = ""
    routes: str = ""
    mtu: int = 0
    _backend: Backend | None = None
    _dns_change: DnsChange = field(default_factory=DnsChange)
    _has_default_route: bool = False
    _interface_index: int = 0
    _lost_interfaces: set[str] = field(default_factory=set)  # their tables still hold back traffic

    @property
    def backend(self) -> str:
        """``kernel`` or ``userspace``, empty while the tunnel is down."""
        return self._backend.name if self._backend else ""

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
        self.mtu, self.routes = configuration.mtu or path_mtu, split.description
        self._has_default_route = bool(split.default_routes)
        try:
            backend = self._ensure_interface()
            backend.configure(self.interface, config)
            routing.configure_link(self.interface, configuration.addresses, self.mtu)
            routing.set_routes(self.interface, split)
            self._clear_lost_interfaces()
            self._start_handshake(backend, config, configuration.gateway)
        except (BackendError, NetlinkError, OSError) as error:
            raise TunnelError(f"the tunnel cannot be built: {error}") from error
        self._warn(configuration, split)
        self._set_dns(configuration, split, use_dns=use_dns)
        return f"[{endpoint}]:{configuration.port}" if ":" in endpoint else f"{endpoint}:{configuration.port}"

    def down(self) -> None:
        """See ``Tunnel`` of ``session``."""
        clean_up(self.recovery_file)
        self.interface, self.dns, self.routes, self.mtu, self._backend = "", "", "", 0, None
        self._dns_change, self._interface_index, self._lost_interfaces = DnsChange(), 0, set()

    def _start_handshake(self, backend: Backend, config: InterfaceConfig, gateway: str) -> None:
        """Begin the handshake now, and once more should it be lost: WireGuard by itself would wait 5 s to do so, in
        which nothing gets through. Whether the host is dead is for the first ping to decide."""
        for attempt in range(HANDSHAKE_ATTEMPTS):
            if attempt:
                backend.configure(self.interface, config)  # the peer anew, and so a new handshake at once
            routing.trigger_handshake(self.interface, gateway)
            for _ in range(HANDSHAKE_POLLS):
                if backend.last_handshake(self.interface):
                    return
                self.wait(HANDSHAKE_POLL)

    def _set_dns(self, configuration: Configuration, split: SplitTunnel, *, use_dns: bool) -> None:
        config = DnsConfig(
            configuration.dns_servers if use_dns else (),
            configuration.search_domains,
            configuration.routing_domains,
            default_route=self._has_default_route,
        )
        if not config.servers:
            dns.revert(self._dns_change)  # the last host had some, this one has none
            self.dns, self._dns_change = "", DnsChange()
            return
        index = routing.interface_index(self.interface)

        def before(change: DnsChange) -> None:
            if (self._dns_change.manager, self._dns_change.name) != (change.manager, change.name):
                dns.revert(self._dns_change)  # of an interface that is no more, or another manager
            self._dns_change = change
            self._write_recovery_file(self.interface, index)

        self.dns = dns.apply(self.interface, index, config, before)
        astray = [server for server in config.servers if not split.covers(server)]
        if astray:
            self.dns += f"; {', '.join(astray)} is in no route of the tunnel, so it may not answer"

    def _ensure_interface(self) -> Backend:
        """The backend, with the interface there, made anew when somebody deleted it or its process died."""
        if self._backend and self._interface_is_ours():
            return self._backend
        # Only the interface is made anew. Its tables and rules stay: what would have gone through it must not leave by
        # another way meanwhile.
        held = self.interface
        if held:
            if routing.interface_index(held) == self._interface_index:
                routing.delete_link(held)
            if not self._is_free(held):
                self._lost_interfaces.add(held)
                held = ""
        return self._create_interface(held)

    def _clear_lost_interfaces(self) -> None:
        _clear_routes_of(self._lost_interfaces)
        if self._lost_interfaces:
            self._lost_interfaces = set()
            self._write_recovery_file(self.interface, self._interface_index)

    def _create_interface(self, held: str) -> Backend:
        problem = BackendError("no free interface name")
        for kind in BACKENDS[self.backend_choice]:
            backend: Backend = kind()
            for name in [held] if held else self._free_names():
                self._write_recovery_file(name, 0)
                try:
                    backend.create(name)
                except BackendError as error:
                    problem = error
                    if name in self._free_names():  # not taken by somebody quicker: this backend does not work here
                        break
                    continue
                self.interface, self._interface_index, self._backend = name, routing.interface_index(name), backend
                self._write_recovery_file(name, self._interface_index)
                return backend
        if not held and not self._lost_interfaces:
            self.recovery_file.unlink(missing_ok=True)
        raise problem

    def _is_free(self, name: str) -> bool:
        """Wait a moment for the process of a deleted interface to end. It removes its socket file, and must not remove
        that of the next one."""
        for _ in range(NAME_FREE_POLLS):
            if not socket_is_alive(name) and not routing.interface_index(name):
                return True
            self.wait(HANDSHAKE_POLL)
        return False

    def _interface_is_ours(self) -> bool:
        # First the index: without our interface its socket may answer from another namespace, for a process that has
        # taken the name since.
        index = self._interface_index
        if self._backend is None or not index or routing.interface_index(self.interface) != index:
            return False
        try:
            return self._backend.last_handshake(self.interface) >= 0
        except BackendError:
            return False

    @staticmethod
    def _free_names() -> list[str]:
        # UAPI sockets are files, shared by network namespaces: a name can be taken though no such link is here.
        return [name for name in routing.free_names() if not socket_is_alive(name)][:10]

    def _write_recovery_file(self, interface: str, index: int) -> None:
        boot = BOOT_ID.read_text().strip()
        held = {"interface": interface, "index": index, "boot": boot, "dns": self._dns_change.as_dict()}
        write_file(self.recovery_file, json.dumps(held | {"lost_interfaces": sorted(self._lost_interfaces)}))

    def _choose_endpoint(self, configuration: Configuration) -> tuple[str, int]:
        """The first address of the host that this machine has a route to, and the tunnel's MTU (bytes) on that route.
        Raises ``TunnelError``."""
        found = self._reachable_endpoint(configuration)
        if not found and self._dns_change.manager and not self._has_default_route:
            # Perhaps a name that is new to us, while the name servers we set are behind the very tunnel that died.
            # Where everything goes through it they stay: no name of any program may leave by another way.
            dns.revert(self._dns_change)
            self.dns, self._dns_change = "", DnsChange()
            found = self._reachable_endpoint(configuration)
        if found:
            return found
        shown = " or ".join(configuration.endpoints)
        why = "; its name may be known only by name servers within the tunnel" if self._dns_change.manager else ""
        raise TunnelError(f"there is no way to the host {shown} from here{why}")

    def _reachable_endpoint(self, configuration: Configuration) -> tuple[str, int] | None:
        for name in configuration.endpoints:
            for address in self.resolve(name):
                if outer := _path_mtu(address, configuration.port):
                    return address, max(MTU_MIN, min(outer - TUNNEL_OVERHEAD, MTU_MAX))
        return None

    def _warn(self, configuration: Configuration, split: SplitTunnel) -> None:
        if configuration.network_links:
            shown = ", ".join(configuration.network_links)
            self.log(f"the server routes {shown} to this machine; let it forward them if that is meant (ip_forward)")
        if any(":" in address for address in configuration.addresses) and not routing.has_ipv6(self.interface):
            self.log(
                f"IPv6 does not work on {self.interface} (switched off in net.ipv6.conf, or an MTU below 1280), so "
                "what should go through the tunnel over IPv6 goes nowhere"
            )
        if split.default_routes and _strict_reverse_path():
            self.log(
                "rp_filter is strict (1) on this machine: packets of the host would be dropped while all traffic goes "
                "through the tunnel. Set net.ipv4.conf.all.rp_filter=2"
            )


def clean_up(recovery_file: Path) -> None:
    """Remove what a recovery file names. Nothing else: an interface that has since become another's is left alone."""
    held = read_json(recovery_file)
    interface, index = held.get("interface"), held.get("index")
    change = DnsChange.from_dict(held.get("dns"))
    if held.get("boot") != BOOT_ID.read_text().strip():
        dns.revert_after_boot(change)
    elif isinstance(interface, str) and interface.startswith(routing.INTERFACE_PREFIX):
        now = routing.interface_index(interface)
        dns.revert(change)
        if now == 0 or not index or now == index:
            routing.clear_routes(routing.interface_number(interface))
            routing.delete_link(interface)
        _clear_routes_of(held.get("lost_interfaces"))
    recovery_file.unlink(missing_ok=True)


def _clear_routes_of(names: object) -> None:
    """Remove the tables of lost interfaces. Where a link has such a name again, the tables are that link's."""
    for name in names if isinstance(names, (list, set)) else ():
        if isinstance(name, str) and name.startswith(routing.INTERFACE_PREFIX) and not routing.interface_index(name):
            routing.clear_routes(routing.interface_number(name))


def _path_mtu(address: str, port: int) -> int:
    """The path MTU (bytes) to an address as the kernel knows it: the interface's, the route's, or what a router on the
    path has said. 0 when there is no route. The route is that of our marked packets, outside every tunnel."""
    six = ":" in address
    try:
        with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, SOCKET_MARK)
            probe.connect((address, port))  # a routing decision; nothing is sent
            level, option = (socket.IPPROTO_IPV6, IPV6_MTU) if six else (socket.IPPROTO_IP, IP_MTU)
            return probe.getsockopt(level, option)
    except OSError:
        return 0


def _strict_reverse_path() -> bool:
    conf = Path("/proc/sys/net/ipv4/conf")
    values = {entry: (conf / entry / "rp_filter") for entry in os.listdir(conf)}
    every = int(values["all"].read_text()) if "all" in values else 0
    return any(max(every, int(path.read_text())) == 1 for name, path in values.items() if name not in ("all", "lo"))
