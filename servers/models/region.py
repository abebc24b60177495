"""Where clients come from."""

from __future__ import annotations

import ipaddress
from typing import Any

from django.db import models

from .. import networks, validators
from ..fields import NetworkField
from ..rules.registry import Ruled


class ClientRegion(Ruled):
    """A network that clients' requests come from, and its region: such clients are sent to hosts of that region first.
    Of several that an address is in, the smallest network counts."""

    network = NetworkField(unique=True, help_text="For example 203.0.113.0/24, or 2001:db8::/32.")
    region = models.CharField(max_length=32, validators=[validators.region], help_text="As it is called at the hosts.")

    class Meta:
        ordering = ["region", "network"]

    def __str__(self) -> str:
        return f"{self.network}: {self.region}"

    def normalize(self) -> None:
        self.network = networks.spelled(self.network)

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.normalize()
        super().save(*args, **kwargs)

    @classmethod
    def of(cls, address: str) -> str:
        """The region of a client by its address; empty where none is known."""
        try:
            client = ipaddress.ip_address(address)
        except ValueError:
            return ""
        rows = ((networks.parse(network), region) for network, region in cls.objects.values_list("network", "region"))
        mine = [(network.prefixlen, region) for network, region in rows if client in network]
        return max(mine)[1] if mine else ""
