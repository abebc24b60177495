"""What the tests of RADIUS share: a server that asks for it, and what one attempt comes to."""

from __future__ import annotations

import json
from typing import Any

from core.crypto import Secret
from servers.models import Server
from servers.policy import policy_of
from tests.attempts import an_attempt
from tests.protocol_client import NOW
from users.authorize import authorize
from users.models import Provider, VpnUser

from .freeradius import SECRET

# Where no answer comes that counts: waiting for longer finds the same.
SILENT: dict[str, Any] = {"timeout": 1, "tries": 1}
# Where one comes after some that do not, among tries without end.
AGAIN: dict[str, Any] = {"timeout": 1}
# Where one comes, however long it takes.
HEARD: dict[str, Any] = {"timeout": 30, "tries": 1}


def ask_radius(server: Server, *addresses: str, secret: str = SECRET, totp: bool = False, **settings: Any) -> Provider:
    """Have ``server`` ask for a password that the RADIUS servers at these addresses judge, and for nothing else."""
    server.factors.all().delete()
    Provider.objects.all().delete()
    provider = Provider.objects.create(
        kind="radius",
        name="Head office",
        settings={"servers": "\n".join(addresses), "patience": 30, **HEARD, **settings},
        secrets=Secret.of(json.dumps({"shared_secret": secret})),
    )
    server.factors.create(kind="radius", provider=provider)
    if totp:
        server.factors.create(kind="totp")
    return provider


def outcome(user: VpnUser, password: str, **attempt: str) -> str:
    """ "allowed" or the refusal's code."""
    server = Server.objects.get()
    fresh = VpnUser.objects.select_related("organization").get(pk=user.pk)
    return getattr(authorize(fresh, policy_of(server), an_attempt(password, **attempt), NOW), "code", "allowed")
