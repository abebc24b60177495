"""The whole tunnel on this machine: made, changed and taken away again, also what an earlier process left behind."""

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
    FREE_LOOKS,
    HANDSHAKE_LOOK,
    HANDSHAKE_LOOKS,
    HANDSHAKES,
    MTU_MAX,
    MTU_MIN,
    SOCKET_MARK,
    TUNNEL_COST,
)
from wgpeer.envelope import unb64
from wgpeer.responses import Configuration
from wgpeer.session import TunnelError
from wgpeer.store import read_json, write
from wgpeer.tunnel import dns, routing
from wgpeer.tunnel.backend import Backend, BackendError, Wanted
from wgpeer.tunnel.dns import Names, Record
from wgpeer.tunnel.kernel import KernelBackend
from wgpeer.tunnel.split_tunnel import Split
from wgpeer.tunnel.split_tunnel import split as split_routes
from wgpeer.tunnel.userspace import UserspaceBackend, socket_answers

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
IP_MTU, IPV6_MTU = 14, 24  # socket options that the socket module has no names for
BACKENDS: dict[str, tuple[type[KernelBackend] | type[UserspaceBackend], ...]] = {
    "auto": (KernelBackend, UserspaceBackend),
    "kernel": (KernelBackend,),
    "userspace": (UserspaceBackend,),
}


