"""A profile that is up: connect, keep the connection alive, reconnect, without end. Clock, transport and tunnel are
arguments.

Each new connection has a new key. While reconnecting, the old interface and its routes stay, so nothing leaks
around the tunnel.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import InitVar, asdict, dataclass, field

from wgpeer import constants as c
from wgpeer import status as s
from wgpeer.api_client import ApiClient, Failed, gateway_url
from wgpeer.clock import Clock
from wgpeer.connecting import Connecting, SessionEnded
from wgpeer.factors import FactorToken
from wgpeer.keepalive import Connection, Disconnect, Keepalive
from wgpeer.profile import Profile, ProfileError, merge
from wgpeer.responses import Ended
from wgpeer.status import LiveStatus, Status
from wgpeer.transport import Resolver
from wgpeer.tunnel.contract import Tunnel, TunnelError


class LostMeanwhile(Exception):
    """The connection was lost while a new key was asked for."""

    def __init__(self, disconnect: Disconnect) -> None:
        super().__init__(disconnect.reason)
        self.disconnect = disconnect


@dataclass(slots=True)
class Session:
    """Keeps one profile connected.

    ``report`` is called with each new status, ``save`` with each profile that a sync brought, ``log`` with lines for
    the log (never a secret).
    """

    api: ApiClient
    clock: Clock
    tunnel: Tunnel
    token: FactorToken
    password: str = field(repr=False)
    report: Callable[[Status], None]
    save: Callable[[Profile], None]
    log: Callable[[str], None]
    resolver: Resolver
    random: random.Random = field(default_factory=random.SystemRandom)
    first_status: InitVar[Status | None] = None
    _status: LiveStatus = field(init=False)
    _connecting: Connecting = field(init=False)
    _syncs_failed: int = 0

    def __post_init__(self, first_status: Status | None) -> None:
        self._status = LiveStatus(first_status or Status(), self.report)
        self._connecting = Connecting(
            api=self.api,
            clock=self.clock,
            token=self.token,
            password=self.password,
            status=self._status,
            log=self.log,
            sync=lambda base: self._take_sync(base, ""),
            random=self.random,
            is_avoided=self.resolver.is_avoided,
        )

    @property
    def status(self) -> Status:
        return self._status.now

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
                connection, lost = self._run_connection(connection, new=connection is not previous)
                self._connection_lost(connection, lost)
                previous = connection
                short_connections = short_connections + 1 if self._was_useless(connection, lost) else 0
                if short_connections > 1:
                    pause = min(c.RECONNECT_PAUSE_MAX, c.RECONNECT_PAUSE * 2 ** min(short_connections - 2, 10))
                    self.clock.wait(pause * (1 + c.ROUND_JITTER * (self.random.random() - 0.5)))
        finally:
            self.tunnel.down()

    def _was_useless(self, connection: Connection, lost: Disconnect) -> bool:
        """Whether it ended so soon that the next one may be no better. One that worked until its host died says nothing
        against the next host."""
        died = lost.silent and connection.pinged
        return not died and self.clock.boottime() - connection.started < c.SHORT_CONNECTION

    def _connect(self, previous: Connection | None) -> Connection:
        self._status.change(state=s.RECONNECTING if previous else s.CONNECTING, message="")
        return self._connecting.connect(lambda: previous if previous and self._still_works(previous) else None)

    def _still_works(self, previous: Connection) -> bool:
        """Perhaps our own network was away, and the old connection is as good as ever. The ping carries the old key, so
        it revives nothing that the server has ended."""
        if not self.tunnel.interface:
            return False
        result = self.api.ping(
            previous.configuration,
            previous.public_key,
            self.tunnel.interface,
            c.PING_RESPONSE_TIMEOUT,
            connect=c.PING_CONNECTS[-1],
        )
        if result is None:
            self.log("the network is back and the connection still good")
            previous.last_good = self.clock.boottime()
        return result is None

    # --- connected ----------------------------------------------------------------------------------------------------

    def _run_connection(self, connection: Connection, *, new: bool) -> tuple[Connection, Disconnect]:
        """Until it is lost, and however often it is renewed; what it was in the end, and why it was lost."""
        if new:
            try:
                self._bring_up(connection)
            except TunnelError as error:
                if self.status.since == 0:
                    raise
                return connection, Disconnect(str(error))
        keepalive = self._keepalive(connection)
        while (lost := keepalive.run()) is None:
            try:
                renewed = self._renew(connection, keepalive)
            except LostMeanwhile as error:
                return connection, error.disconnect
            if renewed is not None:
                connection, keepalive = renewed, self._keepalive(renewed)
        return connection, lost

    def _keepalive(self, connection: Connection) -> Keepalive:
        return Keepalive(
            connection,
            lambda: self.tunnel.interface,
            self.api,
            self.clock,
            lambda: self._ping_succeeded(connection),
            self._sync,
            self.random,
        )

    # --- a new key before the old one ends ----------------------------------------------------------------------------

    def _renew(self, old: Connection, keepalive: Keepalive) -> Connection | None:
        """A connection that continues ``old`` by a new key, with the tunnel already its own; None where there is none
        now: then ``old`` says when to try again. Raises ``LostMeanwhile``."""

        def meanwhile() -> None:
            failed = keepalive.ping()
            if failed is None:
                self._ping_succeeded(old)
            elif failed.status < 500:
                raise LostMeanwhile(failed)

        ends = f"; the connection ends in {(old.ends - self.clock.boottime()) / 60:.0f} min"
        self.log(f"asking for a new key{ends}")
        old.renew_at = self.clock.boottime() + c.RENEW_RETRY * (1 + c.ROUND_JITTER * (self.random.random() - 0.5))
        try:
            renewed = self._connecting.renew(old, meanwhile)
        except SessionEnded as refused:
            old.renew_at = math.inf
            said = f"no new key: {refused}{ends}; connect anew with: wgpeer down, wgpeer up"
            self._status.change(message=said, reg_key=refused.reg_key)
            self.log(said)
            return None
        if renewed is None:
            return None
        try:
            self._hand_over(renewed)
        except TunnelError as error:
            # The server has given the address to the new key: the next ping by the old one says so.
            self.log(f"the new key does not work: {error}")
            old.renew_at = math.inf
            return None
        return renewed

    def _hand_over(self, renewed: Connection) -> None:
        """Put the tunnel of a new key in the place of the one that is up. Raises ``TunnelError``."""
        endpoint = self.tunnel.replace(
            renewed.configuration,
            renewed.key,
            lambda interface: self._works(renewed, interface),
            use_dns=not self.profile.flag("disable_dns"),
            use_default_route=not self.profile.flag("disable_gateway"),
        )
        renewed.last_good, renewed.pinged = self.clock.boottime(), True
        now = self.clock.wall()
        self._status.change(since=now, last_ping=now, renewals=self.status.renewals + 1, last_error="")
        self._note_tunnel(renewed, endpoint, "")
        self.log(f"a new key is in use, on {self.status.interface}, by {renewed.host.url}")

    def _works(self, renewed: Connection, interface: str) -> bool:
        """Whether its host answers through this very interface: then it sends to it, too."""
        until = self.clock.boottime() + c.RENEW_WITHIN
        while self.clock.boottime() < until:
            asked = self.clock.boottime()
            result = self.api.ping(
                renewed.configuration, renewed.public_key, interface, c.PING_RESPONSE_TIMEOUT, c.PING_CONNECTS[0]
            )
            if result is None:
                return True
            if isinstance(result, Ended):
                return False
            self.clock.wait(max(0.0, asked + c.PING_CONNECTS[0] - self.clock.boottime()))
        return False

    def _bring_up(self, connection: Connection) -> None:
        configuration = connection.configuration
        if not self.status.interface:
            # Now, not when they are needed: then the resolver is behind a tunnel that is dead.
            self.resolver.prefetch([host.name for host in self._connecting.hosts_in_order()])
        endpoint = self.tunnel.up(
            configuration,
            connection.key,
            use_dns=not self.profile.flag("disable_dns"),
            use_default_route=not self.profile.flag("disable_gateway"),
        )
        self._note_tunnel(connection, endpoint, "the tunnel is built, waiting for the first ping")

    def _note_tunnel(self, connection: Connection, endpoint: str, message: str) -> None:
        configuration = connection.configuration
        left = connection.ends - self.clock.boottime()
        self._status.change(
            address=", ".join(configuration.addresses),
            gateway=configuration.gateway,
            host=connection.host.url,
            endpoint=endpoint,
            backend=self.tunnel.backend,
            public_key=connection.public_key,
            routes=self.tunnel.routes,
            mtu=self.tunnel.mtu,
            session_ends=self.clock.wall() + left if math.isfinite(left) else 0.0,
            **self._seen_of_tunnel(),
            message=message,
        )

    def tunnel_changed(self) -> None:
        """The tunnel was repaired, or stands otherwise than before. Called on whatever thread has seen it."""
        self._status.change(**self._seen_of_tunnel())

    def _seen_of_tunnel(self) -> dict[str, object]:
        return {"interface": self.tunnel.interface, "dns": self.tunnel.dns, **asdict(self.tunnel.health)}

    def _ping_succeeded(self, connection: Connection) -> None:
        now = self.clock.wall()
        if self.status.state != s.CONNECTED:
            self.resolver.avoid(())
            self._status.change(state=s.CONNECTED, since=now, message="", last_error="")
            self.log(f"connected: {self.status.address} on {self.status.interface}, by {connection.host.url}")
        self._status.change(last_ping=now)

    def _connection_lost(self, connection: Connection, lost: Disconnect) -> None:
        self.log(f"connection lost: {lost.reason}")
        self.resolver.avoid(connection.configuration.endpoints if lost.silent else ())
        self._status.change(state=s.RECONNECTING, last_error=lost.reason, reconnects=self.status.reconnects + 1)
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
            self.resolver.prefetch([host.name for host in self._connecting.hosts_in_order()])
            self.log("the profile has changed and was saved")
        return True
