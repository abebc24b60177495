"""What the host does for single users: ports forwarded to them, and networks behind them."""

from __future__ import annotations

from typing import Any

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction

from core.locking import SharedRow
from users.models import VpnUser

from .. import networks
from ..fields import NetworkField
from ..rules.registry import Confirmable
from .route import OfServer
from .server import Server

PORT = (MinValueValidator(1), MaxValueValidator(65535))


class Protocol(models.TextChoices):
    TCP = "tcp", "TCP"
    UDP = "udp", "UDP"
    BOTH = "both", "TCP and UDP"


class PortForward(OfServer):
    """A port, or a range of them, of the hosts' public addresses that leads to a user's client while it is connected
    there. With several devices, to the one that has the user's static address."""

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="forwards")
    user = models.ForeignKey(VpnUser, on_delete=models.CASCADE, related_name="forwards")
    protocol = models.CharField(max_length=4, choices=Protocol, default=Protocol.TCP)
    port = models.PositiveIntegerField("external port", validators=PORT)
    last_port = models.PositiveIntegerField(
        null=True, blank=True, validators=PORT, help_text="Of a range; empty: this one port."
    )
    to_port = models.PositiveIntegerField(
        "client's port", null=True, blank=True, validators=PORT, help_text="The first of them; empty: the same."
    )
    comment = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["server", "port", "protocol"]

    def __str__(self) -> str:
        return f"{self.get_protocol_display()} {self.port}" + (f"-{self.last_port}" if self.last_port else "")


class ClientNetwork(SharedRow, OfServer, Confirmable):
    """A network behind a user's client that the server routes to it.

    Several users may serve the same network; ``active`` says who does now. ``probe_ok`` is what the host last said
    about the probe address (None: nothing yet), ``probe_changed`` since when.
    """

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="client_networks")
    user = models.ForeignKey(VpnUser, on_delete=models.CASCADE, related_name="client_networks")
    network = NetworkField(help_text="Behind this user's client, for example 192.168.77.0/24.")
    priority = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="Who serves the same network: 1 is the primary, greater ones stand by.",
    )
    probe_address = models.GenericIPAddressField(
        null=True,
        blank=True,
        help_text="An address in the network, behind this very gateway: where it falls silent, another one takes over.",
    )
    probe_port = models.PositiveIntegerField(
        null=True, blank=True, validators=PORT, help_text="TCP; empty: ping it (ICMP)."
    )
    comment = models.CharField(max_length=200, blank=True)

    active = models.BooleanField(default=False, editable=False)
    probe_ok = models.BooleanField(null=True, editable=False)
    probe_changed = models.DateTimeField(null=True, editable=False)

    machine_fields = frozenset({"active", "probe_ok", "probe_changed"})

    class Meta:
        ordering = ["server", "network", "priority"]
        constraints = [
            models.UniqueConstraint(
                fields=["server", "network", "user"],
                name="client_network_once_of_user",
                violation_error_message="This user serves this network already.",
            ),
            models.UniqueConstraint(
                fields=["server", "network", "priority"],
                name="client_network_priority_unique",
                violation_error_message="Another user serves this network with this priority.",
            ),
            models.UniqueConstraint(
                fields=["server", "network"], condition=models.Q(active=True), name="client_network_active_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.network} behind {self.user}"

    def normalize(self) -> None:
        """In one spelling, because rows of one network are found by its text. One that moved is nobody's, as it will
        be saved; so it is compared with whoever serves that network now."""
        self.network = networks.spelled(self.network)
        if self.active and self._moved().exists():
            self.active = False

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.normalize()
        with transaction.atomic():
            self._forget_what_changed()
            super().save(*args, **kwargs)

    def _moved(self) -> models.QuerySet[ClientNetwork]:
        """This row as it is in the database, if that is of another network, user or server."""
        before = ClientNetwork.objects.filter(pk=self.pk)
        return before.exclude(server=self.server_id, user=self.user_id, network=self.network)

    def _forget_what_changed(self) -> None:
        """Another network, or another user's, is nobody's until it is decided anew; of another probe address nothing
        is known yet."""
        unknown: dict[str, Any] = {"probe_ok": None, "probe_changed": None}
        self._moved().update(active=False, **unknown)
        before = ClientNetwork.objects.filter(pk=self.pk)
        before.exclude(probe_address=self.probe_address, probe_port=self.probe_port).update(**unknown)
