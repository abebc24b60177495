"""A PostgreSQL of a benchmark's own: Debian's programs, a directory, a socket in it, no port."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from vpnproject.runner.privileges import CONTROL

PROGRAMS = Path("/usr/lib/postgresql")
SOCKETS = Path("/run/vpn/postgresql")  # where web reaches them; there it is the sandbox's own
# What is measured is not the disk: a crash would lose what nobody needs.
OPTIONS = "-c listen_addresses='' -c unix_socket_directories='{0}' -c fsync=off -c full_page_writes=off"


def installed() -> Path | None:
    """The directory of the newest release's programs."""
    releases = sorted(PROGRAMS.glob("*/bin"), key=lambda each: float(each.parent.name))
    return releases[-1] if releases else None


def start(directory: Path) -> str:
    """Start it below ``directory`` and return the URL of an empty database. It ends with the process namespace."""
    programs = installed()
    if programs is None:
        raise FileNotFoundError(f"{PROGRAMS}/*/bin: PostgreSQL is not installed")
    directory.chmod(0o711)  # it refuses to run as root, and must reach what is its own
    home = directory / "postgresql"
    home.mkdir()
    SOCKETS.mkdir()
    for path, mode in ((home, 0o700), (SOCKETS, 0o711)):
        shutil.chown(path, "postgres")
        path.chmod(mode)
    # Its roles are those who connect, by the socket's peer: root, and web.
    authentication = ("--username", "root", "--auth-local", "peer", "--auth-host", "reject")
    data = ("--pgdata", str(home / "data"))
    _run(home, programs / "initdb", *data, *authentication, "--encoding", "UTF8", "--no-sync")
    options = ("--log", str(home / "log"), "--wait", "--options", OPTIONS.format(SOCKETS))
    _run(home, programs / "pg_ctl", *data, *options, "start")
    for command in (
        ("createdb", "--host", SOCKETS, "bench"),
        ("createuser", "--host", SOCKETS, "--superuser", CONTROL),
    ):
        subprocess.run([programs / command[0], *command[1:]], check=True, stdin=subprocess.DEVNULL)
    return f"postgres:///{SOCKETS}/bench"


def _run(home: Path, *command: str | Path) -> None:
    with (home / "start.log").open("ab") as log:
        subprocess.run(
            ["runuser", "-u", "postgres", "--", *command],
            cwd=home,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
