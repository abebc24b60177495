"""Who ended and has lingered long enough is removed, by the host itself: no message comes for it."""

from __future__ import annotations

import logging
import threading
import time

from servers.hostnet.reconcile.apply import Applier

from .channel import Channel
from .heartbeat import report_gone

log = logging.getLogger("hostnet.endings")

EVERY = 0.5  # seconds


class Endings:
    """A thread that looks often; ``step`` is one turn."""

    def __init__(self, channel: Channel, applier: Applier) -> None:
        self._channel = channel
        self._applier = applier

    def start(self) -> None:
        """Go on in a thread that ends with the process."""
        threading.Thread(target=self._run, name="endings", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self.step()
            except Exception:
                # Whatever it was, others end as well. Until this one does, the firewall keeps it from everything.
                log.exception("those who have lingered could not be removed")
            time.sleep(EVERY)

    def step(self) -> None:
        report_gone(self._channel, self._applier.drop_overdue())
