"""What a server asks of those who connect, in the words of users.authorize."""

from __future__ import annotations

from typing import cast

from django.db import models

from core.sql import pairs
from users.factors.base import PinMode, Policy

from .models import Server
from .validators import listed


def policy_of(server: Server) -> Policy:
    return Policy(
        server=server.public_id,
        organizations=frozenset(_of(server, Server.organizations.through, "organization_id")),
        groups=frozenset(_of(server, Server.groups.through, "group_id")),
        platforms=frozenset(listed(server.platforms)),
        pin=cast(PinMode, server.pin),
        totp=server.totp,
        token_ttl=server.factor_token_ttl,
        grace=server.reconnect_grace,
    )


def _of(server: Server, table: type[models.Model], column: str) -> list[int]:
    """Primary keys from a table of pairs, without joining what they point at. By SQL, because every connect asks."""
    return pairs(table._meta.db_table, "server_id", server.pk, column)
