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


def own_redis(var: Path) -> str:
    """redis-py's URL of it."""
    return f"unix://{own_socket(var)}?db=0"


def broker_url(url: str) -> str:
    """Celery's form of a redis-py URL: the same, save for unix sockets."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    login = parts.netloc.rpartition("@")[0]
    database = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{login}{'@' if login else ''}{parts.path}?virtual_host={database}"


def in_mesh(url: str, mesh: Mesh | None) -> str:
    """``url`` with the address of Redis, where it says ``mesh`` (``redis://user:password@mesh/0``)."""
    parts = urlsplit(url)
    if parts.hostname != MESH or mesh is None or not mesh.redis:
        return url
    login = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{login}{'@' if login else ''}{mesh.redis[0]}").geturl()
