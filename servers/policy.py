"""What a server asks of those who connect, in the words of users.authorize."""

from __future__ import annotations

from typing import cast

from core.sql import fetch_all
from users.factors.base import AskedFactor, Mode, Policy

from .models import Server
from .validators import listed

# As SQL, and at once, because every connect asks it.
_LETS_IN = """
SELECT organization_id, NULL FROM servers_server_organizations WHERE server_id = %s
UNION ALL SELECT NULL, group_id FROM servers_server_groups WHERE server_id = %s
"""


def policy_of(server: Server) -> Policy:
    lets_in = fetch_all(_LETS_IN, server.pk, server.pk)
    return Policy(
        server=server.public_id,
        organizations=frozenset(organization for organization, _ in lets_in if organization is not None),
        groups=frozenset(group for _, group in lets_in if group is not None),
        platforms=frozenset(listed(server.platforms)),
        factors=_factors(server),
        token_ttl=server.factor_token_ttl,
        grace=server.reconnect_grace,
    )


def _factors(server: Server) -> tuple[AskedFactor, ...]:
    pin = () if server.pin == "off" else (AskedFactor("pin", cast(Mode, server.pin)),)
    return (*pin, AskedFactor("totp")) if server.totp else pin
