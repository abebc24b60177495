"""Keeps the host's nginx as it is desired; see ``configuration`` for what it does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Protocol

from servers.hostnet.state import Code, HostCondition, HostState, Interface, Peer
from servers.hostnet.subsystem import Stage

from .configuration import configuration
from .proxy import HOMES, GatewayError, Proxy

log = logging.getLogger("hostnet.gateway")

LOOK_EVERY = 2.0  # seconds until one that died is started again


class Running(Protocol):
    """``Proxy``."""

    def run(self, text: str) -> None: ...
    def running(self) -> int: ...
    def remove(self) -> None: ...


class Forwarding:
    """A ``Subsystem``. Where ``HostState.gateways`` is empty there is nothing: pings are answered on this very machine,
    or nowhere. The work is a thread's, so that no connect waits for it."""

    stage = Stage.FOLLOWER

    def __init__(self, host: str, proxy: Running | None = None) -> None:
        self._home = HOMES / host
        self._proxy: Running = proxy or Proxy(self._home)
        self._desired: str | None = None  # a configuration, nothing (empty), or not known yet
        self._problem = ""
        self._given = threading.Condition()
        self._thread: threading.Thread | None = None

    def apply(self, state: HostState) -> None:
        desired = self._wanted(state)
        with self._given:
            self._desired = desired
            self._given.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="gateway", daemon=True)
                self._thread.start()

    def _wanted(self, state: HostState) -> str:
        return configuration(self._home, state.web_port, state.gateways) if state.gateways else ""

    def change(self, interface: Interface, gone: Sequence[Peer], new: Sequence[Peer]) -> None:
        """Nothing: it is the same for all peers."""

    def preview(self, state: HostState) -> list[str]:
        """As ``Subsystem`` says."""
        wanted, runs = self._wanted(state), bool(self._proxy.running())
        if bool(wanted) != runs:
            return [f"{'start' if wanted else 'end'} forwarding of pings to gateway web"]
        return ["forward pings to another gateway web"] if wanted and wanted != self._desired else []

    def drift(self) -> list[str]:
        """Nothing: whoever ended it is not waited for, and finds it started again."""
        return []

    def conditions(self) -> list[HostCondition]:
        problem = self._problem
        return [HostCondition.of(Code.GATEWAY_FAILED, f"no pings get through: {problem}")] if problem else []

    def _keep(self) -> None:
        while True:
            self._wait_while(self.look())

    def _wait_while(self, desired: str | None) -> None:
        """Until something else is desired, or it is time to look again."""
        with self._given:
            self._given.wait_for(lambda: self._desired != desired, timeout=LOOK_EVERY)

    def look(self) -> str | None:
        """One turn: have it run as desired, or not at all. What was desired."""
        desired = self._desired
        try:
            if desired:
                self._proxy.run(desired)
            elif self._proxy.running():
                self._proxy.remove()
            problem = ""
        except GatewayError as error:
            problem = str(error)
        except Exception as error:
            # Whatever it was, a thread that ends would leave dead what dies next.
            log.exception("gateway: the next turn tries again")
            problem = type(error).__name__
        if problem and problem != self._problem:
            log.error("gateway: %s", problem)
        self._problem = problem
        return desired
