"""Admin pages for servers, hosts and tunnel addresses. wgpeers.admin adds who is connected, and registers them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html
from django.utils.safestring import SafeString

from core import clock
from core.admin import bulk
from core.admin.asking_again import FieldsAskAgain
from core.admin.page import BAD, GOOD, NEUTRAL, WAITING, Button, Page, Panel, ago, column, posted, span
from core.redis_store import RedisUnavailable
from servers import heartbeats, jobs, services
from servers.hostnet.state.conditions import Code, Severity
from servers.models import Host, Server

from .client_services import client_services_panels
from .factors import FactorsInline
from .forms import HostsInline, RoutesInline, ServersInline, SplitDomainsInline
from .links import link_panel
from .mesh import JoiningMixin
from .odd import PageThatAsksBack, ServerForm
from .reach import ReachMixin

# What stands for the heartbeats while nobody can read them.
UNKNOWN: dict[str, Any] = {}
# A full state goes out every 60 s; two that were missed are worth a word.
APPLY_OVERDUE = 150


class ServerPage(FieldsAskAgain, PageThatAsksBack[Server]):
    form = ServerForm
    # Who is not asked for a second factor, and for how long: whoever finds an open browser must not lower it.
    sensitive_fields = frozenset(
        {
            *("reconnect_grace", "factor_token_ttl", "ask_again_at", "time_zone", "ask_again_elsewhere"),
            "trusted_networks",
        }
    )
    list_display: tuple[str, ...] = ("name", "status", "networks", "udp_port", "on_hosts", "lets_in", "start_or_stop")
    list_filter = ("started", "wireguard", "organizations", "hosts")
    search_fields = ("name", "network", "wg_network", "organizations__name")
    autocomplete_fields = ("organizations", "groups")
    inlines = (HostsInline, FactorsInline, RoutesInline, SplitDomainsInline)
    actions = ("start_servers", "stop_servers")
    fieldsets = (
        (None, {"fields": ("name", ("organizations", "groups"), "wireguard")}),
        ("Tunnel networks", {"fields": (("network", "wg_network"), ("ipv6", "network6"), ("port", "mtu"))}),
        (
            "Clients",
            {
                "classes": ("tab",),
                "fields": (
                    ("inter_client", "restrict_routes"),
                    ("multi_device", "max_devices", "keep_connected_device"),
                    "platforms",
                    "pre_connect_message",
                ),
            },
        ),
        (
            "DNS",
            {
                "classes": ("tab",),
                "fields": (
                    ("dns_servers", "dns_tls_name"),
                    ("search_domains", "routing_domains"),
                    ("dns_mapping", "dns_zone"),
                ),
            },
        ),
        (
            "Asked again",
            {
                "classes": ("tab",),
                "fields": (
                    ("reconnect_grace", "factor_token_ttl"),
                    ("ask_again_at", "time_zone"),
                    "ask_again_elsewhere",
                    "trusted_networks",
                ),
            },
        ),
        ("Times", {"classes": ("tab",), "fields": (("ping_interval", "ping_timeout"), "session_timeout")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Server]:
        return super().get_queryset(request).prefetch_related("organizations", "groups", "hosts")

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        shown = list(super().get_list_display(request))
        if not self.may_post(request, "start"):
            shown.remove("start_or_stop")
        return shown

    def prepare(self, rows: Sequence[Server]) -> None:
        super().prepare(rows)
        read_heartbeats([host for server in rows for host in server.hosts.all()])

    def state(self, obj: Server) -> tuple[str, str]:
        return self.status(obj)

    @column("State", ordering="started", badge=True)
    def status(self, obj: Server) -> tuple[str, str]:
        return status_of_server(obj, obj.hosts.all())

    @column("Networks")
    def networks(self, obj: Server) -> SafeString:
        return format_html("{}<br>{}", obj.wg_network, obj.network6 if obj.ipv6 else "IPv6 off")

    @column("UDP port", ordering="port")
    def udp_port(self, obj: Server) -> str:
        return str(obj.port)

    @column("Hosts")
    def on_hosts(self, obj: Server) -> str:
        return ", ".join(host.name for host in obj.hosts.all()) or "-"

    @column("Lets in")
    def lets_in(self, obj: Server) -> str:
        organizations = ", ".join(organization.name for organization in obj.organizations.all()) or "nobody yet"
        groups = ", ".join(group.name for group in obj.groups.all())
        return f"{organizations}, only {groups}" if groups else organizations

    @column("")
    def start_or_stop(self, obj: Server) -> SafeString:
        return self.row_buttons(obj, self._buttons(obj))

    def buttons(self, request: HttpRequest, obj: Server) -> list[Button]:
        return self._buttons(obj)

    @staticmethod
    def _buttons(obj: Server) -> list[Button]:
        if obj.started:
            return [Button("stop", "Stop", "stop_circle", "danger", confirm=f"Everybody on {obj} is disconnected.")]
        return [Button("start", "Start", "play_circle", "primary")]

    @posted("servers.change_server")
    def start(self, request: HttpRequest, server: Server) -> None:
        try:
            services.start(server)
        except services.WireGuardOff:
            messages.error(request, f"{server} was not started: turn WireGuard on first.")
            return
        except ValidationError as error:
            messages.error(request, f"{server} was not started. {' '.join(error.messages)}")
            return
        self.done(request, server, f"Started {server}.")
        if not server.hosts.filter(enabled=True).exists():
            messages.warning(request, f"{server} has no enabled host yet, so nobody can connect. Attach one below.")
        if not server.organizations.exists():
            messages.warning(request, f"{server} lets nobody in yet: give it an organization.")

    @posted("servers.change_server")
    def stop(self, request: HttpRequest, server: Server) -> None:
        services.stop(server)
        self.done(request, server, f"Stopped {server}.")

    @admin.action(description="Start", permissions=["change"])
    def start_servers(self, request: HttpRequest, queryset: QuerySet[Server]) -> None:
        what = bulk.counted(queryset.count(), self.opts)
        bulk.carry_out(request, jobs.SET_STARTED, f"Start {what}", queryset, f"Started {what}.", {"started": True})

    @admin.action(description="Stop, and disconnect everybody on it", permissions=["change"])
    def stop_servers(self, request: HttpRequest, queryset: QuerySet[Server]) -> HttpResponse | None:
        what = bulk.counted(queryset.count(), self.opts)
        if not bulk.confirmed(request):
            facts = ["Everybody on them is disconnected."]
            return bulk.ask(self, request, queryset, "stop_servers", f"Stop {what}?", bulk.first_names(queryset), facts)
        bulk.carry_out(request, jobs.SET_STARTED, f"Stop {what}", queryset, f"Stopped {what}.", {"started": False})
        return None

    def panels(self, request: HttpRequest, obj: Server) -> list[Panel]:
        return [*super().panels(request, obj), *client_services_panels(request, obj), *link_panel(request, obj)]

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        server: Server = form.instance
        if not server.dns_mapping and (server.dns_tls_name or server.split_domains.exists()):
            message = "DNS over TLS and split DNS are the work of the hosts' own DNS servers: turn names for clients on"
            messages.warning(request, f"{message}, or they have no effect.")


CONDITION_TYPES = {Severity.ERROR: BAD, Severity.WARNING: WAITING}


class HostPage(JoiningMixin, ReachMixin, Page[Host]):
    ordering = ("name",)
    list_display: tuple[str, ...] = ("name", "status", "addresses", "carries", "load", "traffic", "applied", "trouble")
    list_filter = ("enabled", "draining", "region", "backend")
    search_fields = ("name", "public_address", "public_address6", "region")
    fields = (
        "name",
        ("public_address", "public_address6"),
        ("weight", "max_clients", "region"),
        ("enabled", "open_foreign_firewalls"),
    )
    inlines = (ServersInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Host]:
        running = Count("attachments", filter=Q(attachments__server__started=True, attachments__server__wireguard=True))
        return super().get_queryset(request).annotate(running=running, attached=Count("attachments"))

    def prepare(self, rows: Sequence[Host]) -> None:
        read_heartbeats(rows)

    def state(self, obj: Host) -> tuple[str, str]:
        return self.status(obj)

    @column("State", badge=True)
    def status(self, obj: Host) -> tuple[str, str]:
        return status_of(obj)

    @column("Public address")
    def addresses(self, obj: Host) -> str:
        return ", ".join(address for address in (obj.public_address, obj.public_address6) if address)

    @column("Servers started", ordering="running")
    def carries(self, obj: Host) -> str:
        return f"{getattr(obj, 'running', 0)} of {getattr(obj, 'attached', 0)}"

    @column("Load")
    def load(self, obj: Host) -> str:
        load = heartbeats.vitals(getattr(obj, "beat", None)).load
        return "-" if load is None else f"{load:.0%}"

    @column("Traffic, in / out")
    def traffic(self, obj: Host) -> str:
        counts = heartbeats.vitals(getattr(obj, "beat", None)).traffic.values()
        if not counts:
            return "-"
        return " / ".join(filesizeformat(sum(count[way] for count in counts)) for way in (0, 1))

    @column("Settings applied", ordering="applied_at")
    def applied(self, obj: Host) -> str:
        return applied_text(obj, clock.now())

    @column("Last trouble", badge=True)
    def trouble(self, obj: Host) -> tuple[str, str]:
        status = status_of(obj)
        if status[0] == BAD:
            return BAD, f"error: {status[1]}"
        conditions = heartbeats.conditions(obj, getattr(obj, "beat", None), clock.now())
        if conditions:
            worst = next((each for each in conditions if each["severity"] == Severity.ERROR), conditions[0])
            more = f" and {len(conditions) - 1} more" if len(conditions) > 1 else ""
            return CONDITION_TYPES[worst["severity"]], f"{worst['severity']}: {worst['code']}{more}"
        if obj.drift and obj.drift_at:
            return WAITING, f"drift repaired {ago(clock.now() - obj.drift_at.timestamp())}"
        return NEUTRAL, "none"

    def buttons(self, request: HttpRequest, obj: Host) -> list[Button]:
        others = super().buttons(request, obj)
        if obj.draining:
            return [Button("take_clients", "Take clients again", "play_circle", "primary"), *others]
        if not obj.enabled:
            return others
        confirm = f"{obj} gets no new clients. Those it has move to other hosts, some every ten seconds."
        return [Button("drain", "Drain", "output", confirm=confirm), *others]

    @posted("servers.change_host")
    def drain(self, request: HttpRequest, host: Host) -> None:
        services.drain(host)
        self.done(request, host, f"{host} is being drained.")

    @posted("servers.change_host")
    def take_clients(self, request: HttpRequest, host: Host) -> None:
        services.take_clients(host)
        self.done(request, host, f"{host} takes clients again.")

    def panels(self, request: HttpRequest, obj: Host) -> list[Panel]:
        read_heartbeats([obj])
        now = clock.now()
        conditions = heartbeats.conditions(obj, getattr(obj, "beat", None), now)
        data = {
            "host": obj,
            "status": status_of(obj),
            "applied": applied_text(obj, now),
            "vitals": heartbeats.vitals(getattr(obj, "beat", None)),
            "load": self.load(obj),
            "clock": clock_in_words(obj, now),
            "traffic": traffic_by_server(obj),
            "conditions": [(CONDITION_TYPES[each["severity"]], each) for each in conditions],
            "networks": obj.own_networks(),
            "foreign": any(each["code"] == Code.FOREIGN_FIREWALL for each in conditions),
            "drift_ago": ago(now - obj.drift_at.timestamp()) if obj.drift_at else "",
        }
        return [*super().panels(request, obj), Panel("What the host says", "admin/servers/host.html", data, wide=True)]


def read_heartbeats(hosts: Sequence[Host]) -> None:
    """Put what each host last said on it, as ``beat``: None for a silent one, ``UNKNOWN`` while Redis is away."""
    fresh: set[int] = set()
    try:
        alive, fresh = heartbeats.read(hosts), heartbeats.fresh(hosts)
    except RedisUnavailable:
        alive = {host.pk: UNKNOWN for host in hosts}
    for host in hosts:
        host.beat = alive.get(host.pk)  # type: ignore[attr-defined]
        host.is_fresh = host.pk in fresh  # type: ignore[attr-defined]


def clock_in_words(host: Host, now: float) -> str:
    """How its clock differs from ours."""
    try:
        seconds = heartbeats.clock_difference(host, getattr(host, "beat", None), now)
    except RedisUnavailable:
        seconds = None
    if seconds is None:
        return "-"
    if abs(seconds) < 1:
        return "as the control side's, to a second"
    return f"{span(abs(seconds))} {'ahead of' if seconds > 0 else 'behind'} the control side's"


def traffic_by_server(host: Host) -> list[tuple[str, str, str]]:
    """Name, bytes from clients, bytes to clients, since the interface was made."""
    counts = heartbeats.vitals(getattr(host, "beat", None)).traffic
    servers = Server.objects.filter(attachments__host=host, public_id__in=counts).order_by("name")
    rows = ((each.name, *counts[each.public_id]) for each in servers)
    return [(name, filesizeformat(received), filesizeformat(sent)) for name, received, sent in rows]


def status_of(host: Host) -> tuple[str, str]:
    if not host.enabled:
        return NEUTRAL, "disabled"
    if not hasattr(host, "beat"):
        read_heartbeats([host])
    beat = getattr(host, "beat", None)
    if beat is UNKNOWN:
        return WAITING, "unknown: Redis is away"
    if beat is not None and host.draining:
        return _drained(host)
    if beat is not None:
        return (GOOD, "alive") if getattr(host, "is_fresh", False) else (WAITING, "late: no new clients")
    return (BAD, "silent") if host.boot else (WAITING, "not seen yet")


def status_of_server(server: Server, hosts: Iterable[Host]) -> tuple[str, str]:
    """What clients meet there: a server that is started and whose hosts are all silent lets nobody in."""
    if not server.started:
        return NEUTRAL, "stopped"
    if not server.wireguard:
        return BAD, "WireGuard is off"
    enabled = [host for host in hosts if host.enabled]
    if not enabled:
        return WAITING, "no host"
    tones = [status_of(host)[0] for host in enabled]
    if any(getattr(host, "beat", None) is UNKNOWN for host in enabled):
        return WAITING, "unknown: Redis is away"
    up = tones.count(GOOD)
    if up:
        return (GOOD, "running") if up == len(enabled) else (WAITING, f"running on {up} of {len(enabled)} hosts")
    if BAD not in tones:
        return WAITING, "no host seen yet"
    return BAD, "its host is silent" if len(enabled) == 1 else "no host is up"


def _drained(host: Host) -> tuple[str, str]:
    left: int | None = getattr(host, "live", None)
    if left == 0:
        return GOOD, "drained: empty"
    return WAITING, "draining" if left is None else f"draining: {left} left"


def applied_text(host: Host, now: float) -> str:
    """When the host was last given, and carried out, all that it should be."""
    if host.applied_at is None:
        return "never"
    seconds = now - host.applied_at.timestamp()
    return f"{ago(seconds)}, overdue" if seconds > APPLY_OVERDUE else ago(seconds)
