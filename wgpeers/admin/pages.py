"""The admin pages that show connections, and the pages of users, servers and hosts put together: only here is
everything known that belongs on them."""

from __future__ import annotations

from collections.abc import Sequence

from django.contrib import admin
from django.db.models import Count, Model
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from core import clock
from core.admin.page import Panel, ago, column, span
from core.redis_store import RedisUnavailable
from servers.admin.addresses import AddressesMixin
from servers.admin.client_services import ClientServicesMixin
from servers.admin.dns_names import NamesMixin
from servers.admin.pages import HostPage, ServerPage
from servers.models import Host, Server
from users.admin.pages import VpnUserPage
from users.models import VpnUser
from wgpeers.lifecycle import failovers, obstacles
from wgpeers.models import Connection, State

from .connections import live_rows
from .links import LinksMixin


def _count_live(rows: Sequence[Model], of: str) -> None:
    """Put on each row how many live connections it has, as ``live``.

    One look at the partial index of all that live, which are few: asked for each row, the database would rather go
    through the row's whole history.
    """
    everybody = Connection.objects.exclude(state=State.ENDED).order_by().values_list(of)
    live = dict(everybody.annotate(count=Count("pk")))
    for row in rows:
        row.live = live.get(row.pk, 0)  # type: ignore[attr-defined]


def _connected(message: object, query: str) -> str:
    if not message:
        return "-"
    return format_html('<a href="{}?{}">{}</a>', reverse("admin:wgpeers_connection_changelist"), query, message)


@admin.register(VpnUser)
class VpnUserWithConnections(LinksMixin, AddressesMixin, NamesMixin, ClientServicesMixin, VpnUserPage):
    list_display = (*(name for name in VpnUserPage.list_display if name != "last_seen"), "connected")

    def prepare(self, rows: Sequence[VpnUser]) -> None:
        super().prepare(rows)
        _count_live(rows, "user")

    @column("Connected")
    def connected(self, obj: VpnUser) -> str:
        if not (live := getattr(obj, "live", 0)):
            return self.last_seen(obj)
        return _connected("now" if live == 1 else f"now, {live} times", f"user__id__exact={obj.pk}")

    def panels(self, request: HttpRequest, obj: VpnUser) -> list[Panel]:
        others = super().panels(request, obj)
        if not request.user.has_perm("wgpeers.view_connection"):
            return others
        data = {
            "rows": live_rows(Connection.objects.filter(user=obj)),
            "may_disconnect": request.user.has_perm("wgpeers.change_connection"),
            "all": f"{reverse('admin:wgpeers_connection_changelist')}?show=ended&user__id__exact={obj.pk}",
        }
        return [*others, Panel("Connected now", "admin/wgpeers/connected.html", data, wide=True, place=4)]


@admin.register(Server)
class ServerWithConnections(ServerPage):
    list_display = (*ServerPage.list_display[:-1], "connected", ServerPage.list_display[-1])

    def prepare(self, rows: Sequence[Server]) -> None:
        super().prepare(rows)
        _count_live(rows, "server")

    @column("Connected now")
    def connected(self, obj: Server) -> str:
        return _connected(getattr(obj, "live", 0), f"server__id__exact={obj.pk}")


def failover_in_words(host: Host, now: float) -> str:
    found = failovers.last_of(host, now)
    if found is None:
        return ""
    back = ", ".join(f"{name} {count}" for name, count in sorted(found.back.items()))
    took = (found.last - found.first).total_seconds()
    within = f", within {span(took)}" if took >= 1 else ""
    again = (
        f"It has clients again since {found.again:%Y-%m-%d %H:%M:%S} UTC." if found.again else "None came to it since."
    )
    return (
        f"{found.first:%Y-%m-%d %H:%M:%S} UTC, {ago(now - found.first.timestamp())}: {found.moved} of its {found.had} "
        f"client{'' if found.had == 1 else 's'} came back on other hosts{within} ({back}). {again}"
    )


@admin.register(Host)
class HostWithConnections(HostPage):
    list_display = (*HostPage.list_display, "connected")

    def prepare(self, rows: Sequence[Host]) -> None:
        super().prepare(rows)
        _count_live(rows, "host")

    @column("Connected now")
    def connected(self, obj: Host) -> str:
        return _connected(getattr(obj, "live", 0), f"host__id__exact={obj.pk}")

    def state(self, obj: Host) -> tuple[str, str]:
        _count_live([obj], "host")
        return super().state(obj)

    def panels(self, request: HttpRequest, obj: Host) -> list[Panel]:
        _count_live([obj], "host")
        live = getattr(obj, "live", 0)
        try:
            why = obstacles.of_host(obj, live)
        except RedisUnavailable:
            why = ["Redis cannot be reached: nobody can connect anywhere."]
        link = f"{reverse('admin:wgpeers_connection_changelist')}?host__id__exact={obj.pk}"
        data = {"live": live, "why": why, "link": link, "failover": failover_in_words(obj, clock.now())}
        panel = Panel("Clients", "admin/wgpeers/host_clients.html", data, wide=True)
        return [panel, *super().panels(request, obj)]
