"""Forms of a server and a host with what is attached to them. Each model's own checks run by themselves; here are
those that need to see several rows of one form at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from unfold import widgets
from unfold.forms import PaginationInlineFormSet

from core.admin.page import Inline
from servers.models import Route, Server, ServerHost, SplitDomain
from servers.rules import forward, route

from .odd import AsksBack

if TYPE_CHECKING:
    from django.forms import BaseInlineFormSet

    class _FormSet(BaseInlineFormSet[Any, Any, Any]): ...

    class _RouteForm(forms.ModelForm[Route]): ...

    class _AttachmentForm(forms.ModelForm[ServerHost]): ...

else:
    _FormSet = PaginationInlineFormSet
    _RouteForm = _AttachmentForm = forms.ModelForm


class TogetherFormSet(_FormSet):
    """Rows that must go together. Each row's own check looks at the rows of the database that are not in this form;
    those that are, as they are here, are looked at by ``together``."""

    together: Callable[[list[Any]], Iterator[tuple[Any, ValidationError]]]

    def _construct_form(self, i: int, **kwargs: Any) -> Any:
        form = super()._construct_form(i, **kwargs)  # type: ignore[misc]
        form.instance.decided_with = [row.pk for row in self.get_queryset()] if self.instance.pk else []
        return form

    def clean(self) -> None:
        super().clean()
        stay = [form for form in self.forms if form.is_valid() and form.cleaned_data and not self._goes(form)]
        forms_of = {id(form.instance): form for form in stay}
        for row, error in type(self).together([form.instance for form in stay]):
            forms_of[id(row)].add_error(None, error)

    def _goes(self, form: Any) -> bool:
        return bool(form.cleaned_data.get("DELETE")) or not (form.instance.pk or form.has_changed())


class RoutesFormSet(TogetherFormSet):
    together = staticmethod(route.together)


class ForwardsFormSet(TogetherFormSet):
    together = staticmethod(forward.together)


def at_least(rem: float) -> Any:
    return widgets.UnfoldAdminTextInputWidget(attrs={"style": f"min-width: {rem}rem"})


def number() -> Any:
    return widgets.UnfoldAdminIntegerFieldWidget(attrs={"style": "min-width: 4rem"})


class RouteForm(AsksBack, _RouteForm):
    class Meta:
        model = Route
        fields = ("network", "nat", "net_gateway", "nat_interface", "netmap", "metric", "comment")
        # A table has room for a word; the help behind it says the rest.
        labels = {"net_gateway": "No tunnel", "nat_interface": "Out of", "netmap": "Maps to"}
        widgets = {"network": at_least(11), "nat_interface": at_least(4.5), "netmap": at_least(11), "metric": number()}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "metric" in self.fields:  # not for who may only look
            self.fields["metric"].required = False

    def clean_metric(self) -> int:
        return self.cleaned_data["metric"] or 0


class RoutesInline(Inline):
    model = Route
    form = RouteForm
    formset = RoutesFormSet
    fields = RouteForm.Meta.fields
    hide_title = True


class SplitDomainsInline(Inline):
    """Split DNS."""

    model = SplitDomain
    fields = ("domain", "dns_servers")
    hide_title = True
    verbose_name = "split domain"
    verbose_name_plural = "split DNS: domains that are looked up elsewhere"


class AttachmentForm(_AttachmentForm):
    """A host that is attached without a word about its priority has the usual one."""

    class Meta:
        model = ServerHost
        fields: tuple[str, ...] = ("host", "priority")
        widgets = {"priority": number()}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "priority" in self.fields:  # not for who may only look
            self.fields["priority"].required = False

    def clean_priority(self) -> int:
        return self.cleaned_data["priority"] or 1


class HostsInline(Inline):
    """The hosts of a server. The server of the form itself, with the port as it is being changed, is what the
    attachments are checked against, so a new server's are too."""

    model = ServerHost
    form = AttachmentForm
    fields = ("host", "priority")
    hide_title = True
    autocomplete_fields = ("host",)
    verbose_name = "host"
    verbose_name_plural = "runs on these hosts"


class ServersOfHostFormSet(_FormSet):
    """Two servers attached at once may be free of clashes each, and clash with each other."""

    def clean(self) -> None:
        super().clean()
        ports: dict[int, Server] = {}
        for form in self.forms:
            server = form.cleaned_data.get("server") if hasattr(form, "cleaned_data") else None
            if server is None or form.cleaned_data.get("DELETE"):
                continue
            first = ports.setdefault(server.port, server)
            if first != server:
                message = f"UDP port {server.port} is that of server {first} as well."
                form.add_error("server", f"{message} Give one of them another WireGuard port.")


class ServerOfHostForm(AttachmentForm):
    """Here it is the server that is chosen: what is wrong with the pair is said there."""

    class Meta(AttachmentForm.Meta):
        fields = ("server", "priority")

    def add_error(self, field: str | None, error: Any) -> None:
        if field is None and "host" in getattr(error, "error_dict", {}):
            error = ValidationError({"server": error.error_dict["host"]})
        super().add_error(field, error)


class ServersInline(Inline):
    """The servers of a host."""

    model = ServerHost
    form = ServerOfHostForm
    formset = ServersOfHostFormSet
    fields = ("server", "priority")
    hide_title = True
    autocomplete_fields = ("server",)
    verbose_name = "server"
    verbose_name_plural = "servers on this host"
