"""Connections as rows and deadlines, without the way of a connect; and what was sent to a host's queue."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from core.clock import moment
from core.redis_store import redis_client
from servers import addresses, networks
from servers.models import Host
from users.models import VpnUser
from wgpeers.lifecycle import liveness
from wgpeers.models import Connection, SpentKey, State

from .factories import Company
from .protocol_client import NOW, new_wg_key


def live(company: Company, user: VpnUser, now: float = NOW, **fields: Any) -> Connection:
    """A connection of ``user`` opened at ``now``, with its address, its spent key and its deadline."""
    server = fields.setdefault("server", company.server)
    host_part = fields.pop("host_part", None) or addresses.static_address(server, user).host_part
    key = new_wg_key()
    values: dict[str, Any] = {
        "user": user,
        "user_name": f"{user.name} (Acme)",
        "server_name": server.name,
        "host": company.host,
        "host_name": company.host.name,
        "state": State.OPEN,
        "device_id": f"device-of-{user.name}",
        "wg_public_key": key,
        "host_part": host_part,
        "address": networks.address(server.wg_network, host_part),
        "version": 1,
        "created": moment(now),
        "opened": moment(now),
    }
    connection = Connection.objects.create(**values | fields)
    digest = hashlib.sha256(base64.b64decode(connection.wg_public_key)).digest()
    SpentKey.objects.create(digest=digest, connection=connection, created=moment(now))
    liveness.start(connection.public_id, now + server.ping_timeout)
    return connection


def many(company: Company, count: int) -> list[Connection]:
    """Open connections of ``count`` new users, each with a deadline a full timeout from NOW."""
    return [live(company, company.hire(f"user-{number}")[0]) for number in range(count)]


def with_fresh_marker() -> None:
    """As after the first sweep: Redis remembers what it was told."""
    liveness.refill([])


def messages(host: Host, task: str = "") -> list[dict[str, Any]]:
    """Take what waits in the host's queue, oldest first; only those of ``task`` where one is named."""
    found = []
    while (text := redis_client().rpop(host.queue)) is not None:
        envelope = json.loads(str(text))
        (message,), _, _ = json.loads(base64.b64decode(envelope["body"]))
        if task in {"", envelope["headers"]["task"]}:
            found.append(message)
    return found


def queued(queue: str = "control") -> list[tuple[str, list[Any]]]:
    """Take what waits for the control side's own workers: (task, arguments)."""
    found = []
    while (text := redis_client().rpop(queue)) is not None:
        envelope = json.loads(str(text))
        found.append((envelope["headers"]["task"], json.loads(base64.b64decode(envelope["body"]))[0]))
    return found


def reasons() -> dict[str, str]:
    """State or end reason by user's name."""
    rows = Connection.objects.values_list("user_name", "state", "end_reason")
    return {name.split()[0]: reason or state for name, state, reason in rows}
