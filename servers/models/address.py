"""Who has which tunnel address."""

from __future__ import annotations

from django.db import models

from users.models import VpnUser

from .. import networks
from .server import Server


class Address(models.Model):
    """One host part of a server's networks that has been allotted at least once.

    A row with a user and ``dynamic`` off is that user's static address; with a user and ``dynamic`` on it is in
    use by one of the user's further devices; without a user it is free to be allotted again.
    """

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="addresses")
    host_part = models.BigIntegerField(editable=False)
    user = models.ForeignKey(VpnUser, on_delete=models.SET_NULL, null=True, blank=True, related_name="addresses")
    dynamic = models.BooleanField(default=False, editable=False)

    class Meta:
        ordering = ["server", "host_part"]
        verbose_name_plural = "addresses"
        constraints = [
            models.UniqueConstraint(fields=["server", "host_part"], name="address_given_once"),
            models.UniqueConstraint(
                fields=["server", "user"], condition=models.Q(dynamic=False), name="one_static_address_of_user"
            ),
        ]
        indexes = [
            models.Index(fields=["server", "host_part"], condition=models.Q(user=None), name="free_addresses"),
        ]

    def __str__(self) -> str:
        return self.address

    @property
    def address(self) -> str:
        return networks.address(self.server.wg_network, self.host_part)
