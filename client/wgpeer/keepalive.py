"""Keep one connection alive: ping it, notice when it is lost, sync the profile now and then."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from nacl.public import PrivateKey

from wgpeer import constants as c
from wgpeer.api_client import ApiClient, Failed
from wgpeer.clock import Clock
from wgpeer.envelope import b64
from wgpeer.profile import ApiHost
from wgpeer.responses import Configuration, Ended


@dataclass(slots=True)
class Connection:
    """A connection that the server allowed, and the WireGuard key made for it. ``started`` and ``last_good`` (the last
    good ping, or the connect itself) are ``Clock.boottime``, ``renew_at`` too: when a new key is to be asked for;
    ``pinged`` says that a ping has been good."""

    configuration: Configuration
    key: PrivateKey = field(repr=False)
    host: ApiHost
    started: float
    last_good: float
    pinged: bool = False
    renew_at: float = math.inf

    @property
    def public_key(self) -> str:
        """In base64."""
        return b64(bytes(self.key.public_key))

    @property
    def ends(self) -> float:
        """When the server ends it whatever is pinged, by ``Clock.boottime``."""
        return self.started + (self.configuration.session_left or math.inf)

    def plan_renewal(self, random: random.Random) -> None:
        """Choose when a new key is asked for: long enough before the end, and not when all others do."""
        ahead = min(c.RENEW_AHEAD, self.configuration.session_left * c.RENEW_SHARE)
        self.renew_at = self.ends - ahead * (1 - c.RENEW_JITTER * random.random())


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Why a connection is lost, or a ping not good. ``silent``: its host gave no response at all; ``status``: that of
    its response, 0 without one."""

    reason: str
    silent: bool = False
    status: int = 0


class Keepalive:
    """Pings one connection through the interface that ``interface`` names: the name may change when it is made anew.
    ``on_ping`` is called after each good ping, ``on_sync`` when a sync is due; it returns whether the sync worked."""

    def __init__(
        self,
        connection: Connection,
        interface: Callable[[], str],
        api: ApiClient,
        clock: Clock,
        on_ping: Callable[[], None],
        on_sync: Callable[[Connection], bool],
        random: random.Random,
    ) -> None:
        self._connection = connection
        self._interface = interface
        self._api = api
        self._clock = clock
        self._on_ping = on_ping
        self._on_sync = on_sync
        self._random = random
        self._sync_due = 0.0
        self._faulty = False  # it answers, and not as it should: asked often already

    def run(self) -> Disconnect | None:
        """Ping until the connection is lost, each interval and whenever the network has changed; None: until it is time
        to renew it. While the gateway answers at all it is kept, until ``ping_timeout`` is over. Raises ``Stopped``,
        from the clock."""
        if self._sync_due == 0:
            self._sync_due = self._clock.boottime() + c.SYNC_FIRST
        while True:
            asked = self._clock.boottime()
            failed = self._expired() or self.ping()
            if failed and failed.status < 500:
                return failed
            self._faulty = failed is not None
            if not failed:
                self._on_ping()
                if asked >= self._connection.renew_at:
                    return None
                if asked >= self._sync_due:
                    self._sync_due = asked + self._sync_pause(good=self._on_sync(self._connection))
            self._wait_until(self._next_ping(asked))

    def _next_ping(self, asked: float) -> float:
        due, renewal = asked + self._connection.configuration.ping_interval, self._connection.renew_at
        return min(due, renewal) if renewal > asked else due

    def _sync_pause(self, *, good: bool) -> float:
        pause = c.SYNC_INTERVAL if good else c.SYNC_RETRY
        return pause * (1 + c.SYNC_JITTER * (self._random.random() - 0.5))

    def ping(self) -> Disconnect | None:
        """One ping with its retries. None when it was good; with a ``status`` of 500 or more it lives nevertheless."""
        started, tries = self._clock.boottime(), 0
        while True:
            tries += 1
            lost, final = self._ping_once()
            if lost is None or final or (self._faulty and lost.status >= 500):
                return lost
            if tries >= c.PING_RETRIES or self._clock.boottime() - started >= c.PING_RETRY_LIMIT:
                return lost
            self._clock.wait(c.PING_RETRY_PAUSE)

    def _ask(self) -> Ended | Failed | None:
        """Ask once, in several tries while nothing comes at all."""
        connection = self._connection
        timeout = c.PING_RESPONSE_TIMEOUT if connection.pinged else c.FIRST_PING_RESPONSE_TIMEOUT
        result: Ended | Failed | None = None
        for connect in c.PING_CONNECTS if connection.pinged else (timeout,):
            result = self._api.ping(
                connection.configuration, connection.public_key, self._interface(), timeout, connect
            )
            if not (isinstance(result, Failed) and result.silent):
                break
        return result

    def _ping_once(self) -> tuple[Disconnect | None, bool]:
        """One ping. Why the connection is lost (None: it is not), and whether that is final or worth another try."""
        connection = self._connection
        result = self._ask()
        if result is None:
            connection.last_good, connection.pinged = self._clock.boottime(), True
            return None, True
        if isinstance(result, Ended):
            why = f": {result.reason}" if result.reason else ""
            return Disconnect(f"the server has ended this connection{why}"), True
        if 400 <= result.status < 500:
            return Disconnect(f"the server refused a ping ({result.status})"), True
        if result.silent:
            return Disconnect("the host is silent", silent=True), True
        return Disconnect(f"pings fail: {result.reason}", status=result.status), False

    def _expired(self) -> Disconnect | None:
        """After ``ping_timeout`` without a good ping the server has revoked the key: do not even ask."""
        asleep = self._clock.boottime() - self._connection.last_good
        if asleep < self._connection.configuration.ping_timeout:
            return None
        return Disconnect(f"no good ping for {asleep:.0f} s, perhaps asleep")

    def _wait_until(self, due: float) -> None:
        # In slices: a sleep stands still while the machine is suspended, this clock does not. So a wake-up is seen
        # within one slice, whatever was left of the sleep.
        while (left := due - self._clock.boottime()) > 0:
            if self._clock.wait(min(left, c.MAX_SLEEP)):
                return
