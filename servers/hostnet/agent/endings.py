"""Who ended and has lingered long enough is removed, and whose new key works takes over from the old one: by the host
itself, for no message comes for it."""

from __future__ import annotations

import logging
import threading
import time

from servers.hostnet.reconcile.apply import Applier

from .channel import Channel
from .heartbeat import report_gone

log = logging.getLogger("hostnet.endings")

EVERY = 0.5  # seconds
# Reading all peers for those that wait takes at most this share of the time.
SHARE = 0.2


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
            began = time.monotonic()
            try:
                self.step()
            except Exception:
                # Whatever it was, others end as well. Until this one does, the firewall keeps it from everything.
                log.exception("those who have lingered could not be removed")
            time.sleep(max(EVERY, (time.monotonic() - began) * (1 / SHARE - 1)))

    def step(self) -> None:
        report_gone(self._channel, self._applier.drop_overdue())
        report_gone(self._channel, self._applier.hand_over())
