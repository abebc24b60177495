"""Machines and their mesh on the pages: how a host is joined, and what network they have among themselves."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from core import clock
from core.admin.asking_again import ask_again
from core.admin.page import BAD, GOOD, NEUTRAL, WAITING, Button, Page, Panel, ago, column, posted, span
from core.second_factor.proof import is_fresh
from core.shared_stores import what_keeps_to_one_machine
from servers import joining, mesh
from servers.models import Host, JoinToken, Mesh, MeshNode

CHANGE = "servers.change_host"


class JoiningMixin(Page[Host]):
    """How its machine joins. A new host's page begins with the command; it is shown once."""

    def response_add(self, request: HttpRequest, obj: Host, post_url_continue: str | None = None) -> HttpResponse:
        if "_addanother" in request.POST:
            return super().response_add(request, obj, post_url_continue)
        if not is_fresh(request):
            # The host is saved; its button makes the token once the second factor was shown again.
            return ask_again(request, self.page_of(obj))
        return self._show_command(request, obj)

    def buttons(self, request: HttpRequest, obj: Host) -> list[Button]:
        node = _node_of(obj)
        if node is not None and node.control:
            return super().buttons(request, obj)
        words = "Join again" if node else "Join a machine"
        mine = [Button("make_token", words, "add_link")]
        if node is None and is_superuser(request):
            mine.append(Button("make_control_token", "Join a control node", "add_moderator"))
        return [*super().buttons(request, obj), *mine]

    @posted(CHANGE, sensitive=True)
    def make_token(self, request: HttpRequest, host: Host) -> HttpResponse:
        self.log_change(request, host, "Made a token to join.")
        return self._show_command(request, host)

    @posted(CHANGE, sensitive=True)
    def make_control_token(self, request: HttpRequest, host: Host) -> HttpResponse:
        """Its machine gets every secret there is: no right of less than a superuser's may hand that over."""
        if not is_superuser(request):
            raise PermissionDenied
        if words := what_keeps_to_one_machine():
            for each in words:
                self.message_user(request, each, messages.ERROR)
            return HttpResponseRedirect(self.page_of(host))
        self.log_change(request, host, "Made a token to join as a control node.")
        return self._show_command(request, host, control=True)

    def _show_command(self, request: HttpRequest, host: Host, *, control: bool = False) -> HttpResponse:
        """The one answer that shows a token."""
        token = joining.make_token(host, clock.now(), control=control)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Join a machine as {'control node ' if control else ''}{host}",
            "control": control,
            "command": "sudo bin/run --join" if control else "bin/host join",
            "opts": self.opts,
            "host": host,
            "page": self.page_of(host),
            "address": control_address(request),
            "token": token.text,
            "minutes": int(joining.GOOD_FOR.total_seconds() // 60),
            "port": mesh.the_mesh().port,
        }
        response = TemplateResponse(request, "admin/servers/join.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def panels(self, request: HttpRequest, obj: Host) -> list[Panel]:
        node = _node_of(obj)
        data: dict[str, Any] = {"host": obj, "node": node, "state": joined_state(obj)}
        if node is not None:
            data["addresses"] = mesh.addresses(mesh.the_mesh(), node)
        return [
            *super().panels(request, obj),
            Panel("Its place in the mesh", "admin/servers/mesh_node.html", data, wide=True),
        ]


def is_superuser(request: HttpRequest) -> bool:
    return bool(request.user.is_active and request.user.is_superuser)


def control_address(request: HttpRequest) -> str:
    """What the new machine is to ask: where clients reach us, else where this page was reached."""
    base = settings.API_URLS[0] if settings.API_URLS else f"https://{request.get_host()}"
    return base.removeprefix("https://")


def _node_of(host: Host) -> MeshNode | None:
    return MeshNode.objects.filter(host=host).first()


def joined_state(host: Host) -> tuple[str, str]:
    node = _node_of(host)
    if node is not None:
        return (GOOD, "in the mesh") if node.public_key else (WAITING, "its worker has not said its key yet")
    token = JoinToken.objects.filter(host=host).first()
    if token is None:
        return NEUTRAL, "not joined"
    left = token.expires.timestamp() - clock.now()
    return (WAITING, f"waits for its machine, {span(left)} left") if left > 0 else (BAD, "its token has expired")


@admin.register(Mesh)
class MeshPage(Page[Mesh]):
    """One row, which nobody makes or deletes."""

    list_display = ("network", "port", "machines")
    fields = (("network", "port"),)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Mesh | None = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        mesh.the_mesh()
        return super().changelist_view(request, extra_context)

    @column("Machines")
    def machines(self, obj: Mesh) -> int:
        return MeshNode.objects.exclude(public_key="").count()

    def state(self, obj: Mesh) -> tuple[str, str] | None:
        if not obj.former or obj.former_until is None:
            return None
        return WAITING, f"{obj.former} works too, for {span(obj.former_until.timestamp() - clock.now())}"

    def save_model(self, request: HttpRequest, obj: Mesh, form: ModelForm[Mesh], change: bool) -> None:
        if "network" in form.changed_data:
            mesh.change_network(obj, str(form.initial["network"]))
        else:
            super().save_model(request, obj, form, change)

    def panels(self, request: HttpRequest, obj: Mesh) -> list[Panel]:
        # As it is saved: what the form says may be no network.
        now, saved = clock.now(), mesh.the_mesh()
        rows = [
            (node, mesh.addresses(saved, node)[0], ago(now - node.joined.timestamp()) if node.joined else "-")
            for node in MeshNode.objects.select_related("host")
        ]
        return [*super().panels(request, obj), Panel("Machines", "admin/servers/mesh.html", {"rows": rows}, wide=True)]
