"""A PostgreSQL primary and its standby, of a test's own: Debian's programs, loopback ports, sockets in a directory."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

import psycopg

from tests.lab.namespaces import Namespace
from tests.lab.sentinels import free_ports
from tests.lab.waiting import HANGING, until

PROGRAMS = Path("/usr/lib/postgresql")
NAME = "vpn"
CONFIGURATION = """
unix_socket_permissions = 0777
fsync = off
wal_keep_size = 256MB
hot_standby = on
wal_receiver_status_interval = 1
"""


def programs() -> Path:
    """The directory of the newest release's programs."""
    return max(PROGRAMS.glob("*/bin"), key=lambda each: float(each.parent.name))


class Server:
    """One PostgreSQL; it refuses to run as root. Two may have the same port at different addresses. ``where``: the
    namespace that ``address`` is in, whose neighbours may connect as ``root``."""

    def __init__(self, directory: Path, address: str, port: int, where: Namespace | None = None) -> None:
        self.directory, self.address, self.port, self._where = directory, address, port, where
        self.data, self.log = directory / "data", directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir()
        shutil.chown(directory, "postgres")
        directory.chmod(0o711)

    def initialize(self) -> None:
        run(self.directory, "initdb", "--pgdata", self.data, "--username", "root", "--auth", "trust", "--no-sync")
        self.configure(CONFIGURATION)
        if self._where is not None:
            with (self.data / "pg_hba.conf").open("a") as file:
                file.write(f"host all root {self.address}/24 trust\n")

    def copy_of(self, primary: Server) -> None:
        """Make it a standby."""
        source = f"host={primary.address} port={primary.port} user=root"
        run(self.directory, "pg_basebackup", "--pgdata", self.data, "-d", source, "-R", "-c", "fast", "--no-sync")

    def configure(self, text: str) -> None:
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(text)

    def start(self) -> None:
        where = ("-p", str(self.port), "-k", str(self.directory), "-c", f"listen_addresses={self.address}")
        as_postgres = ("setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--pdeathsig", "QUIT")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._within(), *as_postgres, programs() / "postgres", "-D", self.data, *where],
                cwd=self.directory,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self.answers)

    def _within(self) -> list[str]:
        return ["nsenter", "--target", str(self._where.pid), "--net", "--"] if self._where is not None else []

    def answers(self) -> bool:
        try:
            with self.connect("postgres"):
                return True
        except psycopg.OperationalError:
            return False

    def connect(self, name: str = NAME) -> psycopg.Connection[Any]:
        host = self.address if self._where is None else str(self.directory)
        return psycopg.connect(host=host, port=self.port, user="root", dbname=name, autocommit=True)

    def run(self, sql: str) -> None:
        with self.connect("postgres") as connection:
            connection.execute(sql)

    def kill(self) -> None:
        """SIGQUIT: it ends at once, with all who serve connections, and recovers when it is started again."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGQUIT)
            self._process.wait(HANGING)
            self._process = None


class PostgresPair:
    """``primary`` and ``standby``, with an empty database. The names stay when the parts change."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="lab-pg-"))
        self.directory.chmod(0o755)
        (port,) = free_ports(1)
        self.primary = Server(self.directory / "a", "127.0.0.1", port)
        self.standby = Server(self.directory / "b", "127.0.0.2", port)

    @property
    def url(self) -> str:
        """By loopback, the standby first: whoever takes the first that answers is wrong."""
        first, second = (f"{server.address}:{server.port}" for server in (self.standby, self.primary))
        return f"postgres://root@{first},{second}/{NAME}"

    @property
    def socket_url(self) -> str:
        """By sockets, which every network namespace reaches."""
        sockets = f"{self.standby.directory},{self.primary.directory}"
        wanted = f"port={self.primary.port}&target_session_attrs=read-write&connect_timeout=3"
        return f"postgres://root@/{NAME}?host={sockets}&{wanted}"

    def __enter__(self) -> Self:
        try:
            self.primary.initialize()
            self.primary.start()
            self.primary.run(f"CREATE DATABASE {NAME}")
            self.standby.copy_of(self.primary)
            self.standby.start()
        except BaseException:
            for server in (self.primary, self.standby):
                with contextlib.suppress(OSError):
                    print(server.log.read_text()[-3000:])
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.standby.kill()
        self.primary.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def promote(self) -> None:
        """Make the standby a primary, as whoever watches them would do when the primary is dead."""
        self.standby.run("SELECT pg_promote()")


def run(directory: Path, program: str, *arguments: str | Path) -> None:
    done = subprocess.run(
        ["runuser", "-u", "postgres", "--", programs() / program, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=HANGING,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{program}: {done.stderr}")