@dataclass(slots=True)
class MachineTunnel:
    """``lease`` is the file that remembers what we made: written before it is made, so that a crash leaves a trace.
    ``resolve`` gives the addresses of a host name; ``wait`` waits for seconds (and may raise to end it all)."""

    lease: Path
    resolve: Callable[[str], list[str]]
    say: Callable[[str], None]
    wait: Callable[[float], None] = time.sleep
    choice: str = "auto"
    interface: str = ""
    dns: str = ""
    routes: str = ""
    mtu: int = 0
    _backend: Backend | None = None
    _record: Record = field(default_factory=Record)
    _everything: bool = False
    _index: int = 0
    _former: set[str] = field(default_factory=set)  # names we lost; their tables still hold back what they carried

    @property
    def backend(self) -> str:
        return self._backend.name if self._backend else ""

    def up(self, configuration: Configuration, key: PrivateKey, *, use_dns: bool, use_default_route: bool) -> str:
        """Make the machine so, whatever it was before. Raises ``TunnelError``."""
        endpoint, path_mtu = self._endpoint(configuration)
        split = split_routes(configuration.routes, configuration.gateway, use_default_route=use_default_route)
        wanted = Wanted(
            private_key=bytes(key),
            mark=SOCKET_MARK,
            peer_key=unb64(configuration.public_key, 32),
            endpoint=endpoint,
            port=configuration.port,
            allowed_ips=split.allowed_ips,
        )
        self.mtu, self.routes = configuration.mtu or path_mtu, split.words
        self._everything = bool(split.everything)
        try:
            backend = self._ready()
            backend.configure(self.interface, wanted)
            routing.set_link(self.interface, configuration.addresses, self.mtu)
            routing.set_routes(self.interface, split)
            self._clear_former()
            self._shake_hands(backend, wanted, configuration.gateway)
        except (BackendError, NetlinkError, OSError) as error:
            raise TunnelError(f"the tunnel cannot be built: {error}") from error
        self._warn(configuration, split)
        self._set_dns(configuration, split, use_dns=use_dns)
        return f"[{endpoint}]:{configuration.port}" if ":" in endpoint else f"{endpoint}:{configuration.port}"

    def down(self) -> None:
        """Take away everything that was made."""
        sweep(self.lease)
        self.interface, self.dns, self.routes, self.mtu, self._backend = "", "", "", 0, None
        self._record, self._index, self._former = Record(), 0, set()

    def _shake_hands(self, backend: Backend, wanted: Wanted, gateway: str) -> None:
        """Begin the handshake now, and begin it again should it be lost: WireGuard itself would wait 5 s to do so, in
        which nothing gets through. A host that stays silent is for the first ping to judge."""
        for attempt in range(HANDSHAKES):
            if attempt:
                backend.configure(self.interface, wanted)  # the peer anew, and so a new handshake at once
            routing.poke(self.interface, gateway)
            for _ in range(HANDSHAKE_LOOKS):
                if backend.last_handshake(self.interface):
                    return
                self.wait(HANDSHAKE_LOOK)

    def _set_dns(self, configuration: Configuration, split: Split, *, use_dns: bool) -> None:
        names = Names(
            configuration.dns_servers if use_dns else (),
            configuration.search_domains,
            configuration.routing_domains,
            everything=self._everything,
        )
        if not names.servers:
            dns.restore(self._record)  # the last host had some, this one has none
            self.dns, self._record = "", Record()
            return
        index = routing.index_of(self.interface)

        def before(record: Record) -> None:
            if (self._record.manager, self._record.name) != (record.manager, record.name):
                dns.restore(self._record)  # of an interface that is no more, or another manager
            self._record = record
            self._write_lease(self.interface, index)

        self.dns = dns.apply(self.interface, index, names, before)
        astray = [server for server in names.servers if not split.carries(server)]
        if astray:
            self.dns += f"; {', '.join(astray)} is in no route of the tunnel, so it may not answer"

    def _ready(self) -> Backend:
        """The backend, with the interface there: also when somebody deleted it, or its process died."""
        if self._backend and self._is_whole():
            return self._backend
        # Only the interface is made anew. Its tables and rules stay: what would have gone through it must not leave
        # by another way meanwhile.
        held = self.interface
        if held:
            if routing.index_of(held) == self._index:
                routing.delete_link(held)
            if not self._is_free(held):
                self._former.add(held)
                held = ""
        return self._create(held)

    def _clear_former(self) -> None:
        _clear_lost(self._former)
        if self._former:
            self._former = set()
            self._write_lease(self.interface, self._index)

    def _create(self, held: str) -> Backend:
        problem = BackendError("no free interface name")
        for kind in BACKENDS[self.choice]:
            backend: Backend = kind()
            for name in [held] if held else self._candidates():
                self._write_lease(name, 0)
                try:
                    backend.create(name)
                except BackendError as error:
                    problem = error
                    if name in self._candidates():  # not taken by somebody quicker: this backend does not work here
                        break
                    continue
                self.interface, self._index, self._backend = name, routing.index_of(name), backend
                self._write_lease(name, self._index)
                return backend
        if not held and not self._former:
            self.lease.unlink(missing_ok=True)
        raise problem

    def _is_free(self, name: str) -> bool:
        """Wait a moment for a process of a deleted interface to end: it takes its socket's file with it, and must not
        take that of the next one."""
        for _ in range(FREE_LOOKS):
            if not socket_answers(name) and not routing.index_of(name):
                return True
            self.wait(HANDSHAKE_LOOK)
        return False

    def _is_whole(self) -> bool:
        # Asked first whether the interface is ours: without it, its socket may answer from another namespace, served by
        # a process that took the name since.
        if self._backend is None or not self._index or routing.index_of(self.interface) != self._index:
            return False
        try:
            return self._backend.last_handshake(self.interface) >= 0
        except BackendError:
            return False

    @staticmethod
    def _candidates() -> list[str]:
        # UAPI sockets are files, shared by network namespaces: a name can be taken where no link of it is seen.
        return [name for name in routing.free_names() if not socket_answers(name)][:10]

    def _write_lease(self, interface: str, index: int) -> None:
        boot = BOOT_ID.read_text().strip()
        held = {"interface": interface, "index": index, "boot": boot, "dns": self._record.as_dict()}
        write(self.lease, json.dumps(held | {"former": sorted(self._former)}))

    def _endpoint(self, configuration: Configuration) -> tuple[str, int]:
        """The first address of the host that this machine has a way to, and the tunnel's MTU on that way."""
        found = self._way_to(configuration)
        if not found and self._record.manager and not self._everything:
            # Perhaps a name that is new to us, while the name servers we set are behind the very tunnel that died.
            # Where everything goes through it they stay: no name of any program may leave by another way.
            dns.restore(self._record)
            self.dns, self._record = "", Record()
            found = self._way_to(configuration)
        if found:
            return found
        shown = " or ".join(configuration.endpoints)
        why = "; its name may be known only by name servers within the tunnel" if self._record.manager else ""
        raise TunnelError(f"there is no way to the host {shown} from here{why}")

    def _way_to(self, configuration: Configuration) -> tuple[str, int] | None:
        for name in configuration.endpoints:
            for address in self.resolve(name):
                if outer := _path_mtu(address, configuration.port):
                    return address, max(MTU_MIN, min(outer - TUNNEL_COST, MTU_MAX))
        return None

    def _warn(self, configuration: Configuration, split: Split) -> None:
        if configuration.network_links:
            shown = ", ".join(configuration.network_links)
            self.say(f"the server routes {shown} to this machine; let it forward them if that is meant (ip_forward)")
        if any(":" in address for address in configuration.addresses) and not routing.has_ipv6(self.interface):
            self.say(
                f"IPv6 does not work on {self.interface} (switched off in net.ipv6.conf, or an MTU below 1280), so "
                "what should go through the tunnel over IPv6 goes nowhere"
            )
        if split.everything and _strict_reverse_path():
            self.say(
                "rp_filter is strict (1) on this machine: answers of the host would be dropped while all traffic goes "
                "through the tunnel. Set net.ipv4.conf.all.rp_filter=2"
            )


def sweep(lease: Path) -> None:
    """Take away what a lease names. Nothing else: an interface that has since become another's is left alone."""
    held = read_json(lease)
    interface, index = held.get("interface"), held.get("index")
    record = Record.from_dict(held.get("dns"))
    if held.get("boot") != BOOT_ID.read_text().strip():
        dns.restore_after_boot(record)
    elif isinstance(interface, str) and interface.startswith(routing.PREFIX):
        now = routing.index_of(interface)
        dns.restore(record)
        if now == 0 or not index or now == index:
            routing.clear_routes(routing.number_of(interface))
            routing.delete_link(interface)
        _clear_lost(held.get("former"))
    lease.unlink(missing_ok=True)


def _clear_lost(names: object) -> None:
    """Tables of interfaces that are no more. Where a link has such a name again, they are that link's."""
    for name in names if isinstance(names, (list, set)) else ():
        if isinstance(name, str) and name.startswith(routing.PREFIX) and not routing.index_of(name):
            routing.clear_routes(routing.number_of(name))


def _path_mtu(address: str, port: int) -> int:
    """What the way to an address carries in one packet, as the kernel knows it: the interface's MTU, the route's, or
    what a router on the way has said. 0 when there is no way. The way is that of our marked packets, outside every
    tunnel."""
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
