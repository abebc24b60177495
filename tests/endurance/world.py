"""The installation, its rows and its clients."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Self

from core.crypto import Secret
from servers import networks, services
from servers.models import Host, Server, ServerHost
from tests.host.test_run_whole import PROGRAMS, STARTED, Installation
from tests.lab import KeyPair, Lab, Machine, Pinger, Tunnel, until
from tests.protocol_client import VECTORS, Identity
from tests.stack import GATEWAY_PORT, WgPeer
from users.models import Group, Organization, VpnUser
from vpnproject.runner import probes, processes
from wgpeers.profiles import links

from . import passcodes
from .admin import CREW, OFFICE_SERVER, YARD_SERVER
from .asking import TLS, Way
from .clients import Client, OwnTunnel
from .far_host import FarHost, ends_of_links
from .faults import main_process
from .plan import CAREFUL, MOVING, REAL, STEADY, STEADY_TUNNELS, YARD
from .record import Record

# The shortest interval there is, and a timeout that a whole restart of the product fits into.
PING_INTERVAL, PING_TIMEOUT = 5, 30
PACKET_EVERY = 0.2  # seconds
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
PUBLIC_PORT = 443


class World:
    """Entered, all of it runs and the steady clients are connected."""

    def __init__(self, directory: Path, record: Record) -> None:
        self.directory = directory
        self.record = record
        self.clients: dict[str, Client] = {}
        self.pingers: dict[str, Pinger] = {}
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._closing.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _build(self) -> None:
        self.lab = self._closing.enter_context(Lab())
        self.installation = Installation(self.lab.add_host(), self.directory)
        self._closing.callback(self._kill_left)
        self.installation.start()
        self.installation.started()
        self._make_rows()
        self.far = FarHost(self.lab, self.directory)
        self.far.join(self.installation.machine)
        self.far.link(self.server)
        until(self._hosts_are_well, timeout=STARTED, every=0.2)
        for number, name in enumerate((*STEADY, *MOVING), start=1):
            self._add_client(name, number)
        self.real = self._closing.enter_context(contextlib.closing(_Real(self)))
        for name in STEADY:
            self.clients[name].wanted = True
        for client in self.clients.values():
            client.start()
            self._closing.callback(client.stop)
        until(self._all_connected, timeout=STARTED, every=0.2)
        machines = {name: self.clients[name].gateway.machine for name in STEADY_TUNNELS} | {REAL: self.real.machine}
        for name, machine in machines.items():
            self.pingers[name] = Pinger(machine, self.gateway, PACKET_EVERY)
            self.pingers[name].__enter__()

    def _hosts_are_well(self) -> bool:
        ends = ends_of_links(self.installation.machine, self.far.machine)
        return len(ends) == 2 and not any(host.conditions for host in Host.objects.all())

    def _all_connected(self) -> bool:
        return all(self.clients[name].pinged for name in STEADY) and bool(self.real.peer.connected())

    # Rows

    def _make_rows(self) -> None:
        self.server = Server.objects.get(name=OFFICE_SERVER)
        self.server.ping_interval, self.server.ping_timeout = PING_INTERVAL, PING_TIMEOUT
        self.server.save()
        self.organization = Organization.objects.get()
        self.crew = Group.objects.create(name=CREW)
        self.yard = self._make_yard(Host.objects.get())
        self.gateway = networks.address(self.server.wg_network, networks.GATEWAY_HOST_PART)
        until(lambda: ServerHost.objects.filter(public_key="").count() == 0, every=0.2)

    def _make_yard(self, host: Host) -> Server:
        yard = Server(
            name=YARD_SERVER,
            network="10.200.0.0/24",
            wg_network="10.201.0.0/24",
            port=self.server.port + 1,
            ping_interval=PING_INTERVAL,
            ping_timeout=PING_TIMEOUT,
            started=True,
        )
        yard.full_clean(exclude=["box_private_key"])
        yard.save()
        yard.organizations.add(self.organization)
        yard.groups.add(self.crew)
        services.ask_first_factors(yard)
        ServerHost.objects.create(server=yard, host=host)
        return yard

    def hire(self, name: str, *, with_key: bool = True) -> VpnUser:
        """A user whose key is there already: made for each of them, it would take the time of the whole start."""
        user = VpnUser(organization=self.organization, name=name)
        if with_key:
            user.public_key, user.certificate = VECTORS["user_public_key"], CERTIFICATE
            user.private_key = Secret.of(VECTORS["user_private_key_pkcs8"])
        user.save()
        if name in YARD:
            user.groups.add(self.crew)
        return user

    # Clients

    def _add_client(self, name: str, number: int) -> None:
        user, server = self.hire(name), self.yard if name in YARD else self.server
        identity = Identity(
            *(self.organization.public_id, user.public_id, server.public_id),
            *(user.sync_token.reveal(), user.sync_secret.reveal(), server.box_public_key),
        )
        host = self.installation.machine
        out, follow = self.lab.internet, None
        # On the host itself gateway web is open to whoever comes from there: by that way most pings come.
        gateway = Way(host, "127.0.0.1", source=f"127.0.1.{number}")
        if name in STEADY_TUNNELS:
            out = self.lab.add_client()
            follow = OwnTunnel(out, Tunnel(out, KeyPair.make(), [])).follow
            gateway = Way(out, self.gateway)
        door = Way(out, host.address, PUBLIC_PORT, tls=TLS)
        self.clients[name] = Client(name, identity, door, gateway, PING_TIMEOUT, self.record, on_connected=follow)
        if name in CAREFUL:
            self.clients[name].passcodes = passcodes.enrol(user)

    def held(self) -> frozenset[str]:
        """The keys that somebody keeps alive; what the real client has is its own to know."""
        return frozenset(client.held for client in self.clients.values() if client.held)

    # The end

    def is_up(self) -> bool:
        """Whether every program runs, and web and gateway web answer."""
        running, ours = self.installation.process, self.installation.ours()
        if running is None or running.poll() is not None or not all(main_process(ours, name) for name in PROGRAMS):
            return False
        return bool(self.installation.machine.call(_both_answer))

    def lost_packets(self) -> dict[str, list[float]]:
        """When each packet that got no answer was sent, by client. Ends the sending."""
        for pinger in self.pingers.values():
            pinger.__exit__(None, None, None)
        return {name: pinger.lost_at for name, pinger in self.pingers.items()}

    def end(self) -> None:
        """Stop everything as Ctrl-C does; nothing may be left."""
        for client in self.clients.values():
            client.stop()
        self.real.close()
        self.far.end()
        self.installation.stop()
        self.installation.assert_nothing_left()

    def _kill_left(self) -> None:
        if self.installation.process is not None and self.installation.process.poll() is None:
            self.installation.kill()
        left = self.installation.ours()
        processes.end(left, self.installation.instance() if left else "", grace=0)


class _Real:
    """The client of this project, connected by a link."""

    def __init__(self, world: World) -> None:
        self.machine: Machine = world.lab.add_client()
        self.peer = WgPeer(self.machine, world.directory)
        link = links.create(world.hire(REAL), time.time())
        self.peer.add(f"pritunl://{world.installation.machine.address}/ku/{link.short_id.reveal()}")
        self.peer.up()

    def close(self) -> None:
        self.peer.end()


def _both_answer() -> bool:
    return probes.web_answers(PUBLIC_PORT) and probes.gateway_answers(GATEWAY_PORT)
