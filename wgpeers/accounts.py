"""From the three ids in a URL to the rows and credentials behind them; strangers get credentials that fit nothing."""

from __future__ import annotations

from dataclasses import dataclass

from servers.models import Server
from users.crypto import Secret
from users.models import VpnUser

from .envelope import Credentials, nobody
from .models import Connection, State


@dataclass(frozen=True, slots=True)
class Account:
    """A user and the server their request names. Whether they may use it is for authorize to say."""

    user: VpnUser
    server: Server
    credentials: Credentials


@dataclass(frozen=True, slots=True)
class LiveConnection:
    """As much of an open connection as a ping needs."""

    connection: str
    wg_public_key: str
    ping_timeout: int


@dataclass(frozen=True, slots=True)
class PingAccount:
    credentials: Credentials
    live: tuple[LiveConnection, ...]


def _credentials(user: VpnUser, server: Server) -> Credentials:
    return Credentials(user.sync_token, user.sync_secret, user.public_key, server.box_private_key)


def find(organization: str, user: str, server: str) -> Account | None:
    """The account behind three public ids, or None. Both queries run for strangers too."""
    found = VpnUser.objects.select_related("organization").filter(public_id=user, organization__public_id=organization)
    who, where = found.first(), Server.objects.filter(public_id=server).first()
    if who is None or where is None:
        return None
    return Account(who, where, _credentials(who, where))


def credentials_of(account: Account | None) -> Credentials:
    return nobody() if account is None else account.credentials


_PING_FIELDS = (
    "public_id",
    "wg_public_key",
    "server__ping_timeout",
    "user__sync_token",
    "user__sync_secret",
    "user__public_key",
    "server__box_private_key",
)


def for_ping(organization: str, user: str, server: str) -> PingAccount:
    """One indexed read gives the user's open connections on the server and all that verifies the ping. Only who has
    none costs more: their ping must still be told apart from a stranger's."""
    rows = Connection.objects.filter(
        user__public_id=user, user__organization__public_id=organization, server__public_id=server, state=State.OPEN
    ).values_list(*_PING_FIELDS)
    live, credentials = [], None
    for connection, key, timeout, token, secret, rsa, box in rows:
        live.append(LiveConnection(connection, key, timeout))
        credentials = Credentials(_secret(token), _secret(secret), rsa, _secret(box))
    if credentials is None:
        credentials = credentials_of(find(organization, user, server))
    return PingAccount(credentials, tuple(live))


def _secret(value: object) -> Secret:
    return value if isinstance(value, Secret) else Secret(str(value))
