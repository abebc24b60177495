"""Who is connected now, from where, since when, last ping; and who was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from core import clock
from core.admin import bulk
from core.admin.page import GOOD, NEUTRAL, WAITING, Button, ReadOnlyPage, ago, column, posted, span
from core.redis_store import RedisUnavailable
from wgpeers import jobs
from wgpeers.lifecycle import connect, liveness
from wgpeers.models import Connection, State

LIVE, ENDED, ALL = "live", "ended", "all"


def read_deadlines(connections: Sequence[Connection]) -> None:
    """Put ``pinged`` on each: Unix seconds, None where there was none yet or nobody knows."""
    live = [connection for connection in connections if connection.state != State.ENDED]
    try:
        deadlines = liveness.deadlines([connection.public_id for connection in live])
    except RedisUnavailable:
        deadlines = {}
    for connection in connections:
        deadline = deadlines.get(connection.public_id)
        server = connection.server
        last = None if deadline is None or server is None else deadline - server.ping_timeout
        # Counting starts with the connect itself; a ping moves it on.
        if last is not None and last <= connection.created.timestamp():
            last = None
        connection.pinged = last  # type: ignore[attr-defined]


def live_rows(connections: QuerySet[Connection]) -> list[dict[str, Any]]:
    """Live connections as a panel of another page shows them."""
    rows = list(connections.exclude(state=State.ENDED).select_related("server", "host"))
    read_deadlines(rows)
    now = clock.now()
    return [
        {
            "connection": row,
            "since": ago(now - row.created.timestamp()),
            "last_ping": ping_words(row, now),
            "url": reverse("admin:wgpeers_connection_do", args=[row.pk, "disconnect"]),
        }
        for row in rows
    ]


def ping_words(connection: Connection, now: float) -> str:
    last = getattr(connection, "pinged", None)
    return "not yet" if last is None else ago(now - last)


class ShownFilter(SimpleListFilter):
    """Live connections unless history is asked for."""

    title = "show"
    parameter_name = "show"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(LIVE, "connected now"), (ENDED, "history"), (ALL, "all")]

    def value(self) -> str:
        return super().value() or LIVE

    def choices(self, changelist: Any) -> Any:
        for value, title in self.lookup_choices:
            query = changelist.get_query_string({self.parameter_name: value})
            yield {"selected": self.value() == value, "query_string": query, "display": title}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Connection]) -> QuerySet[Connection]:
        if self.value() == ENDED:
            return queryset.filter(state=State.ENDED)
        return queryset if self.value() == ALL else queryset.exclude(state=State.ENDED)


@admin.register(Connection)
class ConnectionPage(ReadOnlyPage[Connection]):
    further_lookups = frozenset({"user__id__exact"})  # links from users' pages
    list_filter = (ShownFilter, "server", "host", "platform", "end_reason")
    search_fields = ("user_name", "device_name", "address", "address6", "client_address", "wg_public_key")
    list_display_links = ("who",)
    # Newest first, by the one index that all of the history has.
    ordering = ("-id",)
    actions = ("disconnect_them",)
    _where = ("who", "on_server", "on_host", "device", "tunnel", "client_address")
    live_columns = (*_where, "since", "last_ping", "cut")
    ended_columns = (*_where, "until", "lasted", "why", "latency")
    fieldsets = (
        ("Who", {"fields": (("user", "user_name"), ("device_name", "device_id"), ("platform", "client_version"))}),
        ("Where", {"fields": (("server", "server_name"), ("host", "host_name"), ("address", "address6"))}),
        ("Client", {"fields": ("client_address", "wg_public_key")}),
        (
            "When",
            {
                "fields": (
                    ("created", "opened"),
                    ("last_ping", "session_ends"),
                    ("due", "ended"),
                    ("end_reason", "removed"),
                    "removal_latency",
                )
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Connection]:
        # Also for a single one: what it was about may be gone; see ``wgpeers.models.kept``.
        return super().get_queryset(request).select_related("server", "host", "user")

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        if request.GET.get("show", LIVE) == ENDED:
            return list(self.ended_columns)
        shown = list(self.live_columns)
        if not self.may_post(request, "disconnect"):
            shown.remove("cut")
        return shown

    def prepare(self, rows: Sequence[Connection]) -> None:
        read_deadlines(rows)

    def state(self, obj: Connection) -> tuple[str, str]:
        return {State.OPEN: (GOOD, "connected"), State.PENDING: (WAITING, "waiting for its host")}.get(
            State(obj.state), (NEUTRAL, "ended")
        )

    @column("User", ordering="user_name")
    def who(self, obj: Connection) -> str:
        return obj.user_name

    @column("Server", ordering="server_name")
    def on_server(self, obj: Connection) -> str:
        return obj.server_name

    @column("Host", ordering="host_name")
    def on_host(self, obj: Connection) -> str:
        return obj.host_name or "-"

    @column("Device", ordering="device_name")
    def device(self, obj: Connection) -> str:
        return " · ".join(word for word in (obj.device_name, obj.platform) if word) or "-"

    @column("Tunnel address", ordering="host_part")
    def tunnel(self, obj: Connection) -> SafeString:
        return format_html("{}<br>{}", obj.address, obj.address6) if obj.address6 else format_html("{}", obj.address)

    @column("Since", ordering="created")
    def since(self, obj: Connection) -> SafeString:
        return format_html('<span title="{}">{}</span>', obj.created, ago(clock.now() - obj.created.timestamp()))

    @column("Last ping")
    def last_ping(self, obj: Connection) -> str:
        if not hasattr(obj, "pinged"):
            read_deadlines([obj])
        return ping_words(obj, clock.now()) if obj.state != State.ENDED else "-"

    @column("Ended (UTC)", ordering="ended")
    def until(self, obj: Connection) -> SafeString | str:
        if obj.ended is None:
            return "-"
        return format_html('<span class="whitespace-nowrap">{}</span>', f"{obj.ended:%Y-%m-%d %H:%M}")

    @column("Lasted")
    def lasted(self, obj: Connection) -> str:
        return span((obj.ended - obj.created).total_seconds()) if obj.ended else "-"

    @column("Ended because", ordering="end_reason")
    def why(self, obj: Connection) -> str:
        return obj.get_end_reason_display() or "-"

    @column("Removed after", ordering="removal_latency")
    def latency(self, obj: Connection) -> str:
        return "-" if obj.removal_latency is None else f"{obj.removal_latency:.1f} s"

    @column("")
    def cut(self, obj: Connection) -> SafeString | str:
        return "" if obj.state == State.ENDED else self.row_buttons(obj, _disconnect_button(obj))

    def buttons(self, request: HttpRequest, obj: Connection) -> list[Button]:
        return [] if obj.state == State.ENDED else _disconnect_button(obj)

    def has_disconnect_permission(self, request: HttpRequest) -> bool:
        return self.may_post(request, "disconnect")

    @posted("wgpeers.change_connection")
    def disconnect(self, request: HttpRequest, connection: Connection) -> None:
        if connect.disconnect(connection, clock.now()):
            self.done(request, connection, f"Disconnected {connection}.")
        else:
            messages.info(request, f"{connection} had ended already.")

    @admin.action(description="Disconnect", permissions=["disconnect"])
    def disconnect_them(self, request: HttpRequest, queryset: QuerySet[Connection]) -> HttpResponse | None:
        live = queryset.exclude(state=State.ENDED)
        what = bulk.counted(live.count(), self.opts)
        if not bulk.confirmed(request):
            facts = ["Each is cut off and needs a new key to come back, which its client gets by itself if it may."]
            names = bulk.first_names(live)
            return bulk.ask(self, request, queryset, "disconnect_them", f"Disconnect {what}?", names, facts)
        bulk.carry_out(request, jobs.DISCONNECT, f"Disconnect {what}", live, f"Disconnected {what}.", {})
        return None


def _disconnect_button(connection: Connection) -> list[Button]:
    confirm = f"{connection.user_name} is cut off and needs a new key to come back, which the client gets by itself."
    return [Button("disconnect", "Disconnect", "link_off", "danger", confirm=confirm)]
