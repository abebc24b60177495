"""From the three ids in a URL to the rows and credentials behind them; strangers get credentials that fit nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from django.db import connection

from core.crypto import Secret
from servers.models import Server
from users.models import VpnUser
from wgpeers.protocol.envelope import Credentials, nobody

Ids = tuple[str, str, str]  # of organization, user and server, as in a request's path

# As SQL for the same reason as the ping's below: every connect asks it.
_EXTRAS = """
SELECT
    EXISTS (SELECT 1 FROM servers_portforward WHERE server_id = %s AND user_id = %s),
    EXISTS (SELECT 1 FROM servers_clientnetwork WHERE server_id = %s AND user_id = %s),
    EXISTS (SELECT 1 FROM servers_clientnetwork WHERE server_id = %s)
"""


@dataclass(frozen=True, slots=True)
class Extras:
    """Whether the user has forwarded ports on the server and serves networks there, and whether anybody serves any.
    Few do, and the others' connects ask no further."""

    has_forwards: bool
    has_networks: bool
    server_has_networks: bool


@dataclass(frozen=True)
class Account:
    """A user and the server their request names. Whether they may use it is for authorize to say."""

    user: VpnUser
    server: Server
    credentials: Credentials

    @cached_property
    def extras(self) -> Extras:
        """Read when first asked for, in one query."""
        user, server = self.user.pk, self.server.pk
        with connection.cursor() as cursor:
            cursor.execute(_EXTRAS, [server, user, server, user, server])
            return Extras(*map(bool, cursor.fetchone()))


@dataclass(frozen=True, slots=True)
class LiveConnection:
    """As much of an open connection as a ping needs."""

    connection: str
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
    found = VpnUser.objects.select_related("organization").filter(public_id=user, organization__public_id=organization)
    who = found.order_by().first()
    # All of its many columns: the ORM would spend twice the query's own time on naming them.
    where = next(iter(Server.objects.raw("SELECT * FROM servers_server WHERE public_id = %s", [server])), None)
    if who is None or where is None:
        return None
    return Account(who, where, _credentials(who, where))


def credentials_of(account: Account | None) -> Credentials:
    return nobody() if account is None else account.credentials


# As SQL, because the ORM would take longer to write this down for each ping than a ping takes in all. That a connection
# has not ended is said twice: this way it is found by the index of live ones, however many the user has had.
_FOR_PING = """
SELECT c.public_id, c.wg_public_key, s.ping_timeout, u.sync_token, u.sync_secret, u.public_key, s.box_private_key
FROM wgpeers_connection c
    JOIN users_vpnuser u ON u.id = c.user_id
    JOIN users_organization o ON o.id = u.organization_id
    JOIN servers_server s ON s.id = c.server_id
WHERE o.public_id = %s AND u.public_id = %s AND s.public_id = %s AND c.state = 'open' AND NOT (c.state = 'ended')
"""


def for_ping(organization: str, user: str, server: str) -> PingAccount:
    """One indexed read gives the user's open connections on the server and all that verifies the ping. Only who has
    none costs more: their ping must still be told apart from a stranger's."""
    with connection.cursor() as cursor:
        cursor.execute(_FOR_PING, [organization, user, server])
        rows = cursor.fetchall()
    live, credentials = {}, None
    for public_id, key, timeout, token, secret, rsa, box in rows:
        live[key] = LiveConnection(public_id, timeout)
        credentials = Credentials(Secret(token), Secret(secret), rsa, Secret(box))
    if credentials is None:
        credentials = credentials_of(find(organization, user, server))
    return PingAccount(credentials, live)
