"""A profile that is up: connect, keep the connection alive, reconnect, without end. Clock, transport and tunnel are
arguments.

One connection attempt has one WireGuard key, which is offered to host after host, round after round, until one allows
it: so a response that was lost on the way is simply given again, and a one-time code stays good. Each new connection
has a new key. While reconnecting, the old interface and its routes stay, so nothing leaks around the tunnel.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from nacl.public import PrivateKey

from wgpeer import constants as c
from wgpeer import status as s
from wgpeer.api_client import ApiClient, ConnectResult, Credentials, Failed, SignInPending, gateway_url
from wgpeer.clock import Clock
from wgpeer.envelope import b64
from wgpeer.factors import FactorToken
from wgpeer.keepalive import Connection, Disconnect, Keepalive
from wgpeer.profile import ApiHost, Profile, ProfileError, merge
from wgpeer.responses import Allowed, Configuration, Refused, SignInRequired
from wgpeer.status import Health, Status


class SessionEnded(Exception):
    """The session is over and a person must act. The message says why; ``reg_key`` as in ``Refused``."""

    def __init__(self, reason: str, reg_key: str = "") -> None:
        super().__init__(reason)
        self.reg_key = reg_key


class TunnelError(Exception):
    """The tunnel cannot be built. The message says why and what to do."""


class Tunnel(Protocol):
    """The tunnel on this machine. Everything is empty (``mtu``: 0) while it is down; ``dns`` and ``routes`` are for
    people."""

    @property
    def interface(self) -> str: ...

    @property
    def backend(self) -> str: ...

    @property
    def dns(self) -> str: ...

    @property
    def routes(self) -> str: ...

    @property
    def mtu(self) -> int: ...

    @property
    def health(self) -> Health: ...

    def up(self, configuration: Configuration, key: PrivateKey, *, use_dns: bool, use_default_route: bool) -> str:
        """Build the tunnel, or change the one that is up. Returns the endpoint as ADDRESS:PORT. Raises
        ``TunnelError``."""

    def down(self) -> None:
        """Remove everything that ``up`` made. No error when there is nothing."""


@dataclass(slots=True)
class RoundResult:
    """The result of offering a key to every host once. ``answered``: a host gave an HTTP response; ``key_spent``: a
    host says that the key was used before; ``wait`` is the least time in seconds before the next round."""

    connection: Connection | None = None
    answered: bool = False
    key_spent: bool = False
    wait: float = 0.0


@dataclass(slots=True)
class Session:
    """Keeps one profile connected.

    ``report`` is called with each new status, ``save`` with each profile that a sync brought, ``log`` with lines for
    the log (never a secret), ``prefetch`` with names of API hosts that will be needed when no resolver answers.
    """

    api: ApiClient
    clock: Clock
    tunnel: Tunnel
    token: FactorToken
    password: str = field(repr=False)
    report: Callable[[Status], None]
    save: Callable[[Profile], None]
    log: Callable[[str], None]
    prefetch: Callable[[list[str]], None] = lambda _hosts: None
    random: random.Random = field(default_factory=random.SystemRandom)
    status: Status = field(default_factory=Status)
    _not_before: dict[ApiHost, float] = field(default_factory=dict)
    _silent_hosts: set[ApiHost] = field(default_factory=set)
    _dead_endpoints: frozenset[str] = frozenset()
    _syncs_failed: int = 0
    _status_lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def profile(self) -> Profile:
        """As the last sync left it."""
        return self.api.profile

    def run(self) -> None:
        """Connect and reconnect until ``Stopped`` (from the clock), ``SessionEnded`` or, on the first connection only,
        ``TunnelError`` is raised. The tunnel is gone afterwards in every case."""
        previous, short_connections = None, 0
        try:
            while True:
                connection = self._connect(previous)
                self._connection_lost(connection, self._run_connection(connection, new=connection is not previous))
                previous = connection
                short = self.clock.boottime() - connection.started < c.SHORT_CONNECTION
                short_connections = short_connections + 1 if short else 0
                if short_connections > 1:
                    self.clock.wait(min(c.RECONNECT_PAUSE_MAX, c.RECONNECT_PAUSE * 2 ** min(short_connections - 2, 10)))
        finally:
            self.tunnel.down()

    # --- connecting ---------------------------------------------------------------------------------------------------

    def _connect(self, previous: Connection | None) -> Connection:
        key, started = PrivateKey.generate(), self.clock.boottime()
        self._update_status(state=s.RECONNECTING if previous else s.CONNECTING, message="")
        while True:
            outcome = self._try_all_hosts(key)
            if outcome.connection:
                return outcome.connection
            if outcome.key_spent:
                key = PrivateKey.generate()
            if previous and not outcome.answered and self._old_connection_works(previous):
                return previous
            pause = self._round_pause(outcome, started)
            self._update_status(message=self._pause_words(outcome, pause))
            self.clock.wait(pause)

    def _try_all_hosts(self, key: PrivateKey) -> RoundResult:
        """Offer the key to each host once. Raises ``SessionEnded`` when one refuses for good."""
        outcome, waits = RoundResult(), list[float]()
        for host in self._hosts_in_order():
            now = self.clock.boottime()
            if self._not_before.get(host, 0.0) > now:
                waits.append(self._not_before[host] - now)
                continue
            result = self._request_connection(host, key)
            if isinstance(result, Allowed):
                self.token.accepted(self.clock.wall())
                now = self.clock.boottime()
                return RoundResult(Connection(result.configuration, key, host, now, now), answered=True)
            self._note_failure(host, result, outcome)
            waits.append(max(0.0, self._not_before.get(host, 0.0) - self.clock.boottime()))
        outcome.wait = min(waits, default=0.0)
        return outcome

    def _request_connection(self, host: ApiHost, key: PrivateKey) -> Allowed | Failed:
        credentials = Credentials(b64(bytes(key.public_key)), self.password, self.token.current(self.clock.wall()))
        self._update_status(host=host.url, message="")
        result = self.api.connect(host, credentials)
        if isinstance(result, SignInRequired):
            result = self._sign_in(host, credentials, result)
        if isinstance(result, Refused):
            self.token.forget()
            self._take_sync(host.url, "")  # perhaps it asks for other factors by now: so that the next start knows
            raise SessionEnded(result.reason, result.reg_key)
        return result if isinstance(result, (Allowed, Failed)) else Failed(f"{host.url} gave a response out of place")

    def _sign_in(self, host: ApiHost, credentials: Credentials, asked: SignInRequired) -> ConnectResult:
        """Show the address, then ask until the user has signed in. A host that fails meanwhile is asked again: the
        sign-in belongs to it. Raises ``SessionEnded`` when nobody signs in in time."""
        limit = self.clock.boottime() + c.SIGN_IN_TIMEOUT
        before = self.status.state
        self._update_status(state=s.SIGNING_IN, sign_in_url=asked.url)
        self.log("waiting for a sign-in; its address is shown by: wgpeer status")
        while self.clock.boottime() < limit:
            result = self.api.wait_for_sign_in(host, credentials, asked.token)
            patient = isinstance(result, SignInPending) or (
                isinstance(result, Failed) and not 400 <= result.status < 500
            )
            if not patient:
                self._update_status(state=before, sign_in_url="")
                return result
            self.clock.wait(c.SIGN_IN_PAUSE)
        raise SessionEnded("nobody signed in in time; start again with: wgpeer up")

    def _note_failure(self, host: ApiHost, failed: Failed, outcome: RoundResult) -> None:
        self.log(f"{host.url}: {failed.reason}")
        self._update_status(last_error=failed.reason)
        (self._silent_hosts.add if failed.silent else self._silent_hosts.discard)(host)
        outcome.answered = outcome.answered or failed.status > 0
        outcome.key_spent = outcome.key_spent or failed.status == 409
        if pause := failed.retry_after or c.BACK_OFF.get(failed.status, 0.0):
            self._not_before[host] = self.clock.boottime() + pause
            self.log(f"{host.url}: asked again in {pause:.0f} s at the earliest")

    def _hosts_in_order(self) -> list[ApiHost]:
        """Sync hosts in random order, then the remotes; those that were silent a moment ago last of all."""
        shuffled = list(self.profile.sync_hosts)
        self.random.shuffle(shuffled)
        hosts: Sequence[ApiHost] = list(dict.fromkeys([*shuffled, *self.profile.remotes]))
        return sorted(hosts, key=lambda host: host in self._silent_hosts or host.name in self._dead_endpoints)

    def _round_pause(self, outcome: RoundResult, started: float) -> float:
        patient = self.clock.boottime() - started < c.ROUND_PATIENCE
        pause = c.ROUND_PAUSE if patient else c.ROUND_PAUSE_LATER
        return max(outcome.wait, pause * (1 + c.ROUND_JITTER * (self.random.random() - 0.5)))

    @staticmethod
    def _pause_words(outcome: RoundResult, pause: float) -> str:
        why = ", as the answers ask for" if outcome.wait >= pause else ""
        return f"no host allowed it; asking again in {pause:.0f} s{why}"

    def _old_connection_works(self, previous: Connection) -> bool:
        """No host gave any response: perhaps our own network was away, and the old connection is as good as ever. The
        ping carries the old key, so it revives nothing that the server has ended."""
        if not self.tunnel.interface:
            return False
        result = self.api.ping(
            previous.configuration, previous.public_key, self.tunnel.interface, c.PING_RESPONSE_TIMEOUT
        )
        if result is None:
            self.log("the network is back and the connection still good")
            previous.last_good = self.clock.boottime()
        return result is None

    # --- connected ----------------------------------------------------------------------------------------------------

    def _run_connection(self, connection: Connection, *, new: bool) -> Disconnect:
        if new:
            try:
                self._bring_up(connection)
            except TunnelError as error:
                if self.status.since == 0:
                    raise
                return Disconnect(str(error))
        keepalive = Keepalive(
            connection,
            lambda: self.tunnel.interface,
            self.api,
            self.clock,
            lambda: self._ping_succeeded(connection),
            self._sync,
        )
        return keepalive.run()

    def _bring_up(self, connection: Connection) -> None:
        configuration = connection.configuration
        if not self.status.interface:
            # Now, not when they are needed: then the resolver is behind a tunnel that is dead.
            self.prefetch([host.name for host in self._hosts_in_order()])
        endpoint = self.tunnel.up(
            configuration,
            connection.key,
            use_dns=not self.profile.flag("disable_dns"),
            use_default_route=not self.profile.flag("disable_gateway"),
        )
        self._update_status(
            address=", ".join(configuration.addresses),
            gateway=configuration.gateway,
            host=connection.host.url,
            endpoint=endpoint,
            backend=self.tunnel.backend,
            public_key=connection.public_key,
            routes=self.tunnel.routes,
            mtu=self.tunnel.mtu,
            **self._seen_of_tunnel(),
            message="the tunnel is built, waiting for the first ping",
        )

    def tunnel_changed(self) -> None:
        """The tunnel was repaired, or stands otherwise than before. Called on whatever thread has seen it."""
        self._update_status(**self._seen_of_tunnel())

    def _seen_of_tunnel(self) -> dict[str, object]:
        return {"interface": self.tunnel.interface, "dns": self.tunnel.dns, **asdict(self.tunnel.health)}

    def _ping_succeeded(self, connection: Connection) -> None:
        now = self.clock.wall()
        if self.status.state != s.CONNECTED:
            self._dead_endpoints = frozenset()
            self._update_status(state=s.CONNECTED, since=now, message="", last_error="")
            self.log(f"connected: {self.status.address} on {self.status.interface}, by {connection.host.url}")
        self._update_status(last_ping=now)

    def _connection_lost(self, connection: Connection, lost: Disconnect) -> None:
        self.log(f"connection lost: {lost.reason}")
        self._dead_endpoints = frozenset(connection.configuration.endpoints) if lost.silent else frozenset()
        self._update_status(state=s.RECONNECTING, last_error=lost.reason, reconnects=self.status.reconnects + 1)
        if self.profile.flag("disable_reconnect"):
            raise SessionEnded(f"{lost.reason}; this profile does not reconnect by itself")

    def _sync(self, connection: Connection) -> bool:
        """Fetch a changed profile, through the gateway; after a failure every other try goes to the API host that
        allowed the connection. Returns whether it worked."""
        inside = self._syncs_failed % 2 == 0
        base = gateway_url(connection.configuration) if inside else connection.host.url
        return self._take_sync(base, self.tunnel.interface if inside else "")

    def _take_sync(self, base: str, interface: str) -> bool:
        text = self.api.sync(base, interface)
        if isinstance(text, Failed):
            self._syncs_failed += 1
            if text.status != 480:
                self.log(f"sync failed: {text.reason}")
            return text.status == 480
        self._syncs_failed = 0
        try:
            merged = merge(self.profile, text) if text else None
        except ProfileError as error:
            self.log(f"a synced profile was refused: {error}")
            return True
        if merged:
            self.api.profile = merged
            self.save(merged)
            self.prefetch([host.name for host in self._hosts_in_order()])
            self.log("the profile has changed and was saved")
        return True

    def _update_status(self, **changes: Any) -> None:
        with self._status_lock:
            changed = replace(self.status, **changes)
            if changed != self.status:
                self.status = changed
                self.report(changed)
