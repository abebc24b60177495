"""Signs of life: counts in Redis that a program raises while it does its work. ``bin/run`` restarts one whose count
stands still. Without Django: the supervising side reads them."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import redis

# A hash, by the program's name. Who reads it also writes to it, so as to know whether anybody can.
KEY: Final = "signs"


def note(client: redis.Redis, program: str) -> None:
    """Without Redis nobody can see it, and nobody looks."""
    with suppress(redis.RedisError):
        client.hincrby(KEY, program, 1)
