"""The whole product in a lab's namespaces: Redis, web, gateway web, control worker, beat and a host worker, each the
real process. Tests reach its database through the ORM, as the control side's own code does."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import redis

from tests.lab import HANGING, ONE_TRY, PATIENCE, PROJECT, PYTHON, Lab, Machine, RedisServer, ended_afterwards, until
from vpnproject.runner.programs import BEAT

BIN = PYTHON.parent
GATEWAY_PORT = 9790
WEB_PROCESSES = 2 if PATIENCE == 1 else 1  # on an emulated machine each takes half a minute to start
# Of host workers and clients. tests/kernel runs tests on the kernel's.
BACKEND = os.environ.get("WG_BACKEND", "userspace")


class HostWorker:
    """The host worker of one machine; killing it leaves its tunnels as they are."""

    def __init__(self, machine: Machine, host_id: str, redis_url: str, directory: Path) -> None:
        self.machine = machine
        self._env = {
            "HOST_ID": host_id,
            "HOST_REDIS_URL": redis_url,
            "HOST_VAR": str(directory / f"host-{host_id}"),
            "HOSTNET_BACKEND": BACKEND,
            "VPN_GATEWAY_PORT": str(GATEWAY_PORT),
        }
        self._log = directory / f"host-{host_id}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = self.machine.start(PYTHON, "-m", "servers.hostnet", env=self._env, log=self._log)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(HANGING)


class Stack:
    """Everything but hosts' workers runs on ``machine``. ``environment`` is what Django's settings need. ``listen`` is
    the address that web listens on, and ``name`` what stands for the machine in a URL."""

    def __init__(
        self,
        machine: Machine,
        server: RedisServer,
        environment: Mapping[str, str],
        listen: str = "0.0.0.0",
        name: str = "",
    ) -> None:
        self.machine = machine
        self.name = name or machine.address
        self._listen = listen
        self.redis = server
        self.directory = Path(tempfile.mkdtemp(prefix="vpn-stack-"))
        self.environment = {
            **environment,
            "VPN_VAR": str(self.directory),
            "REDIS_URL": server.url,
            "API_URLS": f"https://{self.name}",
            "GATEWAY_PORT": str(GATEWAY_PORT),
            "CONFIRM_TIMEOUT": os.environ.get("CONFIRM_TIMEOUT", "10"),
            "DJANGO_SETTINGS_MODULE": "vpnproject.settings",
        }
        self._closing = contextlib.ExitStack()
        self.web: subprocess.Popen[bytes] | None = None
        self.worker: HostWorker | None = None

    def __enter__(self) -> Self:
        try:
            self._certificate()
            self.start_web()
            self._start("gateway", *_granian("0.0.0.0", GATEWAY_PORT, 1, 4), "vpnproject.wsgi_gateway:application")
            celery = (BIN / "celery", "--app", "vpnproject")
            quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
            self._start("control", *celery, "worker", "-Q", "control", "--pool", "threads", "-c", "2", *quiet)
            self._start("beat", *celery, "beat", "--scheduler", BEAT, "--pidfile=")
            until(lambda: self.answers(443))
            until(lambda: self.answers(GATEWAY_PORT))
        except BaseException:
            self._closing.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def start_web(self) -> None:
        pem = ("--ssl-certificate", str(self.directory / "cert.pem"), "--ssl-keyfile", str(self.directory / "key.pem"))
        self.web = self._start(
            "web", *_granian(self._listen, 443, WEB_PROCESSES, 8), *pem, "vpnproject.wsgi:application"
        )

    def start_host(self, host_id: str) -> HostWorker:
        """The host worker of this very machine."""
        self.worker = HostWorker(self.machine, host_id, self.redis.url, self.directory)
        self.worker.start()
        self._closing.callback(self.log)
        return self.worker

    def _start(self, name: str, *command: str | Path) -> subprocess.Popen[bytes]:
        log = self.directory / f"{name}.log"
        process = self.machine.start(*command, env=self.environment, log=log)
        self._closing.enter_context(ended_afterwards(process))
        return process

    def answers(self, port: int) -> bool:
        """Whether something takes TCP connections on this port of the machine."""
        with self.machine.socket("127.0.0.1", 1) as probe:
            probe.settimeout(ONE_TRY)
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def log(self) -> str:
        """The last lines of every process, for a failing test's output."""
        return "\n".join(
            f"== {path.name}\n" + "\n".join(path.read_text().splitlines()[-25:])
            for path in sorted(self.directory.glob("*.log"))
        )

    def _certificate(self) -> None:
        subject = ["-subj", f"/CN={self.machine.address}", "-days", "2"]
        files = ["-keyout", str(self.directory / "key.pem"), "-out", str(self.directory / "cert.pem")]
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        subprocess.run(
            ["openssl", "req", "-x509", *kind, *files, *subject], check=True, capture_output=True, timeout=HANGING
        )


def _granian(host: str, port: int, workers: int, threads: int) -> tuple[str | Path, ...]:
    return (
        BIN / "granian",
        *("--interface", "wsgi", "--http", "1", "--no-ws", "--host", host, "--port", str(port)),
        *("--workers", str(workers), "--blocking-threads", str(threads), "--log-level", "warning"),
        *("--respawn-failed-workers", "--respawn-interval", "5", "--workers-kill-timeout", "2"),
    )


class WgPeer:
    """Our own client on one machine, as its user runs it."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self.machine = machine
        self.directory = directory / f"wgpeer-{machine.pid}"
        self.log = directory / f"wgpeer-{machine.pid}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> list[str]:
        return [str(PYTHON), "-m", "wgpeer", "--dir", str(self.directory), *arguments]

    def add(self, link: str) -> str:
        return self.machine.run(*self.command("add", link)).stdout

    def up(self, *arguments: str) -> None:
        """Run ``up --foreground`` until it is told to end."""
        command = self.command("up", "--foreground", "--backend", BACKEND, *arguments)
        self.process = self.machine.start(*command, log=self.log, env={**os.environ, "TERM": "dumb"})

    def status(self) -> dict[str, Any]:
        """What ``status --json`` says of the first profile that is up; empty when none is."""
        output = self.machine.run(*self.command("status", "--json"), check=False).stdout
        try:
            said: Any = json.loads(output)
        except ValueError:
            return {}
        said = said[0] if isinstance(said, list) and said else said
        return said if isinstance(said, dict) else {}

    def connected(self) -> dict[str, Any]:
        status = self.status()
        return status if status.get("state") == "connected" else {}

    def kill(self) -> None:
        """SIGKILL: no more pings, and nobody is told. The WireGuard process goes on, as after a crash."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(HANGING)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(HANGING)


def redis_gone(server: RedisServer) -> bool:
    try:
        return not server.client().ping()
    except redis.RedisError:
        return True


__all__ = ["GATEWAY_PORT", "PROJECT", "HostWorker", "Lab", "Stack", "WgPeer"]
