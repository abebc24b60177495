"""Getting a connection: which host is asked, when, and what its answers mean. Clock and API are arguments.

One attempt has one WireGuard key, which is offered to host after host, round after round, until one allows it: so a
response that was lost on the way is simply given again, and a one-time code stays good.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nacl.public import PrivateKey

from wgpeer import constants as c
from wgpeer import status as s
from wgpeer.api_client import ApiClient, ConnectResult, Credentials, Failed, SignInPending
from wgpeer.clock import Clock
from wgpeer.envelope import b64
from wgpeer.factors import FactorToken
from wgpeer.keepalive import Connection
from wgpeer.profile import ApiHost
from wgpeer.responses import Allowed, NotAllowed, SignInRequired
from wgpeer.status import LiveStatus


class SessionEnded(Exception):
    """The session is over and a person must act. The message says why; ``reg_key`` as in ``NotAllowed``."""

    def __init__(self, reason: str, reg_key: str = "") -> None:
        super().__init__(reason)
        self.reg_key = reg_key


@dataclass(slots=True)
class RoundResult:
    """The result of offering a key to every host once. ``answered``: a host gave an HTTP response; ``key_spent``: a
    host says that the key was used before; ``wait`` is the least time in seconds before the next round."""

    connection: Connection | None = None
    answered: bool = False
    key_spent: bool = False
    wait: float = 0.0


@dataclass(slots=True)
class Connecting:
    """Asks the API hosts of a profile. ``sync`` fetches a changed profile from a host, by its URL. ``is_avoided``: a
    name or address is the host's whose tunnel has just died, so it is asked last. Which host a client comes from, so
    that it is not sent there again, the server sees by the device's connection that is still open."""

    api: ApiClient
    clock: Clock
    token: FactorToken
    password: str = field(repr=False)
    status: LiveStatus
    log: Callable[[str], None]
    sync: Callable[[str], object]
    random: random.Random
    is_avoided: Callable[[str], bool]
    _renewed: Connection | None = None  # while it is renewed
    _meanwhile: Callable[[], None] = lambda: None
    _not_before: dict[ApiHost, float] = field(default_factory=dict)
    _silent_hosts: set[ApiHost] = field(default_factory=set)

    def connect(self, working: Callable[[], Connection | None]) -> Connection:
        """Ask until a host allows a new connection. Where none gives any response, ``working`` is asked for an old one
        that still works: then it was our own network that was away. Raises ``SessionEnded``."""
        key, started = PrivateKey.generate(), self.clock.boottime()
        while True:
            outcome = self._try_all_hosts(key)
            if outcome.connection:
                return outcome.connection
            if outcome.key_spent:
                key = PrivateKey.generate()
            if not outcome.answered and (old := working()):
                return old
            pause = self._round_pause(outcome, started)
            self.status.change(message=self._pause_words(outcome, pause))
            # The network has changed: perhaps it was away, and is back.
            if self.clock.wait(pause) and (old := working()):
                return old

    def renew(self, old: Connection, meanwhile: Callable[[], None]) -> Connection | None:
        """Ask each host once for a connection that continues ``old``, which goes on meanwhile; None where none allows
        it now. ``meanwhile`` is called between two requests, and may raise to end it. Raises ``SessionEnded``."""
        self._renewed, self._meanwhile = old, meanwhile
        try:
            return self._try_all_hosts(PrivateKey.generate()).connection
        finally:
            self._renewed, self._meanwhile = None, lambda: None

    def _try_all_hosts(self, key: PrivateKey) -> RoundResult:
        """Offer the key to each host once. Raises ``SessionEnded`` when one refuses for good."""
        outcome, waits = RoundResult(), list[float]()
        for host in self.hosts_in_order():
            now = self.clock.boottime()
            if self._not_before.get(host, 0.0) > now:
                waits.append(self._not_before[host] - now)
                continue
            result = self._request_connection(host, key)
            if isinstance(result, Allowed):
                self.token.accepted(self.clock.wall())
                now = self.clock.boottime()
                connection = Connection(result.configuration, key, host, now, now)
                connection.plan_renewal(self.random)
                return RoundResult(connection, answered=True)
            self._meanwhile()
            self._note_failure(host, result, outcome)
            waits.append(max(0.0, self._not_before.get(host, 0.0) - self.clock.boottime()))
        outcome.wait = min(waits, default=0.0)
        return outcome

    def _request_connection(self, host: ApiHost, key: PrivateKey) -> Allowed | Failed:
        renews = self._renewed.public_key if self._renewed else ""
        token = self.token.current(self.clock.wall())
        credentials = Credentials(b64(bytes(key.public_key)), self.password, token, renews)
        if not renews:
            self.status.change(host=host.url, message="")
        result = self.api.connect(host, credentials)
        for _ in range(c.MAX_SIGN_INS):
            if isinstance(result, SignInRequired):  # a second one, too, where two factors ask in a browser
                result = self._sign_in(host, credentials, result)
        if isinstance(result, NotAllowed):
            self.token.forget()
            self.sync(host.url)  # perhaps it asks for other factors by now: so that the next start knows
            raise SessionEnded(result.reason, result.reg_key)
        return result if isinstance(result, (Allowed, Failed)) else Failed(f"{host.url} gave a response out of place")

    def _sign_in(self, host: ApiHost, credentials: Credentials, asked: SignInRequired) -> ConnectResult:
        """Show the address, then ask until the user has signed in. A host that fails meanwhile is asked again: the
        sign-in belongs to it. Raises ``SessionEnded`` when nobody signs in in time."""
        limit, seconds = self.clock.boottime() + c.SIGN_IN_TIMEOUT, c.SIGN_IN_RESPONSE_TIMEOUT
        before = self.status.now.state
        if self._renewed:  # there is time until it ends, and it goes on meanwhile: pinged in between
            limit, seconds = self._renewed.ends, self._renewed.configuration.ping_interval
        state = before if self._renewed else s.SIGNING_IN
        self.status.change(state=state, sign_in_url=asked.url, sign_in_code=asked.code)
        self.log("waiting for a sign-in; its address is shown by: wgpeer status")
        try:
            while self.clock.boottime() < limit:
                result = self.api.wait_for_sign_in(host, credentials, asked.token, seconds)
                patient = isinstance(result, SignInPending) or (
                    isinstance(result, Failed) and not 400 <= result.status < 500
                )
                if not patient:
                    self.status.change(state=before)
                    return result
                self._meanwhile()
                self.clock.wait(c.SIGN_IN_PAUSE)
        finally:
            self.status.change(sign_in_url="", sign_in_code="")
        raise SessionEnded("nobody signed in in time; start again with: wgpeer up")

    def _note_failure(self, host: ApiHost, failed: Failed, outcome: RoundResult) -> None:
        self.log(f"{host.url}: {failed.reason}")
        self.status.change(last_error=failed.reason)
        (self._silent_hosts.add if failed.silent else self._silent_hosts.discard)(host)
        outcome.answered = outcome.answered or failed.status > 0
        outcome.key_spent = outcome.key_spent or failed.status == 409
        if pause := failed.retry_after or c.BACK_OFF.get(failed.status, 0.0):
            self._not_before[host] = self.clock.boottime() + pause
            self.log(f"{host.url}: asked again in {pause:.0f} s at the earliest")

    def hosts_in_order(self) -> list[ApiHost]:
        """Sync hosts in random order, then the remotes; those that were silent a moment ago last of all."""
        shuffled = list(self.api.profile.sync_hosts)
        self.random.shuffle(shuffled)
        hosts: Sequence[ApiHost] = list(dict.fromkeys([*shuffled, *self.api.profile.remotes]))
        return sorted(hosts, key=lambda host: host in self._silent_hosts or self.is_avoided(host.name))

    def _round_pause(self, outcome: RoundResult, started: float) -> float:
        patient = self.clock.boottime() - started < c.ROUND_PATIENCE
        pause = c.ROUND_PAUSE if patient else c.ROUND_PAUSE_LATER
        asked = outcome.wait * (1 + c.ASKED_JITTER * self.random.random())
        return max(asked, pause * (1 + c.ROUND_JITTER * (self.random.random() - 0.5)))

    @staticmethod
    def _pause_words(outcome: RoundResult, pause: float) -> str:
        why = ", as the answers ask for" if outcome.wait >= pause else ""
        return f"no host allowed it; asking again in {pause:.0f} s{why}"
