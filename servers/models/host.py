"""The machines."""

from __future__ import annotations

from typing import Any

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction

from core.locking import SharedRow
from core.names import Named, NameField
from users.models import new_id

from .. import changes, validators
from ..hostnet.state.host_networks import HostNetwork, host_networks_from_json
from ..rules.registry import Ruled


class Host(Named, Ruled, SharedRow):
    """A machine that clients' tunnels end on. Its worker reports in over Redis; see ``hostnet``."""

    public_id = models.CharField(max_length=24, unique=True, default=new_id, editable=False)
    name = NameField(unique=True)
    public_address = models.CharField(
        max_length=253,
        blank=True,
        validators=[validators.host_address4],
        help_text="IPv4 address or name where clients send their WireGuard packets.",
    )
    public_address6 = models.CharField(
        max_length=253,
        blank=True,
        validators=[validators.host_address6],
        verbose_name="public IPv6 address",
        help_text="IPv6 address, if it has one.",
    )
    open_foreign_firewalls = models.BooleanField(
        "open other firewalls for us",
        default=False,
        help_text="Put a rule for our packets into other firewalls of this host (docker's, ufw's, firewalld's) that "
        "would drop them. Off: the host's page only says which.",
    )
    enabled = models.BooleanField(default=True, help_text="Off: its tunnels are taken down and it gets no new clients.")
    draining = models.BooleanField(
        default=False,
        help_text="It gets no new clients, and those it has are sent to other hosts, in groups, until it is empty.",
    )
    weight = models.PositiveIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(1000)],
        help_text="How many clients it takes relative to other hosts: one of weight 2 gets twice as many as one of 1.",
    )
    max_clients = models.PositiveIntegerField(
        "most clients", default=0, help_text="Of all its servers together, at the same time; 0: as many as come."
    )
    region = models.CharField(
        max_length=32,
        blank=True,
        validators=[validators.region],
        help_text="A label such as eu-west. Clients of the same region are sent here first; see client regions.",
    )

    # Raised by every change that concerns this host, in the change's own transaction. An old message never wins.
    version = models.BigIntegerField(default=1, editable=False)
    boot = models.CharField(max_length=64, blank=True, editable=False)
    backend = models.CharField(max_length=16, blank=True, editable=False)
    applied_at = models.DateTimeField(null=True, blank=True, editable=False)
    applied_version = models.BigIntegerField(default=0, editable=False)
    drift = models.TextField(blank=True, editable=False)
    drift_at = models.DateTimeField(null=True, blank=True, editable=False)
    # What is wrong there, as last reported: objects with code, severity and text (``hostnet.state.conditions``).
    conditions = models.JSONField(default=list, blank=True, editable=False)
    # What it has itself, as last reported (``hostnet.state.host_networks``): no tunnel may take its place.
    networks = models.JSONField(default=list, blank=True, editable=False)

    machine_fields = frozenset(
        {"version", "boot", "backend", "applied_at", "applied_version", "drift", "drift_at", "conditions", "networks"}
    )

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["name_key"], name="one_host_of_a_name")]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        with transaction.atomic():
            super().save(*args, **kwargs)
            changes.record([self.pk])

    def own_networks(self) -> list[HostNetwork]:
        return host_networks_from_json(self.networks)

    @property
    def queue(self) -> str:
        return f"host.{self.public_id}"
