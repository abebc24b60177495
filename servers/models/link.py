"""Links between servers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import models
from django.db.models import F, Q

from core.clock import moment, now
from core.crypto import Secret

from .. import link_keys
from .by_openvpn import ByOpenVpn, that_can_carry
from .server import Server, ServerHost


class Carrier(models.TextChoices):
    MESH = "mesh", "WireGuard, by shared host or mesh"
    OPENVPN = "openvpn", "OpenVPN"


class ServerLink(ByOpenVpn):
    """Two servers whose clients reach each other's clients, the networks behind those, and each other's routes. It
    joins these two and no others: who is linked with one of them is not linked with the other by that.

    A pair has no order, so the server with the lesser key is always ``first``. ``keys`` are those of both ends
    (``link_keys.LinkKeys``).
    """

    servers, odd = ("first", "second"), False

    first = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="links_as_first", verbose_name="server")
    second = models.ForeignKey(
        Server, on_delete=models.CASCADE, related_name="links_as_second", verbose_name="other server"
    )
    masquerade = models.BooleanField(
        "NAT",
        default=False,
        help_text="Clients of each server appear to those of the other with the address of that one's gateway; off: "
        "with their own.",
    )
    names = models.BooleanField(
        "names of clients", default=False, help_text="The DNS of each server knows the clients of the other as well."
    )
    carrier = models.CharField(
        "carried by",
        max_length=8,
        choices=Carrier,
        default=Carrier.MESH,
        help_text="OpenVPN: a tunnel of its own between a host of the one server and one of the other. The two have no "
        "host in common then.",
    )

    class Meta:
        verbose_name = "server link"
        ordering = ["first__name", "second__name"]
        constraints = [
            models.UniqueConstraint(
                fields=["first", "second"],
                name="servers_linked_once",
                violation_error_message="These two servers are linked already.",
            ),
            models.CheckConstraint(
                condition=Q(first__lt=F("second")),
                name="link_of_two_servers",
                violation_error_message="A server cannot be linked to itself.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.first} and {self.second}"

    def normalize(self) -> None:
        if self.first_id and self.second_id and self.first_id > self.second_id:
            self.first, self.second = self.second, self.first

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.normalize()
        self._have_keys()
        super().save(*args, **kwargs)

    def _have_keys(self) -> None:
        """Those that nobody needs any more are forgotten: turned off and on again, a link has new ones."""
        if self.carrier != Carrier.OPENVPN:
            self.keys = Secret("")
        elif not self.keys:
            self.keys = Secret.of(link_keys.make(moment(now())).to_text())

    @property
    def by_openvpn(self) -> bool:
        return self.carrier == Carrier.OPENVPN

    def other(self, server: Server) -> Server:
        """The one that ``server`` is linked with."""
        return self.second if self.first_id == server.pk else self.first


def links_of(servers: Iterable[Server]) -> dict[int, list[tuple[ServerLink, Server]]]:
    """By server (primary key), each of its links with the other server of it, by its name."""
    keys = {server.pk for server in servers}
    found: dict[int, list[tuple[ServerLink, Server]]] = {key: [] for key in keys}
    rows = ServerLink.objects.filter(Q(first__in=keys) | Q(second__in=keys)).select_related("first", "second")
    for link in rows:
        for mine, other in ((link.first, link.second), (link.second, link.first)):
            if mine.pk in keys:
                found[mine.pk].append((link, other))
    return {key: sorted(each, key=lambda pair: pair[1].name) for key, each in found.items()}


def ends_of(link: ServerLink) -> tuple[tuple[ServerHost, ...], tuple[ServerHost, ...]] | None:
    """Where ``link`` can end that OpenVPN carries: the hosts of the side that listens, and those of the other one. None
    where there is none, or one that both servers are on."""
    servers = (link.first, link.second)
    whole = [that_can_carry(server, listening=False) for server in servers]
    found = [that_can_carry(server, listening=True) for server in servers]
    if not all(whole) or not any(found) or {row.host_id for row in whole[0]} & {row.host_id for row in whole[1]}:
        return None
    # The one that listens is found at each of its hosts, if that can be.
    second = len(found[0]) < len(whole[0]) and (len(found[1]) == len(whole[1]) or not found[0])
    return (found[1], whole[0]) if second else (found[0], whole[1])


def with_linked(servers: Iterable[int], **carried: str) -> dict[int, set[int]]:
    """By server (primary key), itself and those that it is linked with; ``carrier``: by links with this one alone."""
    found = {key: {key} for key in servers}
    rows = ServerLink.objects.filter(Q(first__in=found) | Q(second__in=found), **carried)
    for first, second in rows.values_list("first", "second"):
        for mine, other in ((first, second), (second, first)):
            if mine in found:
                found[mine].add(other)
    return found


def linked_with(server: Server) -> list[Server]:
    """The servers that it is linked with."""
    return [other for _, other in links_of([server])[server.pk]] if server.pk else []
