"""Who each program runs as, what it may do beyond that, and what it may open: one table, which all of it follows.

``wrapped`` turns a row into the words before a program's command. They are util-linux's ``setpriv``: what it gives up
cannot be taken back, and nothing of ours runs in between.
"""

from __future__ import annotations

import grp
import pwd
import resource
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from servers.hostnet.state.privileges import CAPABILITIES

from .console import RunError

ROOT = "root"
# The one that strangers reach; the control side; Redis. Each has a group of its own name.
FRONT, CONTROL, REDIS = USERS = ("vpn-front", "vpn-control", "vpn-redis")
# Who is in Redis' group may enter ``var`` and speak to Redis. Nothing else there is open to it.
_SPEAKS_TO_REDIS = (REDIS,)


class Kept(StrEnum):
    """What is worth something to an intruder."""

    SECRET_KEY = "secret_key"  # noqa: S105 (its name)
    FIELD_KEYS = "field_keys"
    SETTINGS = "settings.env"
    DATABASE = "database"
    TLS_KEY = "TLS key"
    HOST_KEYS = "host keys"
    REDIS = "Redis"
    REDIS_PASSWORD = "redis_password"  # noqa: S105 (its name)
    SUPERVISOR = "supervisor"


@dataclass(frozen=True, slots=True)
class Privileges:
    """``groups`` are those beside the user's own. Whoever has no capability keeps none, and can never get one. The
    lower ``niceness`` is, the sooner it has its turn where all processors are busy."""

    user: str
    groups: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    opens: frozenset[Kept] = frozenset()
    niceness: int = 0


# What a ping passes takes a millisecond now and then, and must not wait for it behind the connects of a storm; tunnels,
# and what every connect waits for, neither. Not web the other way: where a machine has other work as well, it would
# hardly have a turn.
_SOON, _FIRST = -5, -10

_CONTROL_SIDE = Privileges(
    user=CONTROL,
    groups=_SPEAKS_TO_REDIS,
    opens=frozenset({Kept.SECRET_KEY, Kept.FIELD_KEYS, Kept.SETTINGS, Kept.DATABASE, Kept.REDIS, Kept.REDIS_PASSWORD}),
)
# It is root since /dev/net/tun, /run/wireguard and /etc/unbound are root's, but root without the right to pass over the
# modes of files; and of ``var`` it sees its own part alone (``hidden.sh``).
_HOST_SIDE = Privileges(
    user=ROOT,
    groups=_SPEAKS_TO_REDIS,
    capabilities=CAPABILITIES,
    opens=frozenset({Kept.HOST_KEYS, Kept.REDIS}),
    niceness=_SOON,
)

TABLE: Mapping[str, Privileges] = MappingProxyType(
    {
        "redis": Privileges(REDIS, opens=frozenset({Kept.REDIS}), niceness=_SOON),
        # Port 443. It is no root to begin with: the key is given to its user, and there is nothing else to read.
        "front": Privileges(
            FRONT, capabilities=("net_bind_service",), opens=frozenset({Kept.TLS_KEY}), niceness=_FIRST
        ),
        "web": _CONTROL_SIDE,
        "waiting": _CONTROL_SIDE,
        "gateway": replace(_CONTROL_SIDE, niceness=_FIRST),
        "control": _CONTROL_SIDE,
        "keys": replace(_CONTROL_SIDE, niceness=19),
        "beat": _CONTROL_SIDE,
        "setup": _CONTROL_SIDE,
        "host": _HOST_SIDE,
    }
)


def wrapped(program: str, command: Sequence[str]) -> tuple[str, ...]:
    """``command`` as ``program`` of the table is to be run, by root."""
    row = TABLE[program]
    capabilities = ",".join(["-all", *(f"+{name}" for name in row.capabilities)])
    return (
        # By root, who may say so. Where even that one may not (in some containers), it goes on as it is.
        *(("nice", "-n", str(row.niceness)) if row.niceness else ()),
        *("setpriv", "--reuid", row.user, "--regid", row.user),
        *(("--groups", ",".join(row.groups)) if row.groups else ("--clear-groups",)),
        *("--inh-caps", capabilities, "--ambient-caps", capabilities, "--bounding-set", capabilities),
        *("--no-new-privs", *command),
    )


def forbid_core_dumps() -> None:
    """For us and all that we start: a core file of a program that crashed would have its secrets in it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def missing_users() -> list[str]:
    known = {user.pw_name for user in pwd.getpwall()}
    return [name for name in USERS if name not in known]


def make_users() -> None:
    """Make the system users that do not exist yet, each with a group of its name."""
    for name in missing_users():
        options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
        made = subprocess.run(
            ["useradd", *options, "--shell", "/usr/sbin/nologin", name], capture_output=True, text=True, check=False
        )
        # Another installation may have made it a moment ago: whether it is there is what counts.
        if name in missing_users():
            raise RunError(f"The system user {name} cannot be made: {made.stderr.strip()}")


def uid(user: str) -> int:
    return pwd.getpwnam(user).pw_uid


def gid(group: str) -> int:
    return grp.getgrnam(group).gr_gid


def places(var: Path, front: Path) -> dict[Kept, Path]:
    """Where these things are."""
    return {
        Kept.SECRET_KEY: var / "secret_key",
        Kept.FIELD_KEYS: var / "field_keys",
        Kept.SETTINGS: var / "settings.env",
        Kept.DATABASE: var / "database" / "db.sqlite3",
        Kept.TLS_KEY: front / "conf" / "key.pem",
        Kept.HOST_KEYS: var / "host" / "keys",
        Kept.REDIS: var / "redis" / "redis.sock",
        Kept.REDIS_PASSWORD: var / "redis_password",
        Kept.SUPERVISOR: var / "supervisor.sock",
    }
