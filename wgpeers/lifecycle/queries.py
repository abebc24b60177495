"""Every statement that a connect and a ping ask of the database on their common path, as SQL.

The ORM would take longer to write them down for each request than the database to answer. A test holds each equal to
what the ORM says, on SQLite and on PostgreSQL. Nothing that is read here is remembered.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from core.clock import moment
from core.sql import Row, Table, execute, fetch_all, fetch_one, moment_value
from servers.models import Host, Route, Server, ServerHost
from users.models import Device, Organization, VpnUser
from wgpeers.models import Connection, Decision, SpentKey

_users, _organizations, _servers = Table(VpnUser), Table(Organization), Table(Server)
_attachments, _hosts, _routes = Table(ServerHost), Table(Host), Table(Route)
_connections, _spent_keys, _decisions, _devices = Table(Connection), Table(SpentKey), Table(Decision), Table(Device)


# Who asks, and for what

_USER = f"""
SELECT {_users.columns("u")}, {_organizations.columns("o")}
FROM users_vpnuser u JOIN users_organization o ON o.id = u.organization_id
WHERE u.public_id = %s AND o.public_id = %s
"""
_SERVER = f"SELECT {_servers.columns('s')} FROM servers_server s WHERE s.public_id = %s"


def user(organization: str, public_id: str) -> VpnUser | None:
    """With their organization."""
    row = fetch_one(_USER, public_id, organization)
    if row is None:
        return None
    found = _users.load(row[: len(_users)])
    found.organization = _organizations.load(row[len(_users) :])
    return found


def server(public_id: str) -> Server | None:
    row = fetch_one(_SERVER, public_id)
    return None if row is None else _servers.load(row)


@dataclass(frozen=True, slots=True)
class Extras:
    """Whether the user has forwarded ports on the server and serves networks there, whether anybody serves any,
    whether the server has several hosts, and whether it is linked with another one, of whichever installation. Few do,
    and the others' connects ask no further."""

    has_forwards: bool
    has_networks: bool
    server_has_networks: bool
    several_hosts: bool
    linked: bool


_EXTRAS = """
SELECT
    EXISTS (SELECT 1 FROM servers_portforward WHERE server_id = %s AND user_id = %s),
    EXISTS (SELECT 1 FROM servers_clientnetwork WHERE server_id = %s AND user_id = %s),
    EXISTS (SELECT 1 FROM servers_clientnetwork WHERE server_id = %s),
    (SELECT COUNT(*) FROM servers_serverhost WHERE server_id = %s) > 1,
    EXISTS (SELECT 1 FROM servers_serverlink WHERE first_id = %s OR second_id = %s)
        OR EXISTS (SELECT 1 FROM servers_outsidelink WHERE server_id = %s)
"""


def extras(server: int, user: int) -> Extras:
    (row,) = fetch_all(_EXTRAS, server, user, server, user, *[server] * 5)
    return Extras(*map(bool, row))


# That a connection has not ended is said twice: this way it is found by the index of live ones, however many the user
# has had.
_FOR_PING = """
SELECT c.public_id, c.wg_public_key, c.address, s.ping_timeout,
    u.sync_token, u.sync_secret, u.public_key, s.box_private_key
FROM wgpeers_connection c
    JOIN users_vpnuser u ON u.id = c.user_id
    JOIN users_organization o ON o.id = u.organization_id
    JOIN servers_server s ON s.id = c.server_id
WHERE o.public_id = %s AND u.public_id = %s AND s.public_id = %s AND c.state = 'open' AND NOT (c.state = 'ended')
"""


def for_ping(organization: str, user: str, server: str) -> list[Row]:
    """For each open connection: its id, WireGuard key and tunnel address, the ping timeout, and the four credentials as
    stored."""
    return fetch_all(_FOR_PING, organization, user, server)


# Where it can go

_ATTACHMENTS = f"""
SELECT {_attachments.columns("a")}, {_hosts.columns("h")}
FROM servers_serverhost a JOIN servers_host h ON h.id = a.host_id
WHERE a.server_id = %s AND h.enabled AND a.public_key <> ''
"""
_ROUTES = f"SELECT {_routes.columns('r')} FROM servers_route r WHERE r.server_id = %s ORDER BY r.network"


def attachments(server: Server) -> list[ServerHost]:
    """To enabled hosts that have made their key for the server, each with its host."""
    found = []
    for row in fetch_all(_ATTACHMENTS, server.pk):
        attachment = _attachments.load(row[: len(_attachments)])
        attachment.host = _hosts.load(row[len(_attachments) :])
        found.append(attachment)
    return found


def routes(server: Server) -> list[Route]:
    return [_routes.load(row) for row in fetch_all(_ROUTES, server.pk)]


# The transaction that makes the connection

