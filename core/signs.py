"""Signs of life: counts in Redis that a program raises while it does its work. ``bin/run`` restarts one whose count
stands still. Without Django: the supervising side reads them."""

from __future__ import annotations

from contextlib import suppress

import redis

from .nodes import ME


def key(node: str = ME) -> str:
    """Of a hash, by the program's name. Each control node has one: what another one does says nothing of its programs.
    Who reads it also writes to it, so as to know whether anybody can."""
    return f"signs:{node}"


def note(client: redis.Redis, program: str, node: str = ME) -> None:
    """Without Redis nobody can see it, and nobody looks."""
    with suppress(redis.RedisError):
        client.hincrby(key(node), program, 1)
