"""Who may speak to our own Redis: the control side by one password, which is its alone, and this machine's host worker
by another, as the hosts of other machines do. Its own file of users has hashes only."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

from servers.hostnet.state.redis_urls import own_redis

from . import layout
from .files import write_private
from .privileges import REDIS

PASSWORD = Path("redis_password")
HOST_PASSWORD = Path("host", "redis_password")
USERS = Path("redis", "users.acl")


def prepare(var: Path) -> None:
    """Make the passwords that do not exist yet, and Redis' file of users; the control side adds the others."""
    made = _make(var / PASSWORD, layout.FILES[PASSWORD.name])
    _make(var / HOST_PASSWORD, layout.Place())
    if made or not (var / USERS).exists():
        text = f"user default on #{_hash(read(var / PASSWORD))} ~* &* +@all\n"
        write_private(var / USERS, text.encode(), layout.Place(REDIS, REDIS))


def _make(path: Path, place: layout.Place) -> bool:
    if path.exists():
        return False
    write_private(path, secrets.token_urlsafe(32).encode() + b"\n", place)
    return True


def read(path: Path) -> str:
    """The password in ``path``; empty where there is none."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


def host_hash(var: Path) -> str:
    """What the control side is told of the host worker's password."""
    return _hash(read(var / HOST_PASSWORD))


def _hash(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def url(var: Path) -> str:
    """Of our own Redis, for the control side."""
    return own_redis(var, read(var / PASSWORD))
