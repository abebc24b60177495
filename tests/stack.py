"""The whole product in a lab's namespaces: Redis, front, web, gateway web, control worker, beat and a host worker, each
the real process. Tests reach its database through the ORM, as the control side's own code does."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import redis
from wgpeer.daemon import current_status
from wgpeer.store import Store

from tests.lab import (
    HANGING,
    ONE_TRY,
    PATIENCE,
    PROJECT,
    PYTHON,
    Lab,
    Machine,
    RedisServer,
    SentinelRedis,
    ended_afterwards,
    until,
)
from vpnproject.runner import client_wheel, front, programs

BIN = PYTHON.parent
GATEWAY_PORT = 9790
MESH = "fd00:0:0:a0c::/64"  # what the front takes for it
WEB_PROCESSES = 2 if PATIENCE == 1 else 1  # on an emulated machine each takes half a minute to start
# In a machine: it has a directory for the front of its own. Its directory, certificate and key; the configuration.
PREPARE = """
import sys
from pathlib import Path
from runner import front
home, certificate, key = map(Path, sys.argv[1:])
front.prepare(home)
front.take_pair(home, certificate, key)
front.configure(home, sys.stdin.read())
"""
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

    def start(self, code: Path = PROJECT) -> None:
        """``code``: of a release, the directory that ``servers.hostnet`` is in."""
        self.process = self.machine.start(PYTHON, "-m", "servers.hostnet", env=self._env, log=self._log, cwd=code)

    def end(self) -> None:
        """SIGTERM, as an upgrade does: tunnels stay."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(HANGING)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(HANGING)


