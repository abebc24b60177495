"""Two control nodes, each a real ``bin/run`` on a machine of its own, with a real PostgreSQL and Redis on a third. The
second joins by the command that the admin shows; the first one dies; nobody notices."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.conf import settings as django_settings
from django.db import connections
from django.db.utils import ConnectionHandler

from core.crypto import Secret
from core.postgresql.base import DatabaseWrapper
from core.redis_store import redis_client
from servers import joining
from servers.models import Host, MeshNode, Server, ServerHost
from tests.conftest import send_celery_to
from tests.host.test_end_to_end import CERTIFICATE
from tests.host.test_run_whole import Installation, installation_gateway
from tests.lab import HANGING, ONE_TRY, PROJECT, Lab, Pinger, RedisServer, until
from tests.lab.postgresql import Server as PostgreSQL
from tests.processes import environment
from tests.protocol_client import VECTORS
from tests.stack import WgPeer
from users.models import Organization, VpnUser
from vpnproject.env import database
from vpnproject.runner import files, processes
from wgpeers.lifecycle import liveness
from wgpeers.models import Connection, State
from wgpeers.profiles import links

pytestmark = [pytest.mark.host, pytest.mark.long, pytest.mark.django_db(transaction=True)]

PASSWORD, REDIS_PORT, POSTGRES_PORT = "of-redis", 6379, 5432


@dataclass
class World:
    lab: Lab
    first: Installation
    second: Installation
    directory: Path

    def wait(self, condition: Callable[[], object]) -> object:
        try:
            return until(condition, every=0.2)
        except TimeoutError:
            for each in (self.first, self.second):
                logs = sorted((each.var / "log").glob("*.log")) if each.var.is_dir() else []
                print(each.said(), *(f"== {log}\n{log.read_text()[-1500:]}" for log in logs), sep="\n")
            raise

    def hire(self, name: str) -> tuple[VpnUser, WgPeer]:
        user = VpnUser.objects.create(
            organization=Organization.objects.get(),
            name=name,
            public_key=VECTORS["user_public_key"],
            private_key=Secret.of(VECTORS["user_private_key_pkcs8"]),
            certificate=CERTIFICATE,
        )
        link = links.create(user, time.time())
        peer = WgPeer(self.lab.add_client(), self.directory)
        peer.add(f"pritunl://{self.first.machine.address}/ku/{link.short_id.reveal()}")
        return user, peer


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="vpn-two-"))  # sockets are in there, whose paths may not be long
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def stores(transactional_db: None, lab: Lab, directory: Path, settings: LazySettings) -> Iterator[dict[str, str]]:
    """What ``settings.env`` says of them. The test itself reaches both by their sockets."""
    machine = lab.add_host()
    postgres = PostgreSQL(directory / "pg", machine.address, POSTGRES_PORT, machine)
    within = ["nsenter", "--target", str(machine.pid), "--net", "--"]
    with contextlib.ExitStack() as closing:
        redis = closing.enter_context(RedisServer(password=PASSWORD, within=within))
        redis.client().config_set("bind", machine.address)
        redis.client().config_set("port", str(REDIS_PORT))
        settings.REDIS_URL = redis.url
        send_celery_to(redis.url)
        closing.callback(postgres.kill)
        postgres.initialize()
        postgres.start()
        postgres.run("CREATE DATABASE vpn")
        closing.enter_context(own_rows_in(f"postgres://root@/vpn?host={postgres.directory}&port={POSTGRES_PORT}"))
        yield {
            "DATABASE_URL": f"postgres://root@{machine.address}:{POSTGRES_PORT}/vpn",
            "REDIS_URL": f"redis://:{PASSWORD}@{machine.address}:{REDIS_PORT}/0",
        }


@contextlib.contextmanager
def own_rows_in(url: str) -> Iterator[None]:
    """The test's own rows are there as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        config = ConnectionHandler({"default": database(Path("/nowhere"))}).settings["default"]
        env = {**os.environ, **environment(), "DATABASE_URL": url}
        migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, cwd=PROJECT, env=env, check=True, timeout=HANGING)
    before, mine = connections["default"], DatabaseWrapper(config, "default")
    connections["default"] = mine
    try:
        yield
    finally:
        mine.close()
        connections["default"] = before


