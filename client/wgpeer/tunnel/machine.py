"""The whole tunnel on this machine: made, changed and taken away again, also what an earlier process left behind."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nacl.public import PrivateKey
from pyroute2.netlink.exceptions import NetlinkError

from wgpeer.answers import Configuration
from wgpeer.constants import SOCKET_MARK
from wgpeer.envelope import unb64
from wgpeer.session import TunnelError
from wgpeer.store import read_json, write
from wgpeer.tunnel import dns, routing
from wgpeer.tunnel.base import Backend, BackendError, Wanted
from wgpeer.tunnel.kernel import KernelBackend
from wgpeer.tunnel.userspace import UserspaceBackend, socket_answers

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
BACKENDS: dict[str, tuple[type[KernelBackend] | type[UserspaceBackend], ...]] = {
    "auto": (KernelBackend, UserspaceBackend),
    "kernel": (KernelBackend,),
    "userspace": (UserspaceBackend,),
}


@dataclass(slots=True)
class MachineTunnel:
    """``lease`` is the file that remembers what we made: written before it is made, so that a crash leaves a trace.
    ``resolve`` gives the addresses of a host name."""

    lease: Path
    resolve: Callable[[str], list[str]]
    say: Callable[[str], None]
    choice: str = "auto"
    interface: str = ""
    dns: str = ""
    _backend: Backend | None = None

    @property
    def backend(self) -> str:
        return self._backend.name if self._backend else ""

    def up(self, configuration: Configuration, key: PrivateKey, *, use_dns: bool, use_default_route: bool) -> str:
        """Make the machine so, whatever it was before. Raises ``TunnelError``."""
        endpoint = self._endpoint(configuration)
        split = routing.split(configuration.routes, configuration.gateway, use_default_route=use_default_route)
        wanted = Wanted(
            private_key=bytes(key),
            mark=SOCKET_MARK,
            peer_key=unb64(configuration.public_key, 32),
            endpoint=endpoint,
            port=configuration.port,
            allowed_ips=split.allowed_ips,
        )
        try:
            backend = self._ready()
            backend.configure(self.interface, wanted)
            routing.set_link(self.interface, configuration.addresses, configuration.mtu)
            routing.set_routes(self.interface, split)
        except (BackendError, NetlinkError, OSError) as error:
            raise TunnelError(f"the tunnel cannot be built: {error}") from error
        self._warn(configuration, split)
        servers = configuration.dns_servers if use_dns else ()
        if self.dns and not servers:
            dns.restore(self.interface)  # the last host had some, this one has none
        self.dns = dns.apply(self.interface, servers, configuration.search_domains)
        return f"[{endpoint}]:{configuration.port}" if ":" in endpoint else f"{endpoint}:{configuration.port}"

    def down(self) -> None:
        """Take away everything that was made."""
        sweep(self.lease)
        self.interface, self.dns, self._backend = "", "", None

    def _ready(self) -> Backend:
        """The backend, with the interface there: also when somebody deleted it, or its process died."""
        if self._backend and self._is_whole():
            return self._backend
        self.down()
        problem = BackendError("no free interface name")
        for kind in BACKENDS[self.choice]:
            backend: Backend = kind()
            for name in self._candidates():
                self._write_lease(name, 0)
                try:
                    backend.create(name)
                except BackendError as error:
                    problem = error
                    if name in self._candidates():  # not taken by somebody quicker: this backend does not work here
                        break
                    continue
                self._write_lease(name, routing.index_of(name))
                self.interface, self._backend = name, backend
                return backend
        self.lease.unlink(missing_ok=True)
        raise problem

    def _is_whole(self) -> bool:
        if self._backend is None:
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
        write(self.lease, json.dumps({"interface": interface, "index": index, "boot": boot}))

    def _endpoint(self, configuration: Configuration) -> str:
        """The first address of the host that this machine has a way to."""
        for name in configuration.endpoints:
            for address in self.resolve(name):
                if _reachable(address, configuration.port):
                    return address
        raise TunnelError(f"there is no way to the host {' or '.join(configuration.endpoints)} from here")

    def _warn(self, configuration: Configuration, split: routing.Split) -> None:
        if configuration.network_links:
            shown = ", ".join(configuration.network_links)
            self.say(f"the server routes {shown} to this machine; let it forward them if that is meant (ip_forward)")
        if split.everything and _strict_reverse_path():
            self.say(
                "rp_filter is strict (1) on this machine: answers of the host would be dropped while all traffic goes "
                "through the tunnel. Set net.ipv4.conf.all.rp_filter=2"
            )


def sweep(lease: Path) -> None:
    """Take away what a lease names. Nothing else: an interface that has since become another's is left alone."""
    held = read_json(lease)
    interface, index = held.get("interface"), held.get("index")
    same_boot = held.get("boot") == BOOT_ID.read_text().strip()
    if same_boot and isinstance(interface, str) and interface.startswith(routing.PREFIX):
        now = routing.index_of(interface)
        if now == 0 or not index or now == index:
            dns.restore(interface)
            routing.clear_routes(routing.number_of(interface))
            routing.delete_link(interface)
    lease.unlink(missing_ok=True)


def _reachable(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, SOCKET_MARK)
            probe.connect((address, port))  # a routing decision; nothing is sent
    except OSError:
        return False
    return True


def _strict_reverse_path() -> bool:
    conf = Path("/proc/sys/net/ipv4/conf")
    values = {entry: (conf / entry / "rp_filter") for entry in os.listdir(conf)}
    every = int(values["all"].read_text()) if "all" in values else 0
    return any(max(every, int(path.read_text())) == 1 for name, path in values.items() if name not in ("all", "lo"))
