"""What a server asks of those who connect, in the words of users.authorize."""

from __future__ import annotations

from typing import Any, cast

from django.db import models
from django.db.models import QuerySet

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


def _of(server: Server, pairs: type[models.Model], column: str) -> QuerySet[Any, int]:
    """Primary keys from a table of pairs, without joining what they point at."""
    return pairs._default_manager.filter(server_id=server.pk).values_list(column, flat=True)
