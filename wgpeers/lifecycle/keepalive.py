"""What one process knows of pings between two looks at the stores, so that a ping waits for neither.

One thread does both halves with Redis: it writes the pings of the last moment, many in one message, and it hears which
connections have ended. Only while it hears Redis (``trusted``) may a ping be answered from what the process remembers;
an end is published when the deadline is taken away, and heard within a moment.

Redis being away makes no ping wait or fail: what could not be written is written when it is back.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis

from core.redis_store import RedisUnavailable, redis_client

from . import liveness
from .liveness import Ping

log = logging.getLogger(__name__)

EVERY = 0.2  # seconds between two writings
ECHO_EVERY = 0.5  # seconds between two messages to ourselves, by which we know that we hear
# Seconds without an answer after which ends may have been missed. An end needs the same Redis to be told.
SILENCE = 2.0
# Seconds for which an end is kept: longer than anything that was read before it is trusted.
KEEP_ENDS = 600.0


@dataclass(slots=True)
class Keepalive:
    """Of one process. ``monotonic`` is a clock that nobody sets."""

    monotonic: Callable[[], float] = time.monotonic
    # Raised with each new subscription: ends may have been missed before it, so what was read before it is void.
    era: int = 0
    _pending: dict[str, Ping] = field(default_factory=dict)
    _ended: dict[str, float] = field(default_factory=dict)
    _heard: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)  # of _pending
    _writing: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def trusted(self, era: int) -> bool:
        """Whether every end since ``era`` was heard."""
        heard = self._heard
        return era == self.era and heard is not None and self.monotonic() - heard < SILENCE

    def has_ended(self, connection: str) -> bool:
        """Whether its end was heard."""
        return connection in self._ended

    def note(self, ping: Ping) -> None:
        """Have its deadline moved within a moment."""
        with self._lock:
            self._pending[ping.connection] = ping.after(self._pending.get(ping.connection))
        if self._thread is None or not self._thread.is_alive():  # nor is it in a process that was forked
            self._start()

    def write(self) -> None:
        """Write what is pending now. Raise ``RedisUnavailable``; it is pending still, then."""
        with self._writing:
            with self._lock:
                taken, self._pending = self._pending, {}
            try:
                unknown = liveness.write(taken.values())
            except RedisUnavailable:
                with self._lock:
                    for name, ping in taken.items():
                        newer = self._pending.get(name)
                        self._pending[name] = newer.after(ping) if newer else ping
                raise
            self._note_ended(unknown)  # or Redis lost it: the next ping asks the database

    def forget(self) -> None:
        """Start again as a new process would."""
        with self._writing, self._lock:
            self._pending.clear()
            self._ended.clear()
            self.era += 1

    # The thread

    def _start(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="keepalive", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        down = False
        while True:
            try:
                self._listen_and_write()
            except (redis.RedisError, RedisUnavailable) as error:
                self._heard = None
                if not down:
                    log.error("pings are kept until Redis is back: %s", type(error).__name__)
                down = True
                time.sleep(EVERY)
            except Exception:
                self._heard = None
                log.exception("the keepalive thread starts again")
                time.sleep(EVERY)
            else:
                down = False

    def _listen_and_write(self) -> None:
        """One subscription's life: until Redis fails, or is another one."""
        client: Any = redis_client()
        echo = f"keepalive:echo:{secrets.token_hex(8)}"
        with client.pubsub(ignore_subscribe_messages=True) as subscription:
            subscription.subscribe(liveness.ENDED, echo)
            self.era += 1
            echoed, written = -ECHO_EVERY, -EVERY
            while client is redis_client():
                now = self.monotonic()
                # Not after each end that is heard: in a storm each connect ends another connection.
                if now - written >= EVERY:
                    written = now
                    self.write()
                if now - echoed >= ECHO_EVERY:
                    echoed = now
                    client.publish(echo, repr(echoed))
                    self._prune(echoed)
                left = written + EVERY - self.monotonic()
                self._take(subscription.get_message(timeout=max(0.0, left)), echo)

    def _take(self, message: dict[str, str] | None, echo: str) -> None:
        if message is None:
            return
        if message["channel"] == echo:
            # Messages come in order: all ends that were published before this one was sent have been heard now.
            self._heard = float(message["data"])
        else:
            self._note_ended(message["data"].split())

    def _note_ended(self, connections: list[str]) -> None:
        now = self.monotonic()
        self._ended |= dict.fromkeys(connections, now)

    def _prune(self, now: float) -> None:
        # In the order of their ends; only this thread and a writer under _writing add to it.
        for name, since in list(self._ended.items())[:1000]:
            if now - since > KEEP_ENDS:
                self._ended.pop(name, None)


keepalive = Keepalive()