class Stack:
    """Everything but hosts' workers runs on ``machine``. ``environment`` is what Django's settings need. ``ipv6``:
    whether the front listens there too. ``name`` is what stands for the machine in a URL. ``pings_only``: of another
    installation's, only what answers the pings of its host's clients."""

    def __init__(
        self,
        machine: Machine,
        server: RedisServer | SentinelRedis,
        environment: Mapping[str, str],
        ipv6: bool = False,
        name: str = "",
        pings_only: bool = False,
        mesh: str = MESH,
    ) -> None:
        self.machine = machine
        self._pings_only = pings_only
        self.name = name or machine.address
        self._ipv6, self._mesh = ipv6, mesh
        self.redis = server
        self._temporary = tempfile.TemporaryDirectory(prefix="vpn-stack-", ignore_cleanup_errors=True)
        self.directory = Path(self._temporary.name)
        self.site = programs.Site(
            project=PROJECT,
            var=self.directory,
            instance=secrets.token_hex(16),
            gateway_port=GATEWAY_PORT,
            host_id="",
            backend=BACKEND,
            stamp="",
            redis_url=server.url,
        )
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
        self._parts: dict[str, tuple[tuple[str | Path, ...], subprocess.Popen[bytes]]] = {}
        self.front: subprocess.Popen[bytes] | None = None
        self.web: subprocess.Popen[bytes] | None = None
        self.worker: HostWorker | None = None

    def __enter__(self) -> Self:
        self._closing.enter_context(self._temporary)
        try:
            self.start_front()
            self._serve("gateway", front.gateway_socket(self.site.front), 1, 4, "vpnproject.wsgi_gateway:application")
            until(lambda: b"404 Not Found" in self.asked(GATEWAY_PORT, "/"))
            if self._pings_only:
                return self
            (self.directory / client_wheel.DIRECTORY).mkdir()
            client_wheel.put(PROJECT / "client", self.directory)
            self.start_web()
            celery = (BIN / "celery", "--app", "vpnproject")
            quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
            self._start("control", *celery, "worker", "-Q", "control", "--pool", "threads", "-c", "2", *quiet)
            self._start("beat", *programs.beat(PYTHON))
            until(lambda: b"200 OK" in self.asked(443, "/admin/login/"))
        except BaseException:
            self._closing.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def start_front(self) -> None:
        self.make_certificate()
        self.front = self._start("front", *programs.front_command(self.site))

    def start_web(self) -> None:
        where = front.web_socket(self.site.front)
        self.web = self._serve("web", where, WEB_PROCESSES, 8, "vpnproject.wsgi:application")
        self._serve("waiting", front.waiting_socket(self.site.front), 1, 16, "vpnproject.wsgi_waiting:application")

    def _serve(self, name: str, where: Path, processes: int, threads: int, what: str) -> subprocess.Popen[bytes]:
        return self._start(name, *programs.granian(self.site, where, processes, threads), what)

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
        self._parts[name] = command, process
        return process

    def kill(self, name: str) -> None:
        """SIGKILL to one part, and to the processes that it has begun."""
        _, process = self._parts[name]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(HANGING)

    def start_again(self, name: str) -> None:
        command, _ = self._parts[name]
        process = self._start(name, *command)
        if name == "web":
            self.web = process

    def asked(self, port: int, path: str) -> bytes:
        """What web or gateway web answers to a GET on the machine itself; empty when nothing comes."""
        with self.machine.socket("127.0.0.1", socket.SOCK_STREAM) as plain:
            plain.settimeout(ONE_TRY)
            try:
                plain.connect(("127.0.0.1", port))
                connection = unverified().wrap_socket(plain) if port == 443 else plain
                with connection:
                    connection.sendall(f"GET {path} HTTP/1.0\r\nHost: here\r\n\r\n".encode())
                    return b"".join(iter(lambda: connection.recv(65536), b""))
            except OSError:
                return b""

    def log(self) -> str:
        """The last lines of every process, for a failing test's output."""
        return "\n".join(
            f"== {path.name}\n" + "\n".join(path.read_text().splitlines()[-25:])
            for path in sorted(self.directory.glob("*.log"))
        )

    def make_certificate(self) -> None:
        """A new one, given to the front."""
        subject = ["-subj", f"/CN={self.machine.address}", "-days", "2"]
        files = ["-keyout", str(self.directory / "key.pem"), "-out", str(self.directory / "cert.pem")]
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        subprocess.run(
            ["openssl", "req", "-x509", *kind, *files, *subject], check=True, capture_output=True, timeout=HANGING
        )
        self.configure_front(self._mesh)

    def configure_front(self, *mesh: str) -> None:
        """With these networks of the mesh; one that runs reads it when it is told to."""
        wanted = front.Front(self.site.front, 443, GATEWAY_PORT, self._ipv6, plain_port=80, mesh=mesh)
        self.machine.run(
            *("env", f"PYTHONPATH={PROJECT / 'vpnproject'}:{PROJECT}", PYTHON, "-c", PREPARE, self.site.front),
            *(self.directory / "cert.pem", self.directory / "key.pem"),
            text=front.configuration(wanted, programs.open_files()),
        )


def unverified() -> ssl.SSLContext:
    """TLS as clients use it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class WgPeer:
    """Our own client on one machine, as its user runs it."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self.machine = machine
        self.directory = directory / f"wgpeer-{machine.pid}"
        self.log = directory / f"wgpeer-{machine.pid}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> list[str]:
        return [str(PYTHON), "-m", "wgpeer", "--dir", str(self.directory), *arguments]

    def add(self, link: str, *arguments: str) -> str:
        return self.machine.run(*self.command("add", link, *arguments)).stdout

    def up(self, *arguments: str) -> None:
        """Run ``up --foreground`` until it is told to end."""
        command = self.command("up", "--foreground", "--backend", BACKEND, *arguments)
        self.process = self.machine.start(*command, log=self.log, env={**os.environ, "TERM": "dumb"})

    def status(self) -> dict[str, Any]:
        """What ``status --json`` says of the first profile; empty when there is none. By the client's own code, which
        reads it from files: a Python started again and again would take more processor than all that is waited for."""
        store = Store.open(self.directory)
        names = store.names()
        return asdict(current_status(store, names[0])) if names else {}

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
