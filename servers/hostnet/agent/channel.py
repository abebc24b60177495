"""What the host says: reports, heartbeat and confirmations, as plain values in Redis under ``host.<id>``.

Redis may be away at any time. Reports then wait here, in order; confirmations do not, since nobody waits for them
that long. Nothing in this module raises because Redis is gone.
"""

from __future__ import annotations

import enum
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from servers.hostnet.state import redis_connections
from servers.hostnet.state.beats import ALIVE_FOR, FRESH_FOR

log = logging.getLogger("hostnet.channel")

TIMEOUT = 2.0  # seconds for one request to Redis
CONFIRM_FOR = 30  # seconds a confirmation that nobody fetches is kept
REPORTS_KEPT = 10_000  # in Redis, and here while Redis is away


class Beat(enum.Enum):
    """What became of a heartbeat. FORGOTTEN: Redis took it, but no longer has the one before."""

    FINE = enum.auto()
    FORGOTTEN = enum.auto()
    UNREACHABLE = enum.auto()


class Channel:
    """This run's way to the control side. Threads may share it."""

    def __init__(self, host: str, url: str, boot: str, clock: Callable[[], float] = time.time) -> None:
        self.boot = boot
        self._prefix = f"host.{host}"
        self._clock = clock
        # No retries of its own: every caller here has a better one, at its next turn.
        self._redis = redis_connections.client(
            url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=Retry(NoBackoff(), 0)
        )
        self._reports: deque[str] = deque(maxlen=REPORTS_KEPT)
        self._sending = threading.Lock()  # keeps reports in order
        self._last_beat = ""

    def report(self, kind: str, **fields: Any) -> None:
        """Send a report, or keep it until Redis is back."""
        self._reports.append(json.dumps({"kind": kind, "boot": self.boot, "time": self._clock(), **fields}))
        self.flush()

    def said(self, kind: str) -> bool:
        """Whether a report, and all that waited before it, has been sent."""
        self.report(kind)
        return not self._reports

    def flush(self) -> None:
        """Send the reports that are waiting. One whose answer was lost is sent again: they all bear repetition."""
        with self._sending:
            try:
                while self._reports:
                    batch = [self._reports[index] for index in range(min(100, len(self._reports)))]
                    with self._redis.pipeline() as pipe:
                        pipe.rpush(f"{self._prefix}:reports", *batch)
                        pipe.ltrim(f"{self._prefix}:reports", -REPORTS_KEPT, -1)
                        pipe.execute()
                    for _ in batch:
                        self._reports.popleft()
            except redis.RedisError as error:
                log.debug("reports wait: %s", type(error).__name__)

    def confirm(self, answers: Iterable[tuple[str, str]]) -> None:
        """Push each ``(list, text)``; a failure costs the waiting side its time limit and nothing else."""
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                for name, text in answers:
                    pipe.rpush(name, text)
                    pipe.expire(name, CONFIRM_FOR)
                pipe.execute()
        except redis.RedisError as error:
            log.warning("confirmations lost: %s", type(error).__name__)

    def beat(self, reach: str = "", **fields: Any) -> Beat:
        """Renew the heartbeat, and what this machine says of its ways to others (``state.reach``)."""
        text = json.dumps({"boot": self.boot, "time": self._clock(), **fields})
        try:
            with self._redis.pipeline() as pipe:
                pipe.set(f"{self._prefix}:alive", text, ex=ALIVE_FOR, get=True)
                if reach:
                    pipe.set(f"{self._prefix}:reach", reach, ex=ALIVE_FOR)
                pipe.set(f"{self._prefix}:fresh", "1", ex=FRESH_FOR)
                before = pipe.execute()[0]
        except redis.RedisError:
            return Beat.UNREACHABLE
        known = isinstance(before, bytes) and before.decode() == self._last_beat
        forgotten = bool(self._last_beat) and not known
        self._last_beat = text
        return Beat.FORGOTTEN if forgotten else Beat.FINE