# As servers.access has it (a test holds them equal), and whether the server runs; of user u, organization o, server s.
_PERMITTED = """
(u.enabled AND o.enabled AND s.started AND s.wireguard
    AND EXISTS (SELECT 1 FROM servers_server_organizations so WHERE so.server_id = s.id AND so.organization_id = o.id)
    AND (NOT EXISTS (SELECT 1 FROM servers_server_groups sg WHERE sg.server_id = s.id)
        OR EXISTS (SELECT 1 FROM servers_server_groups sg JOIN users_vpnuser_groups ug ON ug.group_id = sg.group_id
            WHERE sg.server_id = s.id AND ug.vpnuser_id = u.id)))
"""
# One statement, and therefore one moment: a row for each live connection, or one row of NULLs for none.
_STANDING = f"""
SELECT {_PERMITTED}, a.host_part, {_connections.columns("c")}
FROM users_vpnuser u
    JOIN users_organization o ON o.id = u.organization_id
    JOIN servers_server s ON s.id = %s
    LEFT JOIN servers_address a ON a.server_id = s.id AND a.user_id = u.id AND NOT a.dynamic
    LEFT JOIN wgpeers_connection c ON c.user_id = u.id AND c.server_id = s.id AND NOT (c.state = 'ended')
WHERE u.id = %s
"""
_HELD = """
SELECT c.host_part FROM wgpeers_connection c
    JOIN servers_address a ON a.server_id = c.server_id AND a.host_part = c.host_part
WHERE c.server_id = %s AND NOT (c.state = 'ended') AND a.user_id IS NULL
"""
_VERSION = "UPDATE wgpeers_connection SET version = %s WHERE id = %s"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a user and a server stand at this moment. ``host_part``: the user's static one, if they have one. ``live``:
    the user's connections on the server that have not ended."""

    permitted: bool
    host_part: int | None
    live: list[Connection]


def standing(user: VpnUser, server: Server) -> Standing:
    """Who is gone is not permitted."""
    rows = fetch_all(_STANDING, server.pk, user.pk)
    if not rows:
        return Standing(False, None, [])
    live = [_connections.load(row[2:]) for row in rows if row[2] is not None]
    for each in live:
        each.server = server
    return Standing(bool(rows[0][0]), rows[0][1], live)


def held_addresses(server: int) -> frozenset[int]:
    """Host parts that are free to be allotted, and that a connection which has not ended yet still has."""
    return frozenset(row[0] for row in fetch_all(_HELD, server))


def insert_connection(connection: Connection) -> None:
    _connections.insert(connection)


def insert_spent_key(digest: bytes, connection: Connection, now: float) -> None:
    _spent_keys.insert(SpentKey(digest=digest, connection_id=connection.pk, created=moment(now)))


def set_version(connection: Connection) -> None:
    execute(_VERSION, connection.version, connection.pk)


# The transaction that opens it

_OPEN = f"""
UPDATE wgpeers_connection SET state = 'open', opened = %s WHERE id = %s AND state = 'pending' AND EXISTS (
    SELECT 1 FROM users_vpnuser u
        JOIN users_organization o ON o.id = u.organization_id
        JOIN servers_server s ON s.id = server_id
    WHERE u.id = user_id AND {_PERMITTED}
) AND EXISTS (
    SELECT 1 FROM servers_serverhost sh JOIN servers_host h ON h.id = sh.host_id
    WHERE sh.server_id = wgpeers_connection.server_id AND sh.host_id = wgpeers_connection.host_id AND h.enabled
) AND NOT EXISTS (
    SELECT 1 FROM users_devicekey k
    WHERE k.user_id = wgpeers_connection.user_id AND k.device_id = wgpeers_connection.device_id
        AND k.revoked >= wgpeers_connection.created
) AND NOT EXISTS (
    SELECT 1 FROM users_device d
    WHERE d.user_id = wgpeers_connection.user_id AND d.device_id = wgpeers_connection.device_id
        AND d.revoked IS NOT NULL
)
"""
_SEEN = ("name", "hostname", "platform", "client_version", "last_seen", "last_address")
_DEVICE = f"""
{_devices.insert_sql}
ON CONFLICT (user_id, device_id) DO UPDATE SET {", ".join(f"{column} = excluded.{column}" for column in _SEEN)}
"""


def open_pending(connection: Connection, now: float) -> bool:
    """False if it is pending no more (somebody ended it), no longer permitted, or its host carries the server no
    more."""
    return execute(_OPEN, moment_value(moment(now)), connection.pk) == 1


def note_device(device: Device) -> None:
    """Store it, or what is new of it: when it was first seen stays."""
    execute(_DEVICE, *_devices.values(device))


# What is NULL equals what is NULL here.
_AGAIN = """
UPDATE wgpeers_decision SET count = count + 1, last = %s WHERE id = (
    SELECT id FROM wgpeers_decision
    WHERE user_id = %s AND code = %s AND time > %s AND NOT allowed AND server_id = %s AND layer = %s
        AND (%s OR (address IS NOT DISTINCT FROM %s AND device_name = %s))
    ORDER BY time DESC LIMIT 1
)
"""


def count_again(decision: Decision, since: datetime, *, same_client: bool) -> bool:
    """Whether there is a refusal like this one since then, which has been counted once more. ``same_client``: of the
    same address and device."""
    again, first = moment_value(decision.time), moment_value(since)
    kind = (decision.user_id, decision.code, first, decision.server_id, decision.layer)
    return execute(_AGAIN, again, *kind, not same_client, decision.address, decision.device_name) > 0


def insert_decision(decision: Decision) -> None:
    _decisions.insert(decision)