@pytest.fixture
def world(lab: Lab, directory: Path, stores: dict[str, str]) -> Iterator[World]:
    made = []
    for name in ("first", "second"):
        (directory / name).mkdir()
        made.append(Installation(lab.add_host(), directory / name))
    first, second = made
    # The first one's, as an administrator has set it up; with secrets that this test knows.
    files.make_directories(first.var)
    for name, value in secrets_of_the_test().items():
        files.write_private(first.var / name, value.encode() + b"\n")
    urls = ",".join(f"https://{each.machine.address}" for each in made)
    files.set_settings(first.var / "settings.env", {**stores, "API_URLS": urls})
    try:
        yield World(lab, first, second, directory)
    finally:
        for each in made:
            if each.process is not None and each.process.poll() is None:
                each.kill()
            processes.end(each.ours(), each.instance() if each.ours() else "", grace=0)


def secrets_of_the_test() -> dict[str, str]:
    keys = "\n".join(key.decode() for key in django_settings.FIELD_KEYS)
    return {"secret_key": django_settings.SECRET_KEY, "field_keys": keys}


def test_second_node_joins_by_one_command_and_the_first_one_dies_unnoticed(world: World) -> None:
    first, second = world.first, world.second
    first.start()
    first.started()
    host = Host.objects.create(name="second", public_address=second.machine.address)
    refusals_change_nothing(world, host)
    token = joining.make_token(host, time.time(), control=True)
    second.start("--join", first.machine.address, token.text)
    second.started()
    assert "Joined as control node second" in second.said()
    for name in ("secret_key", "field_keys"):
        assert (second.var / name).read_text() == (first.var / name).read_text()
        assert (second.var / name).stat().st_mode & 0o077 == 0
    assert MeshNode.objects.filter(control=True).exclude(public_key="").count() == 2
    assert Host.objects.count() == 2  # it is the one that the admin had added
    one_beat_of_two()

    # Its tunnels carry the clients; either node answers their connects.
    server = Server.objects.get()
    Server.objects.update(ping_interval=5, ping_timeout=16)
    ServerHost.objects.filter(server=server).delete()
    ServerHost.objects.create(server=server, host=host)
    world.wait(lambda: not ServerHost.objects.filter(public_key="").exists())
    alice, hers = world.hire("alice")
    bob, his = world.hire("bob")
    hers.up()
    world.wait(hers.connected)
    live = Connection.objects.get(user=alice, state=State.OPEN)
    assert live.host == host
    gateway = installation_gateway(second.machine)

    # The first one dies with all that is on it.
    with Pinger(hers.machine, gateway) as traffic:
        world.lab.internet.ip("link", "set", first.machine.port, "down")
        for pid in set(first.machine.processes()) - {first.machine.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        died = time.monotonic()
        # Longer than it lives without pings that count, and than the beat takes to be the other one's.
        world.wait(lambda: time.monotonic() - died > 2 * 16 + 12)
        before = liveness.deadlines([live.public_id])[live.public_id]
        world.wait(lambda: liveness.deadlines([live.public_id])[live.public_id] > before)
        his.up()
        world.wait(his.connected)
    assert traffic.lost == 0
    assert Connection.objects.get(user=alice, state=State.OPEN) == live
    assert Connection.objects.get(user=bob, state=State.OPEN).host == host
    assert his.machine.pings(gateway, timeout=ONE_TRY)
    assert hers.status()["reconnects"] == 0
    for peer in (hers, his):
        peer.end()

    removed_node_does_not_come_back(world, host)


def refusals_change_nothing(world: World, host: Host) -> None:
    """Of a token of the other kind, and of a machine that is something already."""
    second, token = world.second, joining.make_token(host, time.time())
    second.start("--join", world.first.machine.address, token.text)
    second.wait_for("is for another command: bin/host join")
    assert not (second.var / "secret_key").exists()
    second.var.mkdir(exist_ok=True)
    (second.var / "secret_key").write_text("mine\n")
    second.start("--join", world.first.machine.address, joining.make_token(host, time.time(), control=True).text)
    second.wait_for("has been set up already")
    assert (second.var / "secret_key").read_text() == "mine\n"
    (second.var / "secret_key").unlink()


def one_beat_of_two() -> None:
    until(lambda: redis_client().scard("nodes") == 2)
    assert redis_client().hget("lease:beat", "holder")


def removed_node_does_not_come_back(world: World, host: Host) -> None:
    second = world.second
    second.stop()
    # There is another one, which is only dead for now.
    host.delete()
    second.start()
    second.wait_for("is no control node any more")
    assert not Host.objects.filter(name__startswith="second").exists()
    assert re.search(r"bin/run --join", second.said())
