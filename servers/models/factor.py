"""Which second factors a server asks for."""

from __future__ import annotations

from typing import Any

from django.db import models, transaction

from core.changes import after_commit
from core.task_names import ENFORCE
from users.models import KIND_LENGTH, Provider

from ..rules.registry import Ruled
from .server import Server


class FactorMode(models.TextChoices):
    OPTIONAL = "optional", "of users who have it"
    REQUIRED = "required", "of everybody"


class IfUnavailable(models.TextChoices):
    REFUSE = "refuse", "nobody gets in"
    SKIP = "skip", "they pass without it"


class ServerFactor(Ruled):
    """A factor that a server asks for; one without a row is not asked for. Hosts know nothing of it."""

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="factors")
    kind = models.CharField("factor", max_length=KIND_LENGTH)
    mode = models.CharField("asked", max_length=8, choices=FactorMode, default=FactorMode.REQUIRED)
    if_unavailable = models.CharField(
        "if its provider is down", max_length=8, choices=IfUnavailable, default=IfUnavailable.REFUSE
    )
    # Empty: the only one of its kind. One that a server asks is not deleted: nobody could connect any more.
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, null=True, blank=True, related_name="asked_by")
    # As the factor's own form has cleaned it. No secrets: it is stored as it is.
    settings = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ["server", "kind"]
        verbose_name = "second factor"
        constraints = [
            models.UniqueConstraint(
                fields=["server", "kind"],
                name="factor_asked_once",
                violation_error_message="This server asks for this factor already.",
            ),
            # Whatever else stood there would be taken for "optional".
            models.CheckConstraint(condition=models.Q(mode__in=FactorMode.values), name="factor_mode_known"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.get_mode_display()}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        with transaction.atomic():
            super().save(*args, **kwargs)
            after_commit(ENFORCE)
