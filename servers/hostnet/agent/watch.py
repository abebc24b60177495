"""What others take away from us is put back at once, not only with the next full state, and also while Redis is away.

Without our table the host's own services are open to its tunnels, and what is there for tunnels alone to everybody.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from servers.hostnet.clock import steady
from servers.hostnet.netlink.events import EVERYTHING, NOTHING, Changed, Events
from servers.hostnet.reconcile.apply import Applier
from servers.hostnet.reconcile.contest import LONGEST_PAUSE

from .channel import Channel
from .dispatcher import report_applied
from .heartbeat import report_gone

log = logging.getLogger("hostnet.watch")

TOGETHER = 0.05  # seconds for what comes at once to be there as a whole
# Looking takes at most this part of the time, however much there is to see (as where the changes are our own); but what
# is taken away is back within a second.
PART = 0.1
SHORTEST, LONGEST = 0.1, 0.5


class Watch:
    """A thread that listens to the kernel; ``step`` is one turn. What it finds it has the ``Applier`` put right, which
    does one thing at a time, whoever asks."""

    def __init__(
        self,
        channel: Channel,
        applier: Applier,
        listen: Callable[[], Events],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = steady,
    ) -> None:
        self._channel = channel
        self._applier = applier
        self._listen = listen
        self._sleep = sleep
        self._clock = clock
        self._events: Events | None = None
        self._todo = EVERYTHING  # to be looked at; at first whatever happened before anybody listened

    def start(self) -> None:
        """Go on in a thread that ends with the process."""
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self.step()
            except Exception:
                # Whatever it was: nobody else looks as soon.
                log.exception("what others change could not be looked at")
                self.listen_anew()
                self._sleep(LONGEST_PAUSE)

    def step(self) -> None:
        """Wait for something to happen, put right what it was, and pause."""
        if self._events is None:
            self._events = self._listen()
        self._todo |= self._events.wait(0 if self._todo else None)
        self._sleep(TOGETHER)
        self._todo |= self._events.wait(0)
        if self._todo:
            self._sleep(self._look())

    def _look(self) -> float:
        """Put right what is to be; for how long to pause then."""
        began = self._clock()
        report = self._applier.repair(tunnels=self._todo.links, host=self._todo.host)
        took = self._clock() - began
        self._todo = NOTHING
        if report is None:
            return min(LONGEST, max(SHORTEST, took / PART))
        if report.drift or not report.settled:
            log.warning("put back what others changed: %s", "; ".join(report.drift) or "not all of it")
        report_applied(self._channel, "repaired", report, took)
        report_gone(self._channel, report.gone)
        if report.settled:
            return self._applier.contest.pause()
        self._todo = Changed(table=True)  # the full states look after the rest
        return LONGEST_PAUSE

    def listen_anew(self) -> None:
        """What happened meanwhile nobody heard."""
        if self._events is not None:
            self._events.close()
        self._events, self._todo = None, EVERYTHING
