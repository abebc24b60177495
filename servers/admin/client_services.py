"""What servers do for single users: lists of forwarded ports and of networks behind clients, and the same rows on
servers' and users' pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.db.models import Field, ForeignKey, Q, QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from unfold.widgets import UnfoldAdminSelectWidget

from core import clock
from core.admin.page import BAD, GOOD, NEUTRAL, WAITING, Inline, Page, Panel, column, span
from servers.access import servers_of
from servers.models import ClientNetwork, PortForward, Server
from users.models import VpnUser

from .forms import ForwardsFormSet, at_least, number
from .odd import AsksBack, PageThatAsksBack

if TYPE_CHECKING:

    class _NetworkForm(forms.ModelForm[ClientNetwork]): ...

    class _ForwardForm(forms.ModelForm[PortForward]): ...

else:
    _NetworkForm = _ForwardForm = forms.ModelForm

# A server's page shows no more rows than this of each kind; the lists show all.
SHOWN = 20


def serving(row: ClientNetwork, *, short: bool = False) -> tuple[str, str]:
    """Who serves a network now, and what its probe says (``short``: not since when), as a badge."""
    since = ""
    if row.probe_changed is not None and not short:
        since = f" for {span(clock.now() - row.probe_changed.timestamp())}"
    if row.active:
        return (WAITING, f"serves it, probe silent{since}") if row.probe_ok is False else (GOOD, "serves it")
    if row.probe_ok is False:
        return BAD, f"probe silent{since}"
    return NEUTRAL, f"stands by, well{since}" if row.probe_ok else "does not serve it"


def probe_text(row: ClientNetwork) -> str:
    if not row.probe_address:
        return "-"
    if not row.probe_port:
        return f"{row.probe_address} (ICMP)"
    return f"{row.probe_address} TCP {row.probe_port}"


def client_ports(row: PortForward) -> str:
    first = row.to_port or row.port
    return f"{first}-{first + row.last_port - row.port}" if row.last_port else str(first)


class ServesFilter(SimpleListFilter):
    title = "state"
    parameter_name = "serves"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "serves its network"), ("no", "does not"), ("silent", "probe silent")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ClientNetwork]) -> QuerySet[ClientNetwork]:
        wanted = {"yes": Q(active=True), "no": Q(active=False), "silent": Q(probe_ok=False)}
        return queryset.filter(wanted.get(self.value() or "", Q()))


@admin.register(PortForward)
class PortForwardPage(Page[PortForward]):
    list_display = ("external", "protocol", "to_user", "to_port_of_client", "server", "comment")
    further_lookups = frozenset({"user__id__exact"})  # links from users' pages
    list_filter = ("protocol", "server")
    list_select_related = ("server", "user")
    search_fields = ("user__name", "server__name", "comment", "port")
    ordering = ("port", "protocol")
    autocomplete_fields = ("server", "user")
    fields = (("server", "user"), ("port", "last_port"), ("protocol", "to_port"), "comment")

    @column("External port", ordering="port")
    def external(self, obj: PortForward) -> str:
        return f"{obj.port}-{obj.last_port}" if obj.last_port else str(obj.port)

    @column("User", ordering="user__name")
    def to_user(self, obj: PortForward) -> str:
        return obj.user.name

    @column("Client's port")
    def to_port_of_client(self, obj: PortForward) -> str:
        return client_ports(obj)


class ClientNetworkForm(AsksBack, _NetworkForm):
    class Meta:
        model = ClientNetwork
        fields = ("server", "user", "network", "priority", "probe_address", "probe_port", "comment")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "priority" in self.fields:  # not for who may only look
            self.fields["priority"].required = False

    def clean_priority(self) -> int:
        return self.cleaned_data["priority"] or 1


@admin.register(ClientNetwork)
class ClientNetworkPage(PageThatAsksBack[ClientNetwork]):
    form = ClientNetworkForm
    list_display = ("network", "behind", "priority", "serves", "probe", "server", "comment")
    further_lookups = frozenset({"user__id__exact"})
    list_filter = (ServesFilter, "server")
    list_select_related = ("server", "user")
    search_fields = ("network", "user__name", "server__name", "comment")
    autocomplete_fields = ("server", "user")
    fields = (("server", "user"), ("network", "priority"), ("probe_address", "probe_port"), "comment")

    def state(self, obj: ClientNetwork) -> tuple[str, str]:
        return serving(obj)

    @column("Behind", ordering="user__name")
    def behind(self, obj: ClientNetwork) -> str:
        return obj.user.name

    @column("Now", badge=True)
    def serves(self, obj: ClientNetwork) -> tuple[str, str]:
        return serving(obj)

    @column("Probe")
    def probe(self, obj: ClientNetwork) -> str:
        return probe_text(obj)


class OfUserInline(Inline):
    """Rows of a user: the servers to choose from are those that they may use, and those that they have rows on."""

    hide_title = True
    # Most users have none.
    classes = ("collapse",)
    show_count = True

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        self.user: VpnUser | None = obj
        return super().get_formset(request, obj, **kwargs)

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any], request: HttpRequest, **kwargs: Any
    ) -> forms.ModelChoiceField[Any] | None:
        if db_field.name == "server" and self.user is not None:
            has = self.model._default_manager.filter(user=self.user).values("server")
            may = servers_of(self.user).order_by().values("pk")
            kwargs["queryset"] = Server.objects.filter(Q(pk__in=may) | Q(pk__in=has))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def formfield_for_dbfield(self, db_field: Field[Any, Any], request: HttpRequest, **kwargs: Any) -> Any:
        found: Any = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name == "server" and found is not None:
            # A server is no detail of a row: no buttons beside it.
            found.widget.can_add_related = found.widget.can_change_related = found.widget.can_view_related = False
            found.choices = list(found.choices)  # read once, not for each row
        return found


class NetworkOfUserForm(ClientNetworkForm):
    class Meta(ClientNetworkForm.Meta):
        labels = {"probe_address": "Probe", "probe_port": "TCP port"}
        widgets = {
            "network": at_least(11),
            "probe_address": at_least(9),
            "priority": number(),
            "probe_port": number(),
        }


class ForwardOfUserForm(_ForwardForm):
    class Meta:
        model = PortForward
        fields = ("server", "protocol", "port", "last_port", "to_port", "comment")
        widgets = {
            "protocol": UnfoldAdminSelectWidget(attrs={"style": "min-width: 10rem"}),
            "port": number(),
            "last_port": number(),
            "to_port": number(),
        }


class ForwardsInline(OfUserInline):
    model = PortForward
    form = ForwardOfUserForm
    formset = ForwardsFormSet
    fields = ("server", "protocol", "port", "last_port", "to_port", "comment")
    verbose_name_plural = "ports forwarded to this user"


class ClientNetworksInline(OfUserInline):
    model = ClientNetwork
    form = NetworkOfUserForm
    fields = ("server", "network", "priority", "probe_address", "probe_port", "comment", "serves")
    readonly_fields = ("serves",)
    verbose_name_plural = "networks behind this user's client"

    @column("Now")
    def serves(self, obj: ClientNetwork) -> str:
        if not obj.pk:
            return "-"
        tone, message = serving(obj, short=True)
        return render_to_string("unfold/helpers/label.html", {"type": tone, "text": message})


class ClientServicesMixin(PageThatAsksBack[VpnUser]):
    """Ports and networks on a user's page; on the page of a new one there is no server to choose yet."""

    inlines = (ForwardsInline, ClientNetworksInline)

    def get_inlines(self, request: HttpRequest, obj: VpnUser | None) -> Any:
        return super().get_inlines(request, obj) if obj else ()


def client_services_panels(request: HttpRequest, server: Server) -> Iterator[Panel]:
    """What a server does for single users, as far as the administrator may see it."""
    if request.user.has_perm("servers.view_portforward"):
        forwards = server.forwards.select_related("user__organization")[: SHOWN + 1]
        yield _panel("Port forwards", "portforward", server, [_forward(row) for row in forwards])
    if request.user.has_perm("servers.view_clientnetwork"):
        behind = server.client_networks.select_related("user__organization")[: SHOWN + 1]
        yield _panel("Client networks", "clientnetwork", server, [_network(row) for row in behind])


def _panel(title: str, model: str, server: Server, lines: list[dict[str, Any]]) -> Panel:
    every = f"{reverse(f'admin:servers_{model}_changelist')}?server__id__exact={server.pk}"
    data = {"lines": lines[:SHOWN], "more": len(lines) > SHOWN, "all": every}
    return Panel(title, "admin/servers/client_services.html", data)


def _forward(row: PortForward) -> dict[str, Any]:
    return {"what": str(row), "row": row, "message": f"port {client_ports(row)}"}


def _network(row: ClientNetwork) -> dict[str, Any]:
    return {"what": row.network, "row": row, "badge": serving(row)}
