"""What one process at a time may do, of all those on all machines: a *lease*, kept in Redis.

Its holder gives it a new *stamp* again and again while it has it. Whoever else would like it watches the stamp by a
clock of its own that nobody sets: once it has stood still for long enough, the holder is dead, and one of those who
wait takes the lease over. So no time of day has a part in it, on whatever machine, and nothing runs out in Redis.

A stamp is random and never comes again. (A count would: it starts anew where the lease was given up, or Redis lost its
memory, and whoever saw the same count before then would take it for one that stood still.)

A holder that is frozen may go on, for a moment, with what it began while it had the lease. So what a lease is for must
bear being done twice; each new holder has a higher ``term``.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field

from . import clock
from .redis_store import redis_client

# The lease of whoever sends the sweeps; its label is a control node's.
BEAT = "beat"

# One step: has it, or takes it where nobody has it or where it is as it was when it was last seen to move. Returns the
# stamp of somebody else who has it, or nothing.
_HOLD = """
local holder, stamp = redis.call('HGET', KEYS[1], 'holder'), redis.call('HGET', KEYS[1], 'stamp') or ''
if holder ~= ARGV[1] then
  if holder and stamp ~= ARGV[4] then return stamp end
  redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'label', ARGV[2])
  redis.call('HINCRBY', KEYS[1], 'term', 1)
end
redis.call('HSET', KEYS[1], 'stamp', ARGV[3])
return false
"""
# The term stays, so that the next one is higher.
_RELEASE = """
if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then redis.call('HDEL', KEYS[1], 'holder', 'label', 'stamp') end
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a lease, in words, and how often it has changed hands."""

    label: str
    term: int


@dataclass(slots=True)
class Lease:
    """One process's side of the lease ``name``. ``patience``: seconds for which the count may stand still; its holder
    calls ``hold`` several times as often. ``label`` tells people who has it. Threads may share it."""

    name: str
    patience: float
    label: str = ""
    me: str = field(default_factory=lambda: secrets.token_hex(8))
    # The stamp that was last seen of somebody else's, and since when it has been so.
    _seen: str | None = None
    _since: float = 0.0
    _held: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def key(self) -> str:
        return f"lease:{self.name}"

    def hold(self) -> bool:
        """Keep it, or take it where it is free; whether it is ours. Raise ``RedisError``."""
        with self._lock:
            asked = clock.steady()
            stands_still = asked - self._since >= self.patience
            known = self._seen if self._seen is not None and stands_still else self.me  # which is nobody's stamp
            seen = redis_client().eval(_HOLD, 1, self.key, self.me, self.label, secrets.token_hex(8), known)
            self._held = asked if seen is None else None
            if seen != self._seen:
                self._seen, self._since = seen, asked
            return seen is None

    def is_fresh(self) -> bool:
        """Whether it was ours so short a time ago that nobody else can have taken it since."""
        return self._held is not None and clock.steady() - self._held < self.patience / 2

    def release(self) -> None:
        """Let somebody else have it at once. Raise ``RedisError``."""
        with self._lock:
            self._held = None
            redis_client().eval(_RELEASE, 1, self.key, self.me)


def holder(name: str) -> Holder | None:
    """Raise ``RedisError``."""
    label, term = redis_client().hmget(f"lease:{name}", "label", "term")
    return None if label is None else Holder(str(label), int(term or 0))
