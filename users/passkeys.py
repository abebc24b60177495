"""The passkeys of users, as ``users.models`` has them."""

from __future__ import annotations

from django.db import models

from core.models import StoredPasskey


class UserPasskey(StoredPasskey):
    """A passkey of a user. Who has one has an ``Enrolment`` of that kind too, another one whenever theirs change."""

    user = models.ForeignKey("users.VpnUser", on_delete=models.CASCADE, related_name="passkeys")

    class Meta:
        ordering = ["created", "pk"]
        verbose_name = "passkey"
