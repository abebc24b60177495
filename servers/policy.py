"""What a server asks of those who connect, in the words of users.authorize."""

from __future__ import annotations

import ipaddress
import json

from core.sql import Row, fetch_all
from users.factors.again import Daily
from users.factors.base import AskedFactor, Policy

from .models import Server
from .validators import listed

# As SQL, and at once, because every connect asks it. Factors first: they say of which type the columns are that the
# others leave empty.
_ASKED = """
SELECT 'factor', 0, kind, mode, if_unavailable, settings, provider_id FROM servers_serverfactor WHERE server_id = %s
UNION ALL
SELECT 'organization', organization_id, NULL, NULL, NULL, NULL, NULL
FROM servers_server_organizations WHERE server_id = %s
UNION ALL
SELECT 'group', group_id, NULL, NULL, NULL, NULL, NULL FROM servers_server_groups WHERE server_id = %s
"""


def policy_of(server: Server) -> Policy:
    rows = fetch_all(_ASKED, server.pk, server.pk, server.pk)
    return Policy(
        server=server.public_id,
        organizations=frozenset(key for what, key, *_ in rows if what == "organization"),
        groups=frozenset(key for what, key, *_ in rows if what == "group"),
        platforms=frozenset(listed(server.platforms)),
        factors=tuple(_factor(row) for row in sorted(rows, key=lambda row: str(row[2])) if row[0] == "factor"),
        token_ttl=server.factor_token_ttl,
        grace=server.reconnect_grace,
        trusted=tuple(ipaddress.ip_network(item) for item in listed(server.trusted_networks)),
        ask_again=ask_again(server),
        ask_again_elsewhere=server.ask_again_elsewhere,
        server_name=server.name,
    )


def ask_again(server: Server) -> Daily | None:
    """The time of day at which everybody of the server is asked again."""
    return Daily(server.ask_again_at, server.time_zone) if server.ask_again_at else None


def _factor(row: Row) -> AskedFactor:
    _, _, kind, mode, if_unavailable, settings, provider = row
    return AskedFactor(kind, mode, if_unavailable, json.loads(settings), provider)
