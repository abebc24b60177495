"""One server on two hosts and its control side on a third machine, everything real; hosts that are killed and links
that are cut; and who carries a client's packets, all the time."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from core import clock
from core.crypto import Secret
from servers import heartbeats
from servers.models import Host, Route, Server, ServerHost
from tests.lab import HANGING, Echo, Lab, Machine, RedisServer, until
from tests.protocol_client import VECTORS, another_rsa_key
from tests.stack import HostWorker, Stack, WgPeer
from users import certificates
from users.models import Organization, VpnUser
from wgpeers.models import Connection, State
from wgpeers.profiles import links

# On the internet, reached through the tunnel; there each host looks like itself.
FAR, FAR6, PORT = "203.0.113.9", "2001:db8:9::9", 7000
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"


def kill_all(machine: Machine) -> None:
    """SIGKILL to every process there, the tunnels' included, and what no process holds goes too."""
    holder = machine.pid  # of the machine itself, with a process of its own
    children = set(map(int, Path(f"/proc/{holder}/task/{holder}/children").read_text().split()))
    for pid in set(machine.processes()) - {holder} - children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for link in machine.ip("-o", "link", "show", "type", "wireguard").splitlines():
        machine.ip("link", "del", link.split()[1].rstrip(":"))
    machine.run("nft", "flush", "ruleset")
    machine.run("sh", "-c", "rm -f /run/wireguard/*.sock")


class Gate:
    """A host: its machine with host worker, front and gateway web. ``api``: what stands for the API in URLs."""

    def __init__(self, lab: Lab, redis: RedisServer, environment: Mapping[str, str], api: str) -> None:
        self.machine = lab.add_host()
        self.row = Host.objects.create(
            name=f"gate-{self.machine.address}",
            public_address=self.machine.address,
            public_address6=self.machine.address6,
        )
        self._internet = lab.internet
        self._redis = redis
        self._environment = environment
        self._api = api
        self._running = contextlib.ExitStack()
        self._var = Path(tempfile.mkdtemp(prefix="vpn-gate-"))
        self.log = self._var / f"host-{self.row.public_id}.log"  # of its worker

    def start(self) -> None:
        """All of it, as after the machine's start."""
        made = Stack(self.machine, self._redis, self._environment, name=self._api, pings_only=True)
        self._running.enter_context(made)
        self.worker = HostWorker(self.machine, self.row.public_id, self._redis.url, self._var)
        self.worker.start()
        self._running.callback(self.worker.kill)

    def takes_clients(self) -> bool:
        has_tunnel = "wgs" in self.machine.ip("-o", "link", "show", "up")
        return has_tunnel and self.row.pk in heartbeats.fresh([self.row])

    def kill(self) -> None:
        kill_all(self.machine)
        self._running.close()

    def cut(self) -> None:
        """Nothing gets to the machine or from it any more; all that runs there goes on."""
        self._internet.ip("link", "set", self.machine.port, "down")

    def mend(self) -> None:
        self._internet.ip("link", "set", self.machine.port, "up")

    def close(self) -> None:
        self._running.close()
        shutil.rmtree(self._var, ignore_errors=True)


class Traffic:
    """Asks far away, through the tunnel of ``peer``, many times a second. ``answers``: when each came (seconds of
    ``time.monotonic``) and which machine it looked like there."""

    def __init__(self, peer: WgPeer, far: str = FAR, every: float = 0.05) -> None:
        family = socket.AF_INET6 if ":" in far else socket.AF_INET
        self._socket = peer.machine.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
        self._far = far
        self._every = every
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answers: list[tuple[float, str]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(HANGING)
        self._socket.close()

    def since(self, moment: float, not_by: str = "") -> float:
        """Seconds from ``moment`` to the first answer after it that ``not_by`` has not carried; 0 while there is
        none."""
        return next((at - moment for at, by in list(self.answers) if at > moment and by != not_by), 0.0)

    def carrier(self) -> str:
        """The address of the machine that carries it now."""
        count = len(self.answers)
        until(lambda: len(self.answers) > count)
        return self.answers[-1][1]

    def _run(self) -> None:
        while not self._ending.is_set():
            due = time.monotonic() + self._every
            with contextlib.suppress(OSError):  # no way, or nothing came in time
                self._socket.sendto(b"?", (self._far, PORT))
                while (left := due - time.monotonic()) > 0:
                    self._socket.settimeout(left)
                    by = self._socket.recv(2048).partition(b" ")[0].decode()
                    self.answers.append((time.monotonic(), by))
            self._ending.wait(max(0.0, due - time.monotonic()))


@dataclass
class World:
    """``api`` is on the machine ``control``."""

    lab: Lab
    redis: RedisServer
    environment: Mapping[str, str]
    api: str
    closing: contextlib.ExitStack
    control: Machine = field(init=False)
    stack: Stack = field(init=False)
    gates: list[Gate] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lab.add_far_address(FAR, FAR6)
        for address in (FAR, FAR6):
            self.closing.enter_context(Echo(self.lab.internet, address, PORT))
        self.control = self.lab.add_host()
        if ":" not in self.api:
            self.control.ip("addr", "add", f"{self.api}/24", "dev", "wan")
        self.stack = Stack(self.control, self.redis, self.environment, ipv6=True, name=self.api)
        self.closing.enter_context(self.stack)

    def server(self, number: int, ping_interval: int) -> Server:
        """A server with an organization of its own."""
        ca = certificates.make_ca("Acme", another_rsa_key(), clock.moment(time.time()))
        made = Server.objects.create(
            name=f"Office {number}",
            network=f"10.8.{number}.0/24",
            wg_network=f"10.9.{number}.0/24",
            network6=f"fd09:{number}::/64",
            port=51820 + number,
            ipv6=True,
            started=True,
            ping_interval=ping_interval,
        )
        made.organizations.add(Organization.objects.create(name=f"Acme {number}", ca_certificate=ca))
        for network in (f"{FAR}/32", f"{FAR6}/128"):
            Route.objects.create(server=made, network=network, nat=True)
        return made

    def add_gate(self, server: Server, api: str = "") -> Gate:
        gate = Gate(self.lab, self.redis, self.environment, api or self.api)
        self.gates.append(gate)
        self.closing.callback(gate.close)
        ServerHost.objects.create(server=server, host=gate.row)
        gate.start()
        self.wait(lambda: gate.takes_clients() and not ServerHost.objects.filter(public_key="").exists())
        return gate

    def hire(self, server: Server, name: str) -> tuple[VpnUser, WgPeer]:
        """A user with a key, and their machine with the profile imported by its link."""
        user = VpnUser.objects.create(
            organization=server.organizations.get(),
            name=name,
            public_key=VECTORS["user_public_key"],
            private_key=Secret.of(VECTORS["user_private_key_pkcs8"]),
            certificate=CERTIFICATE,
        )
        link = links.create(user, time.time())
        peer = WgPeer(self.lab.add_client(), self.stack.directory)
        peer.add(f"pritunl://{self.api}/ku/{link.short_id.reveal()}")
        return user, peer

    def live(self, user: VpnUser) -> Connection:
        """The one that was opened last."""
        return Connection.objects.filter(user=user, state=State.OPEN).latest("pk")

    def wait(self, condition: Callable[[], object]) -> object:
        try:
            return until(condition, every=0.1)
        except TimeoutError:
            print(self.stack.log(), *(gate.log.read_text()[-3000:] for gate in self.gates), sep="\n", file=sys.stderr)
            raise
