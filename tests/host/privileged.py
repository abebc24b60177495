"""What each process of a running product may do, and what it can open, held against the one table."""

from __future__ import annotations

import json
import os
import shlex
from configparser import RawConfigParser
from pathlib import Path

from tests.lab import Machine
from vpnproject.runner import front, mounts, privileges
from vpnproject.runner.privileges import TABLE, Kept

# Of linux/capability.h.
NUMBERS = {"kill": 5, "setgid": 6, "setuid": 7, "setpcap": 8, "net_bind_service": 10, "net_admin": 12, "net_raw": 13}
# Says which of the things it is given it can open, by any of their paths. Run by the system's Python, alone.
PROBE = """
import json, os, socket, stat, sys

def opens(path):
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            socket.socket(socket.AF_UNIX).connect(path)
        elif os.path.isdir(path):
            open(os.path.join(path, os.listdir(path)[0]), "rb").read(1)
        else:
            open(path, "rb").read(1)
    except (OSError, IndexError):
        return False
    return True

asked = json.loads(sys.argv[1])
print(json.dumps([name for name, paths in asked.items() if any(opens(path) for path in paths)]))
"""


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in lines)}


def as_the_table_says(name: str) -> dict[str, str]:
    row = TABLE[name]
    capabilities = f"{sum(1 << NUMBERS[each] for each in row.capabilities):016x}"
    uid, gid = privileges.uid(row.user), privileges.gid(row.user)
    return {
        "Uid": " ".join([str(uid)] * 4),
        "Gid": " ".join([str(gid)] * 4),
        "Groups": " ".join(str(privileges.gid(group)) for group in row.groups),
        **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), capabilities),
        "NoNewPrivs": "1",
    }


def may(pid: int) -> dict[str, str]:
    found = status(pid)
    return {name: found[name] for name in as_the_table_says("web")}


def niceness(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


def dumps_no_core(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line.split()[4:6] for line in lines if line.startswith("Max core file size")) == ["0", "0"]


def opened(machine: Machine, supervisor: int, name: str, var: Path, instance: str) -> set[Kept]:
    """What a process that is started exactly as the program ``name`` can open."""
    house, home = mounts.HOMES / instance, front.directory(instance)
    paths: dict[Kept, list[str]] = {}
    for where in (var, house / "var"):
        for kept, path in privileges.places(where, home).items():
            paths.setdefault(kept, []).append(str(path))
        paths[Kept.TLS_KEY].append(str(where / "certificate_key.pem"))
    paths[Kept.HOST_KEYS].append(str(house / "host" / "host" / "keys"))
    paths[Kept.REDIS].append(str(house / "host" / "redis" / "redis.sock"))
    # In the namespaces of supervisor, whose child it would be.
    enter = ("nsenter", "--target", str(supervisor), "--net", "--mount", "--")
    command = [*enter, *words_before(name, var), "/usr/bin/python3", "-I", "-c", PROBE, json.dumps(paths)]
    return {Kept(each) for each in json.loads(machine.run(*command).stdout)}


def words_before(name: str, var: Path) -> list[str]:
    """All of a program's command that makes it what it is, from what supervisor was told."""
    if name == "setup":
        return list(privileges.wrapped(name, []))
    told = RawConfigParser()
    told.read_string((var / "supervisord.conf").read_text())
    words = shlex.split(told[f"program:{name}"]["command"])
    return words[: words.index("--no-new-privs") + 1]
