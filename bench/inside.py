"""The inner half of ``bench.sandbox``: the first process of the new namespaces.

python -m bench.inside NAME DIRECTORY [CLIENTS]
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import django
from cryptography.fernet import Fernet

from bench import postgresql
from vpnproject.runner import files, redis_login

# A /run/wireguard of its own, because WireGuard's sockets are files, which network namespaces would share; and of the
# front's directory, and of what the programs' users pass, nothing stays.
PREPARE = """
mount -t sysfs sysfs /sys && mkdir -p /run/wireguard /run/vpn /var/lib/vpn-front &&
mount -t tmpfs tmpfs /run/wireguard && mount -t tmpfs -o mode=755 tmpfs /var/lib/vpn-front &&
mount -t tmpfs -o mode=755 tmpfs /run/vpn && ip link set lo up
"""
LOG_LINES = 15
ON_POSTGRESQL = {"connect_postgresql"}  # all others use SQLite


def main(name: str, directory: Path, *size: int) -> None:
    subprocess.run(["sh", "-c", PREPARE], check=True, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    files.make_directories(directory)
    redis_login.prepare(directory)  # settings read the password
    _environment(directory)
    if name in ON_POSTGRESQL:
        os.environ["DATABASE_URL"] = postgresql.start(directory)
    django.setup()
    # Imported here: it imports models, which needs the settings that were made just now.
    measure = importlib.import_module(f"bench.{name}").measure
    try:
        for figure in measure(directory, *size):
            print(figure.dump(), flush=True)
    except BaseException:
        _show_logs(directory / "log")
        raise


def _end_with_parent() -> None:
    """Nothing is ever written to our input: it ends when the outer half closes it, or dies."""
    os.read(sys.stdin.fileno(), 1)
    # We are the first process of the namespace: the kernel ends all the others with us.
    os._exit(1)


def _environment(directory: Path) -> None:
    """Settings of an installation of its own. What the caller's shell says of another one must not leak in."""
    for name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY_FILE", "FIELD_KEYS_FILE", "API_URLS", "TRUSTED_PROXIES"):
        os.environ.pop(name, None)
    os.environ.update(
        VPN_VAR=str(directory),
        SECRET_KEY=os.urandom(24).hex(),
        FIELD_KEYS=Fernet.generate_key().decode(),
        DJANGO_SETTINGS_MODULE="bench.settings_web",
        LOG_LEVEL="WARNING",
    )


def _show_logs(directory: Path) -> None:
    for log in sorted(set(directory.glob("*.log")) - {directory / "redis.log"}):
        for line in log.read_text(errors="replace").splitlines()[-LOG_LINES:]:
            print(f"{log.stem}: {line}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
    # Not by falling off the end: threads and processes that are still there need not be waited for.
    sys.stdout.flush()
    os._exit(0)
