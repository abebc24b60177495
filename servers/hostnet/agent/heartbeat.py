"""The host's heartbeat: a thread that says the host is alive, and knows what to do when nobody hears it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from servers.hostnet.clock import steady
from servers.hostnet.reconcile.apply import Applier
from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.reconcile.held import Gone
from servers.hostnet.state.reach import Reach, reach_to_json
from servers.hostnet.state.version import FORMAT, VERSION

from . import machine
from .channel import Beat, Channel

log = logging.getLogger("hostnet.heartbeat")

INTERVAL = 2.0  # seconds between heartbeats
ALONE_AFTER = 30.0  # seconds without Redis until the host judges silence by itself
SWEEP_EVERY = 10.0
HELLO_EVERY = 30.0  # seconds between hellos while no full state came


def report_gone(channel: Channel, gone: list[Gone]) -> None:
    """Report the connections that really ended, by reason."""
    for reason in sorted({each.reason for each in gone}):
        connections = [each.connection for each in gone if each.reason == reason]
        channel.report("removed", connections=connections, reason=reason)


class Heartbeat:
    """Heartbeat, hello and the sweep of silent peers; ``step`` is one turn."""

    def __init__(
        self,
        channel: Channel,
        applier: Applier,
        desired: Desired,
        backend: str,
        clock: Callable[[], float] = steady,
        mesh_key: str = "",
        ways: Callable[[], Mapping[str, Reach]] = dict,
    ) -> None:
        self._channel = channel
        self._applier = applier
        self._desired = desired
        self._backend = backend
        self._clock = clock
        self._mesh_key = mesh_key
        self._ways = ways  # to the other machines of the mesh
        self._alone_since: float | None = None
        self._swept = 0.0
        self._greeted = 0.0

    def start(self) -> None:
        """Say hello, and go on in a thread that ends with the process."""
        self.hello()
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self.step()
            except Exception:
                # Whatever it was, a host that stops beating is given up by everybody. The next turn tries again.
                log.exception("the heartbeat missed a beat")
            time.sleep(INTERVAL)

    def hello(self) -> None:
        """Ask for a full state that answers this run."""
        self._greeted = self._clock()
        self._channel.report("hello", backend=self._backend, mesh_key=self._mesh_key)

    def step(self) -> None:
        now = self._clock()
        ways = self._ways()
        beat = self._channel.beat(
            reach=reach_to_json(ways) if ways else "",
            version=self._desired.version,
            backend=self._backend,
            peers=self._applier.peer_count(),
            worker=VERSION,
            speaks=FORMAT,
            load=machine.load(),
            traffic=machine.traffic(self._desired.names()),
        )
        if beat is Beat.UNREACHABLE:
            self._alone(now)
            return
        back, self._alone_since = self._alone_since is not None, None
        # Reports that waited go first, so that the full state which answers the hello knows what was removed.
        self._channel.flush()
        if back or beat is Beat.FORGOTTEN or (not self._desired.ready and now - self._greeted >= HELLO_EVERY):
            self.hello()

    def _alone(self, now: float) -> None:
        if self._alone_since is None:
            self._alone_since = now
            log.warning("Redis cannot be reached; tunnels stay as they are")
        if now - self._alone_since > ALONE_AFTER and now - self._swept >= SWEEP_EVERY:
            self._swept = now
            report_gone(self._channel, self._applier.drop_silent())
