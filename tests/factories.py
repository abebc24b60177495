"""A small company to test with: its rows, its people as they are hired, and the far end of a host's queue."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.core.management.color import no_style
from django.db import connection
from django.db.models import Model

from core.crypto import Secret
from core.redis_store import redis_client
from servers import services
from servers.models import Host, Server, ServerHost
from tests.protocol_client import VECTORS, Identity, new_wg_key
from users.models import Organization, Provider, VpnUser


@dataclass
class Company:
    """One organization, one server on one living host, and users as they are hired."""

    organization: Organization
    server: Server
    host: Host

    def hire(self, name: str, **fields: Any) -> tuple[VpnUser, Identity]:
        token, secret = secrets.token_hex(16), secrets.token_hex(16)
        user = VpnUser.objects.create(
            organization=self.organization,
            name=name,
            sync_token=Secret.of(token),
            sync_secret=Secret.of(secret),
            public_key=VECTORS["user_public_key"],
            private_key=Secret.of(VECTORS["user_private_key_pkcs8"]),
            certificate="-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
            **fields,
        )
        return user, self.identity(user, token, secret)

    def identity(self, user: VpnUser, token: str, secret: str) -> Identity:
        names = (self.organization.public_id, user.public_id, self.server.public_id)
        return Identity(*names, token, secret, self.server.box_public_key)


def found() -> Company:
    """The company of the vectors, with its user "alice" yet to be hired by ``vector_user``."""
    organization = Organization.objects.create(public_id=VECTORS["organization_id"], name="Acme")
    server = Server.objects.create(
        public_id=VECTORS["server_id"],
        name="Office",
        network="10.8.0.0/24",
        wg_network="10.9.0.0/24",
        started=True,
        box_private_key=Secret.of(VECTORS["server_box_private_key"]),
        box_public_key=VECTORS["server_box_public_key"],
    )
    server.organizations.add(organization)
    services.ask_first_factors(server)
    host = add_host(server, "gate-1")
    return Company(organization, server, host)


def add_host(
    server: Server, name: str, *, alive: bool = True, address: str = "192.0.2.1", priority: int = 1, **fields: Any
) -> Host:
    host = Host.objects.create(name=name, public_address=address, **fields)
    ServerHost.objects.create(server=server, host=host, public_key=new_wg_key(), priority=priority)
    if alive:
        revive(host)
    return host


def revive(host: Host) -> None:
    redis_client().set(f"{host.queue}:alive", json.dumps({"boot": "b", "version": 1}), ex=60)
    redis_client().set(f"{host.queue}:fresh", "1", ex=60)


def silence(host: Host) -> None:
    """As after ten seconds without a heartbeat."""
    redis_client().delete(f"{host.queue}:alive", f"{host.queue}:fresh")


def go_on_after_given_keys(*models: type[Model]) -> None:
    """A primary key that was given and not taken from PostgreSQL's sequence would be given to a later row as well."""
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), list(models)):
            cursor.execute(statement)


def unknown_provider() -> Provider:
    """Of a factor that is not installed here, as an older release may have left it; no door would store it."""
    return Provider.objects.bulk_create([Provider(pk=1, kind="palm", name="reader", secrets=Secret.of("{}"))])[0]


def vector_user(company: Company) -> Identity:
    """The user of the vectors, with exactly their keys."""
    user, _ = company.hire("alice", public_id=VECTORS["user_id"])
    user.sync_token, user.sync_secret = Secret.of(VECTORS["sync_token"]), Secret.of(VECTORS["sync_secret"])
    user.save()
    return company.identity(user, VECTORS["sync_token"], VECTORS["sync_secret"])


class HostStandIn:
    """The far end of a host's queue: keeps what is sent to it and answers as told. The real worker's own tests and
    the end-to-end tests have the real thing; this one is for what only the control side decides."""

    def __init__(self, host: Host, answer: str | None = "ok") -> None:
        self.host = host
        self.answer = answer
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self._stop = threading.Event()
        self._store = redis_client()  # the one it began with: a test may name another in the settings

    def _run(self) -> None:
        while not self._stop.is_set():
            popped = self._store.brpop([self.host.queue], timeout=0.05)
            if popped is None:
                continue
            envelope = json.loads(popped[1])
            (message,), _, _ = json.loads(base64.b64decode(envelope["body"]))
            self.messages.append((envelope["headers"]["task"], message))
            if message.get("confirm") and self.answer is not None:
                self._store.rpush(message["confirm"], self.answer)

    @contextlib.contextmanager
    def running(self) -> Iterator[HostStandIn]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def of(self, task: str) -> list[dict[str, Any]]:
        return [message for name, message in self.messages if name == task]
