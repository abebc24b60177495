"""An installation for one benchmark: the programs of bin/run with bin/run's settings, in a directory of its own."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import redis
from django.core.management import call_command
from django.db import connections

from bench.load import Target, client_tls, exchange
from bench.people import EMPTY
from core.redis_store import redis_client
from servers import redis_access
from servers.models import Host, MeshNode
from tests.lab import until
from vpnproject.runner import certificate, files, front, layout, mounts, programs, redis_login

WEB_PORT, GATEWAY_PORT = 8443, 9790
STARTED_WITHIN = 60.0


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"  {text}", file=sys.stderr, flush=True)


class Installation:
    """``directory`` is its var. Nothing here ends what it starts: that ends with the process namespace."""

    def __init__(self, directory: Path) -> None:
        self._directory, instance = directory, secrets.token_hex(16)
        house = mounts.house(instance, Path(__file__).resolve().parent.parent, directory)
        mounts.build(house)  # the mounts here are nobody else's
        self.site = programs.Site(
            project=house.code,
            var=house.var,
            host_side=house.host_side,
            instance=instance,
            gateway_port=GATEWAY_PORT,
            host_id="bench",
            backend="auto",
            stamp="bench",
            redis_password=redis_login.read(directory / redis_login.PASSWORD),
        )

        pair = directory / "certificate.pem", directory / "certificate_key.pem"
        certificate.ensure_certificate(*pair, "127.0.0.1", datetime.now(UTC))
        front.prepare(self.site.front)
        front.take_pair(self.site.front, *pair)
        wanted = front.Front(self.site.front, WEB_PORT, GATEWAY_PORT, ipv6=False)
        front.configure(self.site.front, front.configuration(wanted, programs.open_files()))
        self._has_front = False
        self.running: dict[str, subprocess.Popen[bytes]] = {}  # by the program's name

    def start_redis(self) -> None:
        """Redis as bin/run configures it, with the host's user; the caller's own ``redis_client()`` is this one."""
        text = programs.redis_configuration(self.site.var, programs.machine_memory())
        files.write_private(self.site.var / "redis.conf", text.encode(), layout.FILES["redis.conf"])
        self.start(programs.redis_program(self.site.var))
        until(_answers, STARTED_WITHIN)
        redis_access.let_in(self.site.host_id, redis_login.host_hash(self.site.var))

    def admit(self, host: Host, var: Path) -> None:
        """Have the control side keep the user in Redis of a host whose worker has ``var``; beat ends all others."""
        password_hash = redis_login.host_hash(var)
        MeshNode.objects.create(host=host, host_part=host.pk, redis_hash=password_hash)
        redis_access.let_in(host.public_id, password_hash)

    def make_database(self) -> None:
        call_command("migrate", verbosity=0)
        # What we have made there is root's. To change that, each file is opened and closed, by which this process loses
        # all of its locks on it: SQLite's, were it still open, and the next one to close it would take its log away.
        connections.close_all()
        files.make_directories(self._directory)

    def start_web(self, **settings: str) -> Target:
        """web over TLS, with the empty view; ``settings`` are environment variables."""
        self._serve("waiting", {"DJANGO_SETTINGS_MODULE": "bench.settings_waiting", **settings})
        self._serve("web", {"DJANGO_SETTINGS_MODULE": "bench.settings_web", **settings})
        return self._answering(Target(WEB_PORT, client_tls()))

    def start_gateway(self) -> Target:
        """Gateway web over plain HTTP, with the empty view."""
        self._serve("gateway", {"DJANGO_SETTINGS_MODULE": "bench.settings_gateway"})
        return self._answering(Target(GATEWAY_PORT))

    def _serve(self, name: str, environment: Mapping[str, str]) -> None:
        if not self._has_front:
            self._start_front()
        program = self.program(name)
        command = (*program.command[:-1], "bench.wsgi:application")
        self.start(programs.Program(name, command, {**program.environment, **environment}))

    def _start_front(self) -> None:
        self._has_front = True
        self.start(self.program("front"))

    def _answering(self, target: Target) -> Target:
        def answers() -> bool:
            try:
                return exchange(target, EMPTY).startswith(b"HTTP/1.1 200")
            except OSError:
                return False

        until(answers, STARTED_WITHIN)
        return target

    def program(self, name: str) -> programs.Program:
        """One of bin/run's programs. Supervisor reads a doubled % as one; here there is no supervisor."""
        found = next(each for each in programs.server_programs(self.site) if each.name == name)
        command = tuple(word.replace("%%", "%") for word in found.command)
        return programs.Program(name, command, found.environment)

    def start(self, program: programs.Program) -> subprocess.Popen[bytes]:
        with (self.site.var / "log" / f"{program.name}.log").open("ab") as log:
            process = subprocess.Popen(
                program.command,
                cwd=self.site.project,
                env={**os.environ, **program.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.running[program.name] = process
        return process


def _answers() -> bool:
    try:
        return bool(redis_client().ping())
    except redis.ConnectionError:
        return False
