"""Links to servers of other installations."""

from __future__ import annotations

import secrets
from typing import Any

from django.db import models, transaction

from core.crypto import Secret
from core.names import Named, NameField

from .. import validators
from ..fields import NetworksField, all_spelled
from ..networks import Network, parse
from .by_openvpn import ByOpenVpn, that_can_carry
from .server import Server, ServerHost

LONGEST_NETWORKS = 2000  # characters
LONGEST_ADDRESSES = 1000


def new_link_id() -> str:
    return secrets.token_hex(16)


class OutsideLink(Named, ByOpenVpn):
    """A link of a server to one of another installation, carried by OpenVPN. ``ours`` and ``theirs`` reach each other;
    nothing else passes, in either direction.

    One side makes it and writes a link file; the other one imports that, and has such a row of its own by it. Both
    rows have the same ``link_id``. Neither side learns anything else of the other.

    ``keys`` are those of our end alone (``link_keys.EndKeys``), for the side on which we are; empty: there is no link
    file yet.
    """

    servers, odd = ("server",), True

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
    addresses = models.CharField(
        "their addresses",
        max_length=LONGEST_ADDRESSES,
        blank=True,
        help_text="Where they listen, if we do not: addresses, or names such as vpn.example.com, in the order in which "
        "they are tried, separated by commas.",
    )
    masquerade = models.BooleanField(
        "NAT",
        default=False,
        help_text="Who comes from there appears to clients here with the address of the server's gateway.",
    )
    imported = models.BooleanField(default=False, editable=False)  # else we made it
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
        self.addresses = "" if self.listens else ", ".join(validators.listed(self.addresses))

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Keys are for one role: a link whose sides change roles has none any more, and so does not work until there is
        a new file."""
        self.normalize()
        with transaction.atomic():
            before = type(self)._base_manager.filter(pk=self.pk).values_list("listens", flat=True).first()
            fields = kwargs.get("update_fields")
            if before not in (None, self.listens) and (fields is None or "keys" not in fields):
                self.keys, self.keys_made = Secret(""), None
                kwargs |= {"update_fields": [*fields, "keys", "keys_made", "addresses"]} if fields is not None else {}
            super().save(*args, **kwargs)

    @property
    def works(self) -> bool:
        """Whether our end has all that it needs."""
        return bool(self.keys)

    @property
    def their_addresses(self) -> list[str]:
        return validators.listed(self.addresses)

    @property
    def our_networks(self) -> list[Network]:
        return [parse(text) for text in validators.listed(self.ours)]

    @property
    def their_networks(self) -> list[Network]:
        return [parse(text) for text in validators.listed(self.theirs)]


def end_of_outside(link: OutsideLink) -> tuple[ServerHost, ...]:
    """Where our end can be, by priority: where we listen, only where somebody could find it."""
    return that_can_carry(link.server, listening=link.listens)
