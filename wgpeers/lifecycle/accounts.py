"""From the three ids in a URL to the rows and credentials behind them; strangers get credentials that fit nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from core.crypto import Secret
from servers.models import Server
from users.models import VpnUser
from wgpeers.protocol.envelope import Credentials, nobody

from . import queries

Ids = tuple[str, str, str]  # of organization, user and server, as in a request's path


@dataclass(frozen=True)
class Account:
    """A user and the server their request names. Whether they may use it is for authorize to say."""

    user: VpnUser
    server: Server
    credentials: Credentials

    @cached_property
    def extras(self) -> queries.Extras:
        """Read when first asked for."""
        return queries.extras(self.server.pk, self.user.pk)


@dataclass(frozen=True, slots=True)
class LiveConnection:
    """As much of an open connection as a ping needs."""

    connection: str
    address: str
    ping_timeout: int


@dataclass(frozen=True, slots=True)
class PingAccount:
    """``live`` has the user's open connections on the server, by WireGuard public key."""

    credentials: Credentials
    live: dict[str, LiveConnection]


def _credentials(user: VpnUser, server: Server) -> Credentials:
    return Credentials(user.sync_token, user.sync_secret, user.public_key, server.box_private_key)


def find(organization: str, user: str, server: str) -> Account | None:
    """The account behind three public ids, or None. Both queries run for strangers too."""
    who = queries.user(organization, user)
    where = queries.server(server)
    if who is None or where is None:
        return None
    return Account(who, where, _credentials(who, where))


def credentials_of(account: Account | None) -> Credentials:
    return nobody() if account is None else account.credentials


def for_ping(organization: str, user: str, server: str) -> PingAccount:
    """One indexed read gives the user's open connections on the server and all that verifies the ping. Only who has
    none costs more: their ping must still be told apart from a stranger's."""
    live, credentials = {}, None
    for public_id, key, address, timeout, token, secret, rsa, box in queries.for_ping(organization, user, server):
        live[key] = LiveConnection(public_id, str(address), timeout)
        credentials = Credentials(Secret(token), Secret(secret), rsa, Secret(box))
    if credentials is None:
        credentials = credentials_of(find(organization, user, server))
    return PingAccount(credentials, live)
