"""Networks behind clients as rows, and who serves them."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError

from servers.models import ClientNetwork, Server
from tests.connection_rows import queued
from tests.factories import Company
from tests.protocol_client import NOW
from users.models import VpnUser
from wgpeers.fleet import reports
from wgpeers.lifecycle import ending
from wgpeers.models import Connection, EndReason

OFFICE = "192.168.77.0/24"
# What is queued after commit is queued only when there is one.
committed = pytest.mark.django_db(transaction=True)


def behind(user: VpnUser, network: str = OFFICE, priority: int = 1, **fields: Any) -> ClientNetwork:
    """A network behind ``user``, of the only server there is if no other is named."""
    fields.setdefault("server", Server.objects.get(name="Office"))
    return ClientNetwork(user=user, network=network, priority=priority, **fields)


def saved(row: ClientNetwork) -> ClientNetwork:
    row.full_clean()
    row.save()
    return row


def refused(row: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as caught:
        row.full_clean()
    return caught.value.message_dict


def another_server(name: str = "Other", **fields: Any) -> Server:
    given = {"network": "10.20.0.0/24", "wg_network": "10.21.0.0/24", "port": 51821} | fields
    return Server.objects.create(name=name, **given)


def with_ipv6(company: Company) -> None:
    company.server.ipv6, company.server.network6 = True, "fd09::/64"
    company.server.save()


def serves() -> str:
    """The name of the user who serves OFFICE now."""
    row = ClientNetwork.objects.filter(network=OFFICE, active=True).select_related("user").first()
    return row.user.name if row else "nobody"


def converged() -> set[int]:
    return {arguments[0] for task, arguments in queued() if task == "wgpeers.converge"}


def end(connection: Connection, now: float) -> None:
    ending.end([connection], EndReason.ADMIN, now)


def report(host: Any, connection: Connection, ok: Any, network: str = OFFICE, now: float = NOW) -> None:
    reports.take_report(host, {"kind": "probe", "connection": connection.public_id, "network": network, "ok": ok}, now)
