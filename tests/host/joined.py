"""The control side on one machine, and others that join it by the command that the admin shows."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import LazySettings

from servers import heartbeats, joining, mesh
from servers.models import Host, MeshNode
from tests.conftest import send_celery_to
from tests.lab import HANGING, PROJECT, Lab, Machine, RedisServer, SentinelRedis, ended_afterwards, until
from tests.processes import environment
from tests.stack import BACKEND, Stack
from vpnproject.runner import privileges

COMMAND = PROJECT / "bin" / "host"


@dataclass
class Joined:
    """A machine with its files in ``directory``. ``worker`` runs the command in the foreground."""

    machine: Machine
    host: Host
    directory: Path
    worker: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.directory.with_suffix(".log")

    def command(self, *arguments: str | Path) -> list[str]:
        return [str(COMMAND), "--directory", str(self.directory), *(str(each) for each in arguments)]

    def tell(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Carry the command out to its end."""
        return self.machine.run("env", f"HOSTNET_BACKEND={BACKEND}", *self.command(*arguments), check=False)

    def launch(self, *arguments: str | Path) -> None:
        self.worker = self.machine.start(*self.command(*arguments), log=self.log, env={"HOSTNET_BACKEND": BACKEND})

    def end(self) -> None:
        """SIGTERM, which leaves tunnels up."""
        assert self.worker is not None
        with ended_afterwards(self.worker, HANGING):
            pass

    def status(self) -> dict[str, Any]:
        try:
            said: dict[str, Any] = json.loads(self.tell("status", "--json").stdout)
        except ValueError:
            return {}
        return said

    def files(self) -> dict[str, bytes]:
        found = self.directory.rglob("*") if self.directory.is_dir() else ()
        return {str(each): each.read_bytes() for each in found if each.is_file()}


@dataclass
class Installation:
    lab: Lab
    stack: Stack
    control: Host
    directory: Path
    machines: list[Joined] = field(default_factory=list)
    # Whether this process reaches its Redis.
    in_reach: bool = True

    def add(self, name: str, machine: Machine | None = None) -> Joined:
        """A host as an admin adds it, and a machine for it."""
        machine = machine or self.lab.add_host()
        host = Host.objects.create(name=name, public_address=machine.address)
        added = Joined(machine, host, self.directory / name)
        self.machines.append(added)
        return added

    def token(self, added: Joined) -> str:
        return joining.make_token(added.host, time.time()).text

    def join(self, added: Joined) -> None:
        """By the command, which stays as its worker; until the control side sees it green."""
        added.launch("join", self.stack.name, self.token(added), "--run")
        self.wait(lambda: "green in the admin" in added.log.read_text() or self._failed(added))
        assert "green in the admin" in added.log.read_text(), added.log.read_text()
        self.wait(lambda: self.alive(added))

    def _failed(self, added: Joined) -> bool:
        return added.worker is not None and added.worker.poll() is not None

    def alive(self, added: Joined) -> object:
        if not self.in_reach:
            return added.status().get("green")
        return heartbeats.read([added.host]).get(added.host.pk, {})

    def address(self, host: Host) -> str:
        """Its own in the mesh."""
        return mesh.addresses(mesh.the_mesh(), host.node)[0]

    def wait(self, condition: Any) -> Any:
        try:
            return until(condition, every=0.1)
        except TimeoutError:
            print(self.said())
            raise

    def said(self) -> str:
        logs = [f"== {each.log}\n{each.log.read_text()[-6000:]}" for each in self.machines if each.log.exists()]
        return "\n".join([self.stack.log(), *logs])


@contextlib.contextmanager
def installation(
    settings: LazySettings, redis: Callable[[Lab], SentinelRedis] | None = None, name: str = ""
) -> Iterator[Installation]:
    """With its own machine as a host, and nobody who has joined. ``redis``: somebody else's, which this process
    does not reach. ``name``: what everybody knows the control node by, if not by its address."""
    with contextlib.ExitStack() as closing:
        directory = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="joined-")))
        lab = closing.enter_context(Lab())
        machine = lab.add_host()
        server: RedisServer | SentinelRedis
        if redis is None:
            within = ["nsenter", "--target", str(machine.pid), "--net", "--"]
            server = closing.enter_context(RedisServer(password=secrets.token_urlsafe(16), within=within))
            settings.REDIS_URL = server.url
            send_celery_to(server.url)
        else:
            server = closing.enter_context(redis(lab))
        privileges.make_users()
        made = Stack(machine, server, environment(), ipv6=True, name=name, mesh=mesh.the_mesh().network)
        stack = closing.enter_context(made)
        control = Host.objects.create(name="control", public_address=name or machine.address)
        mesh.control_node(control)
        worker = stack.start_host(control.public_id)
        closing.callback(worker.kill)
        world = Installation(lab, stack, control, directory, in_reach=redis is None)
        closing.callback(lambda: print(world.said()))
        world.wait(lambda: MeshNode.objects.exclude(public_key="").exists())
        yield world
