"""What all links have that OpenVPN can carry, and which hosts can carry them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction

from core.crypto import SecretField

from .. import changes, validators
from ..hostnet.state.names import LINK_PREFIX
from ..hostnet.state.openvpn import LOWEST_PORT
from ..rules.registry import Ruled
from .host import Host
from .server import Server, ServerHost, hosts_of


class ByOpenVpn(Ruled):
    """``servers`` are the names of the fields that hold its servers of this installation. Interfaces of one kind of
    link have even numbers, and those of the other odd ones."""

    servers: ClassVar[tuple[str, ...]]
    odd: ClassVar[bool]

    port = models.PositiveIntegerField(
        "UDP port",
        default=1194,  # OpenVPN's own
        validators=[MinValueValidator(LOWEST_PORT), MaxValueValidator(65535)],
        help_text="With OpenVPN: where the side that listens is found. Open it in firewalls before its hosts.",
    )
    mtu = models.PositiveIntegerField(
        "MTU",
        default=0,
        validators=[validators.mtu],
        help_text="With OpenVPN, of both ends; 0: what the way out of each host leaves. Less where something between "
        "them takes smaller packets only.",
    )
    keys = SecretField()  # certificates and keys, where OpenVPN carries it (``link_keys``)

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        with transaction.atomic():
            # Servers that it moves away from lose something too.
            before = type(self)._base_manager.filter(pk=self.pk).values_list(*self.servers).first() or ()
            super().save(*args, **kwargs)
            changes.record(hosts_of(*(getattr(self, f"{each}_id") for each in self.servers), *before))

    @property
    def device(self) -> str:
        """The interface of each end."""
        return f"{LINK_PREFIX}{2 * self.pk + self.odd}"


def address_of(host: Host) -> str:
    """Where it is found by other machines; empty: nowhere."""
    return host.public_address or host.public_address6


def that_can_carry(server: Server, *, listening: bool) -> tuple[ServerHost, ...]:
    """Where ``server`` is, as far as a link can end there."""
    return among(server.attachments.select_related("host__node") if server.pk else (), listening=listening)


def among(rows: Iterable[ServerHost], *, listening: bool) -> tuple[ServerHost, ...]:
    """Of all attachments of one server those where a link can end, by priority: of several hosts those in the mesh,
    since the others reach it through that; and who listens has to be found."""
    every = sorted(rows, key=lambda row: (row.priority, row.pk))
    if len(every) > 1:
        every = [row for row in every if (node := getattr(row.host, "node", None)) and node.public_key] or every[:1]
    return tuple(row for row in every if not listening or address_of(row.host))
