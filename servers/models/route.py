"""What a server's clients reach through its hosts, and where their names are looked up."""

from __future__ import annotations

from typing import Any

from django.core.validators import MaxValueValidator
from django.db import models, transaction

from .. import changes, networks, validators
from ..fields import NetworkField
from ..rules.registry import Confirmable, Ruled
from .server import Server, hosts_of


class OfServer(Ruled):
    """A row that belongs to a server: whatever becomes of it, the server's hosts are told."""

    server: models.ForeignKey[Server, Server]
    server_id: int

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.normalize()
        with transaction.atomic():
            # The server that it moves away from loses something too.
            rows: Any = type(self)._base_manager
            servers = {self.server_id, *rows.filter(pk=self.pk).values_list("server", flat=True)}
            super().save(*args, **kwargs)
            changes.record(hosts_of(*servers))


class Route(OfServer, Confirmable):
    """A network that a server's clients reach through its hosts, or that they must not send through them."""

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="routes")
    network = NetworkField(help_text="For example 192.168.1.0/24; 0.0.0.0/0 or ::/0 sends everything.")
    nat = models.BooleanField(
        "NAT",
        default=True,
        help_text="Clients appear there with the host's own address; off: with their tunnel address, and the network "
        "reaches them too.",
    )
    nat_interface = models.CharField(
        "NAT only out of",
        max_length=15,
        blank=True,
        validators=[validators.interface_name],
        help_text="An interface of the host, for example eth1; empty: whichever the packets leave by.",
    )
    netmap = NetworkField(
        blank=True,
        help_text="The real network, equally long, where clients know it by the one above (1:1, both directions).",
    )
    metric = models.PositiveIntegerField(
        default=0, validators=[MaxValueValidator(9999)], help_text="For clients; the lowest wins. 0: theirs to choose."
    )
    net_gateway = models.BooleanField(
        "not through the tunnel", default=False, help_text="Left out of every other route, such as 0.0.0.0/0."
    )
    comment = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["server", "network"]
        constraints = [
            models.UniqueConstraint(
                fields=["server", "network"],
                name="route_unique_of_server",
                violation_error_message="This server has a route to this network already.",
            )
        ]

    def __str__(self) -> str:
        return self.network

    def normalize(self) -> None:
        self.network, self.netmap = networks.spelled(self.network), networks.spelled(self.netmap)
        if self.net_gateway:
            # NAT is on by default, so that it says nothing about what never reaches a host.
            self.nat = False


class SplitDomain(OfServer):
    """A domain whose names are looked up at servers of its own (split DNS)."""

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="split_domains")
    domain = models.CharField(max_length=253, validators=[validators.domains], help_text="For example corp.example.")
    dns_servers = models.CharField(
        "DNS servers", max_length=400, validators=[validators.addresses], help_text="Separated by commas."
    )

    class Meta:
        ordering = ["server", "domain"]
        constraints = [
            models.UniqueConstraint(
                fields=["server", "domain"],
                name="split_domain_unique_of_server",
                violation_error_message="This server sends this domain elsewhere already.",
            )
        ]

    def __str__(self) -> str:
        return self.domain

    def normalize(self) -> None:
        self.domain = self.domain.lower()
