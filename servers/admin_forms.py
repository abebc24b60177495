"""Forms of a server and a host with what is attached to them. Each model's own checks run by themselves; here are
those that need to see several rows of one form at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from unfold.forms import PaginationInlineFormSet

from users.admin_base import Inline

from . import networks
from .models import Route, Server, ServerHost

if TYPE_CHECKING:
    from django.forms import BaseInlineFormSet

    class _FormSet(BaseInlineFormSet[Any, Any, Any]): ...

    class _RouteForm(forms.ModelForm[Route]): ...

    class _AttachmentForm(forms.ModelForm[ServerHost]): ...

else:
    _FormSet = PaginationInlineFormSet
    _RouteForm = _AttachmentForm = forms.ModelForm


class RouteForm(_RouteForm):
    class Meta:
        model = Route
        fields = ("network", "nat", "comment")

    def clean_network(self) -> str:
        """In one spelling, so that the same network written twice in one form is found out."""
        text = str(self.cleaned_data["network"])
        try:
            return str(networks.parse(text))
        except ValidationError:
            return text  # the model says what is wrong with it


class RoutesInline(Inline):
    model = Route
    form = RouteForm
    fields = ("network", "nat", "comment")


class HostsInline(Inline):
    """The hosts of a server. The server of the form itself, with the port as it is being changed, is what the
    attachments are checked against, so a new server's are too."""

    model = ServerHost
    fields = ("host",)
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


class ServerOfHostForm(_AttachmentForm):
    """Here it is the server that is chosen: what is wrong with the pair is said there."""

    class Meta:
        model = ServerHost
        fields = ("server",)

    def add_error(self, field: str | None, error: Any) -> None:
        if field is None and "host" in getattr(error, "error_dict", {}):
            error = ValidationError({"server": error.error_dict["host"]})
        super().add_error(field, error)


class ServersInline(Inline):
    """The servers of a host."""

    model = ServerHost
    form = ServerOfHostForm
    formset = ServersOfHostFormSet
    fields = ("server",)
    autocomplete_fields = ("server",)
    verbose_name = "server"
    verbose_name_plural = "servers on this host"
