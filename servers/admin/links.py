"""Which servers are linked."""

from __future__ import annotations

from collections.abc import Iterator

from django.contrib import admin
from django.http import HttpRequest

from core.admin.page import Page, Panel, column
from servers import carriers
from servers.models import Server, ServerLink, links_of


@admin.register(ServerLink)
class ServerLinkPage(Page[ServerLink]):
    list_display = ("servers", "nat", "names_are_known", "carried_by")
    list_filter = ("carrier", "masquerade", "names")
    list_select_related = ("first", "second")
    search_fields = ("first__name", "second__name")
    autocomplete_fields = ("first", "second")
    fields = (("first", "second"), ("masquerade", "names"), "carrier", ("port", "mtu"))

    @column("Servers", ordering="first__name")
    def servers(self, obj: ServerLink) -> str:
        return str(obj)

    @column("NAT", ordering="masquerade")
    def nat(self, obj: ServerLink) -> str:
        return "on" if obj.masquerade else "off"

    @column("Names of clients", ordering="names")
    def names_are_known(self, obj: ServerLink) -> str:
        return "on" if obj.names else "off"

    @column("Carried by", ordering="carrier")
    def carried_by(self, obj: ServerLink) -> str:
        return f"OpenVPN, UDP port {obj.port}" if obj.by_openvpn else "WireGuard"

    def panels(self, request: HttpRequest, obj: ServerLink) -> list[Panel]:
        found = super().panels(request, obj)
        if obj.by_openvpn:
            data = {"link": obj, "sides": sides_of(obj)}
            found.append(Panel("Where it ends", "admin/servers/link_ends.html", data))
        return found


def sides_of(link: ServerLink) -> list[dict[str, object]]:
    """The host that has each end now, and those that would have it without that; who listens first."""
    found: list[dict[str, object]] = []
    for place in carriers.link_places(link).values():
        host = carriers.holder(place)
        others = [row.host for row in place.rows if row.host != host]
        found.append({"server": place.rows[0].server, "host": host, "others": others, "listens": not found})
    return found


def link_panel(request: HttpRequest, server: Server) -> Iterator[Panel]:
    """What a server is linked with, as far as the administrator may see it."""
    if request.user.has_perm("servers.view_serverlink"):
        lines = [
            {"link": link, "server": other, "words": how(link, other)} for link, other in links_of([server])[server.pk]
        ]
        may_look = server.pk and request.user.has_perm("servers.view_outsidelink")
        outside = list(server.outside_links.all()) if may_look else []
        yield Panel("Linked servers", "admin/servers/links.html", {"lines": lines, "outside": outside})


def how(link: ServerLink, other: Server) -> str:
    if not other.running:
        return "stopped: nothing passes"
    words = "NAT" if link.masquerade else "no NAT"
    return f"{words}, carried by OpenVPN" if link.by_openvpn else words
