"""One host with two servers, clients, and networks behind it; a real host worker, Redis and WireGuard."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from django.conf import settings
from django.test import TransactionTestCase
from pytest_django import DjangoDbBlocker

from servers.hostnet.agent.decoding import SHOW_PLAN
from servers.hostnet.state import HostState, Interface, Mesh, Peer, Remote, Route, ShowPlan, to_json
from tests import emptying
from tests.conftest import send_celery_to
from tests.host.control import Control
from tests.lab import HANGING, PROJECT, PYTHON, KeyPair, Lab, Machine, RedisServer, Tunnel, ended_afterwards, until
from vpnproject.runner import privileges

HOST_ID = "h1"
WEB_PORT = 9790
# What a host may do in Redis: everything to its own keys, nothing to any other.
HOST_USER = ("host1", "on", ">hostsecret", f"~host.{HOST_ID}*", "resetchannels", "+@all", "-@admin", "-@dangerous")

ONE = Interface(
    name="wgs1",
    server="one",
    port=51820,
    addresses=("10.9.0.1/24", "fd01::1/64"),
    mtu=0,
    inter_client=False,
    ping_timeout=360,
    routes=(Route("10.50.0.0/24", True), Route("2001:db8:50::/64", True), Route("10.52.0.0/24", False)),
    peers=(),
)
TWO = Interface("wgs2", "two", 51821, ("10.10.0.1/24",), 1380, False, 360, (Route("0.0.0.0/0", True),), ())


@dataclass(frozen=True, slots=True)
class Session:
    """When a peer shook hands, and when that was read; Unix seconds."""

    shaken: int
    read: float


@dataclass
class World:
    """The host ``host`` with its worker, and what this test's control side believes to be open on it."""

    lab: Lab
    host: Machine
    redis: RedisServer
    control: Control
    directory: Path
    interfaces: dict[str, Interface] = field(default_factory=lambda: {"one": ONE, "two": TWO})
    peers: dict[str, tuple[str, Peer]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    mesh: Mesh | None = None
    remotes: tuple[Remote, ...] = ()
    others: tuple[tuple[str, int], ...] = ()
    version: int = 0
    boot: str = ""
    worker: subprocess.Popen[bytes] | None = None
    # With no more rights than the product gives it.
    command: tuple[str | Path, ...] = privileges.wrapped("host", [str(PYTHON), "-m", "servers.hostnet"])
    cwd: Path = PROJECT

    def environment(self) -> dict[str, str]:
        return {
            "HOST_ID": HOST_ID,
            "HOST_REDIS_URL": self.redis.url.replace("unix://", "unix://host1:hostsecret@"),
            "HOST_VAR": str(self.directory / "var"),
            "HOSTNET_BACKEND": "userspace",
            "VPN_GATEWAY_PORT": str(WEB_PORT),
        }

    @property
    def log(self) -> Path:
        return self.directory / "worker.log"

    def start_worker(self) -> None:
        """Start it, take its hello, answer with a full state, and wait until that is applied."""
        self.launch()
        self.greet()

    def launch(self) -> None:
        # As bin/run does: the worker itself may not.
        self.host.run(PYTHON, "-c", "from servers.hostnet.dns import unbound; unbound.make_directories()")
        self.worker = self.host.start(*self.command, env=self.environment(), log=self.log, cwd=self.cwd)

    def greet(self) -> dict[str, object]:
        """Answer the next hello; return the report of the full state."""
        self.boot = self.control.report("hello")["boot"]
        return self.send_full()

    def kill_worker(self) -> None:
        assert self.worker is not None
        os.kill(self.worker.pid, signal.SIGKILL)
        self.worker.wait(HANGING)

    def state(self) -> HostState:
        interfaces = tuple(
            dataclasses.replace(i, peers=tuple(peer for server, peer in self.peers.values() if server == i.server))
            for i in self.interfaces.values()
        )
        return HostState(
            HOST_ID,
            self.version,
            self.boot,
            WEB_PORT,
            interfaces,
            mesh=self.mesh,
            remotes=self.remotes,
            others=self.others,
        )

    def ask_plan(self, state: HostState) -> dict[str, list[str]]:
        """What the host would do with ``state``, as ``{"lines": …}``, or why it cannot say, as ``{"error": …}``."""
        confirm = f"{self.control.prefix}:plan:{secrets.token_hex(8)}"
        self.control.send_raw(SHOW_PLAN, to_json(ShowPlan(state, confirm)))
        answer: dict[str, list[str]] = json.loads(self.control.answer(confirm))
        return answer

    def send_full(self) -> dict[str, object]:
        """Send a full state of a new version; return the report of its being applied, in which nothing failed."""
        self.version += 1
        self.control.send(self.state())
        report = self.control.report("applied", version=self.version)
        # Tests put other firewalls beside ours and damage ours again and again, which is no failure.
        assert {each["code"] for each in report["conditions"]} <= {"foreign_firewall", "contested"}
        self.keys = report["keys"]
        return report

    def drift_found(self, words: str) -> list[str]:
        """Send a full state; all that was found changed by others until it was applied and ``words`` were said, be it
        with this state or because the host saw it happen."""
        self.version += 1
        self.control.send(self.state())
        found: list[str] = []
        applied = False
        while not applied or words not in "\n".join(found):
            report = self.control.report("applied", "repaired")
            found += report["drift"]
            applied |= report["kind"] == "applied" and report["version"] == self.version
        return found

    def make_peer(self, server: str, connection: str, *addresses: str, keys: KeyPair | None = None) -> Peer:
        """A new open connection, in the database as it were; the host is not told."""
        self.version += 1
        peer = Peer(connection, self.version, (keys or KeyPair.make()).public, addresses)
        self.peers[connection] = (server, peer)
        return peer

    def connect(self, client: Machine, server: str, connection: str, *addresses: str, routes: list[str]) -> Tunnel:
        """A connect as a whole: row, confirmed message, and the client's tunnel (``addresses`` without length)."""
        keys = KeyPair.make()
        peer = self.make_peer(server, connection, *(f"{a}/{128 if ':' in a else 32}" for a in addresses), keys=keys)
        answer = self.control.add(server, peer)
        assert answer == "ok", self.log.read_text()[-2000:]
        tunnel = Tunnel(client, keys, [f"{a}/{64 if ':' in a else 24}" for a in addresses])
        port = self.interfaces[server].port
        tunnel.connect(self.keys[server], f"{self.host.address}:{port}", routes)
        return tunnel

    def shown(self, interface: str, what: str) -> dict[str, str]:
        """``wg show``: by peer key, e.g. its ``latest-handshakes``."""
        lines = self.host.run("wg", "show", interface, what).stdout.splitlines()
        return {key: value for key, _, value in (line.partition("\t") for line in lines)}

    def session(self, connection: str) -> Session:
        """The session that a connection has now."""
        server, peer = self.peers[connection]
        shaken = int(self.shown(self.interfaces[server].name, "latest-handshakes")[peer.public_key])
        return Session(shaken, time.time())

    def goes_on(self, connection: str, before: Session) -> bool:
        """Whether nothing that was done since ``before`` ended that session. By itself it is renewed after 120 s, and
        begun anew when there was no answer for 15 s, which a busy machine may take."""
        now = self.session(connection).shaken
        return now == before.shaken or now - before.shaken >= 115 or now - before.read >= 14


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A host whose worker runs and has taken its first full state: two servers, no peers."""
    with world_of(World.command, World.cwd) as world:
        yield world


@contextlib.contextmanager
def world_of(command: tuple[str | Path, ...], cwd: Path) -> Iterator[World]:
    """``world`` with the worker that ``command`` starts in ``cwd``."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="host-test-")))
        # What the worker said is shown with a test that fails.
        stack.callback(lambda: print((directory / "worker.log").read_text()[-20_000:]))
        redis = stack.enter_context(RedisServer(users=[HOST_USER]))
        lab = stack.enter_context(Lab())
        privileges.make_users()
        world = World(lab, lab.add_host(), redis, Control(redis, HOST_ID), directory, command=command, cwd=cwd)
        world.start_worker()
        assert world.worker is not None
        yield world
        assert until(world.control.alive) is not None, "the worker did not live to the end of its tests"
        with ended_afterwards(world.worker):
            pass


@pytest.fixture(scope="module")
def rows_that_stay(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """What a test of the module commits stays until its last one has ended: for what is started once for all."""
    with django_db_blocker.unblock(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", lambda _: None)
        yield
        emptying.empty()


def use_redis(patch: pytest.MonkeyPatch, url: str) -> None:
    """For as long as ``patch`` lasts; Celery's messages stay there until somebody sends them elsewhere."""
    patch.setattr(settings, "REDIS_URL", url)
    send_celery_to(url)
