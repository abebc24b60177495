"""Where Redis is, in the spellings of those who look for it.

    unix:///path/redis.sock?db=0
    redis://[user:password@]host[:port]/0, rediss://…
    sentinel://[user:password@]host[:port],host[:port],…/MASTER[/db][?sentinel_user=…&sentinel_password=…]

The last names several Sentinels (port 26379 unless given; IPv6 addresses in brackets), who say where the Redis that
they call MASTER is now. User and password before the hosts are Redis's own, those of the query the Sentinels'.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from .addresses import host_and_port
from .mesh import Mesh

# In the place of an address in a host's URL: wherever the mesh that it last knew says.
MESH = "mesh"
SENTINEL_PORT = 26379
FORM = "sentinel://user:password@host1:26379,host2:26379/MASTER/0"
# Seconds for one of them to answer. One whose machine is gone is asked before the next one at each new connection.
SENTINEL_WITHIN = 1.0
# Seconds after which a worker that waits for messages looks whether Redis is still there: a machine that is gone says
# nothing of it.
LOOK_EVERY = 5
ANSWER_WITHIN = 5
_MASTER = re.compile(r"[\w.-]+", re.ASCII)
_QUERY = {"sentinel_user", "sentinel_password"}


@dataclass(frozen=True, slots=True)
class Login:
    user: str = ""
    password: str = field(default="", repr=False)

    def options(self) -> dict[str, str]:
        """redis-py's names of it."""
        return {name: text for name, text in (("username", self.user), ("password", self.password)) if text}

    def in_url(self) -> str:
        """What stands before the host."""
        if not self.user and not self.password:
            return ""
        return f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@"


@dataclass(frozen=True, slots=True)
class Sentinels:
    """A ``sentinel://`` URL, read. ``login`` is Redis's, ``own_login`` that of the Sentinels."""

    addresses: tuple[tuple[str, int], ...]
    master: str
    database: int
    login: Login
    own_login: Login

    def own_options(self) -> dict[str, Any]:
        """redis-py's options for connections to the Sentinels, without those about repeating."""
        limits = {"socket_timeout": SENTINEL_WITHIN, "socket_connect_timeout": SENTINEL_WITHIN}
        return {**limits, **self.own_login.options()}


def own_socket(var: Path) -> Path:
    """The socket of the Redis that the product runs itself, whose files are in ``var``."""
    return var / "redis" / "redis.sock"


def own_redis(var: Path, password: str = "", user: str = "default") -> str:
    """redis-py's URL of it, for who has a password, or who is in the group of Redis' where it asks for none."""
    return f"unix://{f'{user}:{password}@' if password else ''}{own_socket(var)}?db=0"


def is_sentinel(url: str) -> bool:
    return url.startswith("sentinel://")


def sentinels(url: str) -> Sentinels:
    """Read a ``sentinel://`` URL. Raise ``ValueError`` with words that show nothing of it but what is wrong."""
    # By hand: to urllib several hosts are none, and its words would show the password.
    rest, _, query = url.removeprefix("sentinel://").partition("?")
    authority, _, path = rest.partition("/")
    login, _, hosts = authority.rpartition("@")
    master, _, database = path.partition("/")
    if not _MASTER.fullmatch(master):
        raise ValueError(f"name the master that the Sentinels watch, as in {FORM}")
    if database and not database.isdecimal():
        raise ValueError(f"what follows the master is the number of a database, as in {FORM}")
    given = parse_qs(query, keep_blank_values=True)
    if given.keys() - _QUERY:
        raise ValueError(f"of what follows the question mark only {' and '.join(sorted(_QUERY))} are known")
    user, _, password = login.partition(":")
    own = (given.get(name, [""])[0] for name in ("sentinel_user", "sentinel_password"))
    return Sentinels(
        tuple(_address(text) for text in hosts.split(",")),
        master,
        int(database or 0),
        Login(unquote(user), unquote(password)),
        Login(*own),
    )


def _address(text: str) -> tuple[str, int]:
    try:
        return host_and_port(text.strip(), SENTINEL_PORT)
    except ValueError:
        raise ValueError(f"each Sentinel is host or host:port, with commas between them, as in {FORM}") from None


def broker_url(url: str) -> str:
    """Celery's form of it. For Sentinels ``broker_options`` belong to it."""
    if is_sentinel(url):
        found = sentinels(url)
        return ";".join(
            f"sentinel://{found.login.in_url()}{f'[{host}]' if ':' in host else host}:{port}/{found.database}"
            for host, port in found.addresses
        )
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    login = parts.netloc.rpartition("@")[0]
    database = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{login}{'@' if login else ''}{parts.path}?virtual_host={database}"


def with_password(url: str, password: str) -> str:
    """``url`` with the password of its user, where it names one and has none."""
    if is_sentinel(url):  # it has its own place for the password
        return url
    parts = urlsplit(url)
    if not parts.username or parts.password is not None or not password:
        return url
    return parts._replace(netloc=f"{parts.username}:{password}@{parts.netloc.rpartition('@')[2]}").geturl()


def with_login(url: str, login: Login) -> str:
    """``url`` (of TCP) for somebody else, who is known to Redis, and to Sentinels, by ``login`` alone."""
    if not is_sentinel(url):
        parts = urlsplit(url)
        return parts._replace(netloc=f"{login.in_url()}{parts.netloc.rpartition('@')[2]}").geturl()
    rest = url.removeprefix("sentinel://").partition("?")[0].partition("@")
    own = {f"sentinel_{name}": text for name, text in (("user", login.user), ("password", login.password)) if text}
    return f"sentinel://{login.in_url()}{rest[2] or rest[0]}{'?' if own else ''}{urlencode(own)}"


def in_mesh(url: str, mesh: Mesh | None) -> str:
    """``url`` with the address of Redis, where it says ``mesh`` (``redis://user:password@mesh/0``)."""
    if is_sentinel(url):  # they know where it is
        return url
    parts = urlsplit(url)
    if parts.hostname != MESH or mesh is None or not mesh.redis:
        return url
    login = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{login}{'@' if login else ''}{mesh.redis[0]}").geturl()


def broker_options(url: str) -> dict[str, Any]:
    """What Celery's ``broker_transport_options`` need beside their own."""
    if not is_sentinel(url):
        return {}
    found = sentinels(url)
    return {
        "master_name": found.master,
        "sentinel_kwargs": found.own_options(),
        "health_check_interval": LOOK_EVERY,
        # Of all else that a worker asks it: for good, a machine that is gone would be waited for.
        "socket_timeout": ANSWER_WITHIN,
        "socket_connect_timeout": ANSWER_WITHIN,
    }
