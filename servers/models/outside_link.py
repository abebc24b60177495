"""Links to servers of other installations."""

from __future__ import annotations

import secrets
from typing import Any

from django.db import models, transaction

from core.crypto import Secret, SecretField
from core.names import Named, NameField

from .. import changes, validators
from ..fields import NetworksField, all_spelled
from ..hostnet.state.names import LINK_PREFIX
from ..networks import Network, parse
from ..rules.registry import Ruled
from .host import Host
from .link import LINK_PORT, PORTS, address_of
from .server import Server, hosts_of

LONGEST_NETWORKS = 2000  # characters


def new_link_id() -> str:
    return secrets.token_hex(16)


class OutsideLink(Named, Ruled):
    """A link of a server to one of another installation, carried by OpenVPN. ``ours`` and ``theirs`` reach each other;
    nothing else passes, in either direction.

    One side makes it and writes a link file; the other one imports that, and has such a row of its own by it. Both
    rows have the same ``link_id``. Neither side learns anything else of the other.
    """

    link_id = models.CharField(max_length=32, unique=True, default=new_link_id, editable=False)
    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="outside_links")
    name = NameField(help_text="Of the other installation, for you.")
    ours = NetworksField(
        "our networks",
        max_length=LONGEST_NETWORKS,
        help_text="What the other installation reaches, and what reaches it: of this server's networks those that are "
        "chosen here, and no others.",
    )
    theirs = NetworksField(
        "their networks",
        max_length=LONGEST_NETWORKS,
        help_text="What is reached there, separated by commas. What they do not offer is not reached.",
    )
    listens = models.BooleanField(
        "we listen", default=True, help_text="On: the other side's host connects to ours. Off: ours connects to theirs."
    )
    address = models.CharField(
        "their address",
        max_length=253,
        blank=True,
        help_text="Where they listen, if we do not: an address, or a name such as vpn.example.com.",
    )
    port = models.PositiveIntegerField(
        "UDP port", default=LINK_PORT, validators=PORTS, help_text="Of the side that listens."
    )
    masquerade = models.BooleanField(
        "NAT",
        default=False,
        help_text="Who comes from there appears to clients here with the address of the server's gateway.",
    )
    mtu = models.PositiveIntegerField(
        "MTU",
        default=0,
        validators=[validators.mtu],
        help_text="Of both ends; 0: what the way out of each host leaves.",
    )
    imported = models.BooleanField(default=False, editable=False)  # else we made it
    # Of our end alone (``link_keys.EndKeys``), for the side on which we are. Empty: there is no link file yet.
    keys = SecretField()
    keys_made = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = "link to another installation"
        verbose_name_plural = "links to other installations"
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["name_key"], name="one_outside_link_of_a_name")]

    def __str__(self) -> str:
        return self.name

    def normalize(self) -> None:
        self.ours, self.theirs = all_spelled(self.ours), all_spelled(self.theirs)
        if self.listens:
            self.address = ""

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Keys are for one role: a link whose sides change roles has none any more, and so does not work until there is
        a new file."""
        self.normalize()
        with transaction.atomic():
            before = type(self)._base_manager.filter(pk=self.pk).values_list("server", "listens").first()
            fields = kwargs.get("update_fields")
            if before is not None and before[1] != self.listens and (fields is None or "keys" not in fields):
                self.keys, self.keys_made = Secret(""), None
                kwargs |= {"update_fields": [*fields, "keys", "keys_made", "address"]} if fields is not None else {}
            super().save(*args, **kwargs)
            changes.record(hosts_of(self.server_id, *(before[:1] if before else ())))

    @property
    def device(self) -> str:
        """The interface of our end. Even numbers are those of ``ServerLink``."""
        return f"{LINK_PREFIX}{2 * self.pk + 1}"

    @property
    def works(self) -> bool:
        """Whether our end has all that it needs."""
        return bool(self.keys)

    @property
    def our_networks(self) -> list[Network]:
        return [parse(text) for text in validators.listed(self.ours)]

    @property
    def their_networks(self) -> list[Network]:
        return [parse(text) for text in validators.listed(self.theirs)]


def end_of_outside(link: OutsideLink) -> Host | None:
    """The host at which our end is. None where the server is on no host, or on several: clients on the others would
    not reach it; nor where we listen and nobody could find it."""
    hosts = list(link.server.hosts.all())
    if len(hosts) != 1 or (link.listens and not address_of(hosts[0])):
        return None
    return hosts[0]
