"""What ``bin/run --check`` looks at. Reads only: nothing is written, installed or started."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from . import firewalls, network, privileges, processes
from .console import Progress, RunError
from .files import check_path, open_to_others, read_json, read_settings
from .layout import DATABASE

Grade = Literal["ok", "note", "wrong"]
PACKAGES = Path(__file__).with_name("debian-run.txt")
OLDEST_PYTHON = (3, 11)
LEAST_DISK_MB = 300
LEAST_MEMORY_MB = 900


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ``wrong`` keeps the server from starting; ``note`` does not, or bin/run sees to it."""

    grade: Grade
    words: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the person asked for on the command line, as far as checks depend on it."""

    project: Path
    var: Path
    port: int | None = None
    public_address: str | None = None
    # Whether what is said goes to a log that others read.
    service: bool = False


def report(wanted: Wanted, progress: Progress) -> int:
    """Print every finding; returns the exit code, 1 when something keeps the server from starting."""
    wrong = 0
    for finding in look(wanted):
        {"ok": progress.good, "note": progress.warn, "wrong": progress.fail}[finding.grade](finding.words)
        wrong += finding.grade == "wrong"
    progress.plain()
    progress.plain(
        f"{wrong} to put right before bin/run can start." if wrong else "Nothing keeps bin/run from starting."
    )
    return 1 if wrong else 0


def blocking(wanted: Wanted) -> list[Finding]:
    """What must be right before anything is touched; ports and addresses are settled later, by the start itself."""
    findings = [
        root(os.geteuid()),
        *wireguard(kernel_has_wireguard(), Path("/dev/net/tun")),
        *firewall(),
        disk(wanted.var),
    ]
    return [finding for finding in findings if finding.grade == "wrong"]


def look(wanted: Wanted) -> Iterator[Finding]:
    yield python_version(sys.version_info[:2])
    yield root(os.geteuid())
    yield packages(PACKAGES.read_text().split())
    yield users()
    yield virtual_environment(wanted.project / ".venv")
    yield from wireguard(kernel_has_wireguard(), Path("/dev/net/tun"))
    yield from firewall()
    yield from foreign_firewalls(wanted)
    yield forwarding(Path("/proc/sys/net/ipv4/ip_forward"))
    yield disk(wanted.var)
    yield memory(Path("/proc/meminfo").read_text())
    yield from var_files(wanted.var)
    yield public_address(wanted)
    if is_locked(wanted.var / "run.lock"):
        yield Finding("note", f"bin/run is running with {wanted.var}; its ports are in use by itself.")
    elif own_processes(wanted.var):
        yield Finding("note", f"Programs of an earlier bin/run with {wanted.var} are running; a start takes them over.")
    else:
        yield from ports(wanted)


def python_version(version: tuple[int, int]) -> Finding:
    found = f"Python {version[0]}.{version[1]}"
    if version < OLDEST_PYTHON:
        return Finding("wrong", f"{found} is too old: 3.11 or newer is needed (Debian 12, Ubuntu 24.04).")
    return Finding("ok", found)


def root(euid: int) -> Finding:
    if euid:
        return Finding("wrong", "Interfaces, routes and firewall rules need root: start it with sudo.")
    return Finding("ok", "Running as root")


def packages(names: list[str]) -> Finding:
    """Which of the Debian packages ``names`` are not installed."""
    if shutil.which("dpkg-query") is None:
        return Finding("wrong", f"This is neither Debian nor Ubuntu; install by hand: {', '.join(names)}")
    missing = missing_packages(names)
    if missing:
        return Finding("note", f"Debian packages that bin/run will install: {', '.join(missing)}")
    return Finding("ok", "All Debian packages are installed")


def missing_packages(names: list[str]) -> list[str]:
    found = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n", *names],
        capture_output=True,
        text=True,
        check=False,  # it fails for a name it has never heard of, and still lists the others
    )
    installed = {line.split()[-1] for line in found.stdout.splitlines() if line.startswith("ii ")}
    return [name for name in names if name not in installed]


def users() -> Finding:
    missing = privileges.missing_users()
    if missing:
        return Finding("note", f"System users that bin/run will make: {', '.join(missing)}")
    return Finding("ok", f"The system users {', '.join(privileges.USERS)} are there")


def virtual_environment(path: Path) -> Finding:
    if not (path / "bin" / "python").exists():
        return Finding("note", f"{path} is not there yet: bin/run makes it and installs the requirements from PyPI.")
    return Finding("ok", f"Virtual environment {path}")


def kernel_has_wireguard() -> bool:
    if Path("/sys/module/wireguard").exists():
        return True
    modules = Path("/lib/modules") / platform.release()
    lists = [modules / "modules.dep", modules / "modules.builtin"]
    return any("/wireguard.ko" in path.read_text(errors="replace") for path in lists if path.exists())


def wireguard(kernel: bool, tun: Path) -> Iterator[Finding]:
    if kernel:
        yield Finding("ok", "The kernel has WireGuard")
        return
    try:
        os.close(os.open(tun, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid():
            yield Finding("note", f"{tun} can be looked at by root only.")
        else:
            words = f"The kernel has no WireGuard, and {tun} cannot be opened ({error.strerror})"
            yield Finding("wrong", f"{words}: load the module tun, or give the container that device.")
    else:
        yield Finding("note", "The kernel has no WireGuard: wireguard-go is used, which is slower.")


def firewall() -> Iterator[Finding]:
    if shutil.which("nft") is None:
        yield Finding("note", "nft is not there yet (package nftables).")
        return
    rules = subprocess.run(["nft", "list", "chains"], capture_output=True, text=True, check=False)
    if rules.returncode:
        if os.geteuid() == 0:
            said = [*rules.stderr.strip().splitlines(), "nft failed"]
            yield Finding("wrong", f"nftables does not work here: {said[0]}")
        return
    yield Finding("ok", "nftables works")


def foreign_firewalls(wanted: Wanted) -> Iterator[Finding]:
    """Firewalls of others, which an accept in our table does not overrule."""
    if shutil.which("nft") is None or os.geteuid():
        return
    found = firewalls.in_the_way(gateway_port(wanted.var))
    if not found:
        yield Finding("ok", "No other firewall is in the way")
    for condition in found:
        # What it says ends with the commands that help, where it knows some.
        what, knows, commands = str(condition).partition(" pass: ")
        yield Finding("note", "\n           ".join([f"{what} pass:", *commands.split(" && ")] if knows else [what]))


def forwarding(path: Path) -> Finding:
    if path.read_text().strip() == "1":
        return Finding("ok", "IPv4 forwarding is on")
    return Finding("note", "IPv4 forwarding is off: it is turned on while the server runs, and put back when it stops.")


def disk(var: Path) -> Finding:
    existing = next(path for path in (var, *var.parents) if path.exists())
    free = shutil.disk_usage(existing).free // 2**20
    if free < LEAST_DISK_MB:
        return Finding(
            "wrong", f"Only {free} MB are free on the disk of {existing}; at least {LEAST_DISK_MB} are needed."
        )
    return Finding("ok", f"{free} MB free on the disk of {existing}")


def memory(meminfo: str) -> Finding:
    total = int(meminfo.split("MemTotal:")[1].split()[0]) // 1024
    if total < LEAST_MEMORY_MB:
        return Finding(
            "note", f"This machine has {total} MB of memory; with less than {LEAST_MEMORY_MB} it will be slow."
        )
    return Finding("ok", f"{total} MB of memory")


def var_files(var: Path) -> Iterator[Finding]:
    try:
        check_path(var)
    except RunError as error:
        yield Finding("wrong", str(error))
    if not var.exists():
        yield Finding("note", f"{var} does not exist yet: the first start makes it.")
        return
    if not os.access(var, os.R_OK | os.X_OK):
        yield Finding("note", f"{var} can be looked at by root only.")
        return
    loose = open_to_others(var)
    if loose:
        names = ", ".join(str(path) for path in loose)
        yield Finding("note", f"Others on this machine can use {names}; bin/run will close them.")
    database = next((path for path in (var / DATABASE, var / DATABASE.name) if path.exists()), None)
    if database and not (var / "field_keys").exists() and not _keys_elsewhere(var):
        yield Finding("wrong", f"{var / 'field_keys'} is missing, and {database} cannot be decrypted without it.")
    elif not loose:
        yield Finding("ok", f"Files in {var} are private")


def _keys_elsewhere(var: Path) -> bool:
    return bool({"FIELD_KEYS", "FIELD_KEYS_FILE"} & read_settings(var / "settings.env").keys())


def public_address(wanted: Wanted) -> Finding:
    try:
        address = network.choose_address(wanted.public_address, _choices(wanted.var).get("public_address"))
    except RunError as error:
        return Finding("wrong", str(error))
    doubt = address.doubt()
    return Finding("note" if doubt else "ok", f"Public address {address.text}" + (f": {doubt}" if doubt else ""))


def ports(wanted: Wanted) -> Iterator[Finding]:
    try:
        port, words = network.choose_port(wanted.port, _choices(wanted.var).get("port"))
        yield Finding("note" if words else "ok", f"Web on port {port}" + (f". {words}" if words else ""))
    except RunError as error:
        yield Finding("wrong", str(error))
    gateway = gateway_port(wanted.var)
    if network.port_free(gateway):
        yield Finding("ok", f"Gateway web on port {gateway}")
    else:
        yield Finding("wrong", gateway_taken(gateway))


def gateway_port(var: Path) -> int:
    text = read_settings(var / "settings.env").get("GATEWAY_PORT", "9790")
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise RunError(f"GATEWAY_PORT={text} in {var / 'settings.env'}: give a port number.")
    return int(text)


def gateway_taken(port: int) -> str:
    return (
        f"Port {port}, for pings through tunnels, is held by {network.port_holder(port)}: "
        "end that, or set GATEWAY_PORT in var/settings.env."
    )


def _choices(var: Path) -> dict[str, Any]:
    choices = var / "choices.json"
    return read_json(choices) if os.access(choices, os.R_OK) else {}


def own_processes(var: Path) -> bool:
    """Whether programs of this ``var`` run without their bin/run, which was killed."""
    instance = var / "instance"
    return os.access(instance, os.R_OK) and bool(processes.marked(instance.read_text().strip()))


def is_locked(path: Path) -> bool:
    """Whether a bin/run holds this lock. Looking changes nothing: the lock is given back at once."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
