"""Where Redis is, in the spellings of those who look for it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from .mesh import Mesh

# In the place of an address in a host's URL: wherever the mesh that it last knew says.
MESH = "mesh"


def own_socket(var: Path) -> Path:
    """The socket of the Redis that the product runs itself, whose files are in ``var``."""
    return var / "redis" / "redis.sock"


def own_redis(var: Path, password: str = "", user: str = "default") -> str:
    """redis-py's URL of it, for who has a password, or who is in the group of Redis' where it asks for none."""
    return f"unix://{f'{user}:{password}@' if password else ''}{own_socket(var)}?db=0"


def broker_url(url: str) -> str:
    """Celery's form of a redis-py URL: the same, save for unix sockets."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    login = parts.netloc.rpartition("@")[0]
    database = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{login}{'@' if login else ''}{parts.path}?virtual_host={database}"


def with_password(url: str, password: str) -> str:
    """``url`` with the password of its user, where it names one and has none."""
    parts = urlsplit(url)
    if not parts.username or parts.password is not None or not password:
        return url
    return parts._replace(netloc=f"{parts.username}:{password}@{parts.netloc.rpartition('@')[2]}").geturl()


def in_mesh(url: str, mesh: Mesh | None) -> str:
    """``url`` with the address of Redis, where it says ``mesh`` (``redis://user:password@mesh/0``)."""
    parts = urlsplit(url)
    if parts.hostname != MESH or mesh is None or not mesh.redis:
        return url
    login = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{login}{'@' if login else ''}{mesh.redis[0]}").geturl()
