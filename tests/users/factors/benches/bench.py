"""What the cases of every factor share: people, a server that asks for it alone, and what an attempt came to."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from django.conf import LazySettings

from core.crypto import Secret
from core.http import Limits
from servers.policy import policy_of
from tests.attempts import an_attempt
from tests.conftest import Clock
from tests.counterpart import saying_bytes
from tests.factories import Company
from tests.protocol_client import NOW, Identity
from users.authorize import Pending, authorize
from users.models import Provider, VpnUser
from wgpeers.models import Decision

# Of a counterpart that never answers: however long it is waited for, the same comes out.
SHORT = Limits(connect=60.0, total=1.0)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class Bench:
    """Alice and Bob, and a server that asks for this factor alone. ``stack`` ends what was begun."""

    kind: ClassVar[str]
    company: Company
    stack: ExitStack
    monkeypatch: pytest.MonkeyPatch
    settings: LazySettings
    clock: Clock
    alice: VpnUser = field(init=False)
    bob: VpnUser = field(init=False)
    identity: Identity = field(init=False)

    def __post_init__(self) -> None:
        self.alice, self.identity = self.company.hire("alice", email="alice@acme.example")
        self.bob, _ = self.company.hire("bob", email="bob@acme.example")
        self.company.server.factors.all().delete()
        self.company.server.factors.create(kind=self.kind)
        self.prepare()

    def prepare(self) -> None:
        """What all cases need."""

    def code(self, typed: str = "", user: VpnUser | None = None, **attempt: Any) -> str:
        fresh = VpnUser.objects.select_related("organization").get(pk=(user or self.alice).pk)
        verdict = authorize(fresh, policy_of(self.company.server), an_attempt(typed, **attempt), NOW)
        return "waiting" if isinstance(verdict, Pending) else getattr(verdict, "code", "allowed")

    def without_providers(self) -> None:
        """One that a server asks for stays."""
        self.company.server.factors.all().delete()
        Provider.objects.all().delete()
        self.company.server.factors.create(kind=self.kind)

    def provider(self, says: dict[str, Any], secrets: dict[str, str]) -> None:
        self.without_providers()
        stored = Secret.of(json.dumps(secrets))
        Provider.objects.create(kind=self.kind, name="theirs", settings=says, secrets=stored)

    def silent(self) -> str:
        """The address of a web server that takes a connection and says nothing."""

        def nothing(connection: socket.socket) -> None:
            while connection.recv(1 << 16):
                pass

        return self.stack.enter_context(saying_bytes(nothing)).url

    def nowhere(self) -> str:
        return f"http://localhost:{free_port()}"


def came_to(answer: Any) -> str:
    """Of a client that waits for a sign-in."""
    if answer == 428 or "sso_url" in answer:
        return "waiting"
    return "allowed" if answer["allow"] else Decision.objects.latest("pk").code
