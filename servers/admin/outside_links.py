"""Links to other installations: their pages, the link file that is made for the other side, and the one that came from
there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils.http import content_disposition_header
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminFileFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from core import clock
from core.admin.asking_again import ask_again
from core.admin.page import BAD, GOOD, NEUTRAL, WAITING, Button, Page, Panel, above_list, column, posted
from core.crypto import CannotDecrypt, Secret
from core.second_factor.proof import is_fresh
from servers import carriers, link_files, networks, outside_links, routing
from servers.hostnet.state import Code
from servers.link_files import LinkFile, LinkFileError
from servers.models import Host, OutsideLink, Server
from servers.validators import listed

from .pages import read_heartbeats


class OffersField(forms.MultipleChoiceField):
    """Networks of servers to choose from; as a value the text that ``OutsideLink.ours`` has."""

    widget = UnfoldAdminCheckboxSelectMultipleWidget

    def prepare_value(self, value: Any) -> Any:
        return listed(value) if isinstance(value, str) else value

    def clean(self, value: Any) -> Any:
        return ", ".join(super().clean(value))

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed(self.prepare_value(initial), data)


def offers(servers: Iterable[Server]) -> list[tuple[str, list[tuple[str, str]]]]:
    """By server, what it can offer."""
    return [
        (str(server), [(text, f"{text} ({what})") for text, what in routing.offered(server).items()])
        for server in servers
    ]


def let_choose(form: forms.BaseForm, servers: Iterable[Server]) -> None:
    """What ``form`` offers of these servers; it has no such field for who may only look."""
    if isinstance(field := form.fields.get("ours"), OffersField):
        field.choices = offers(servers)


if TYPE_CHECKING:
    _LinkForm = forms.ModelForm[OutsideLink]
else:
    _LinkForm = forms.ModelForm


class OutsideLinkForm(_LinkForm):
    ours = OffersField(label="Our networks", help_text=OutsideLink._meta.get_field("ours").help_text)

    class Meta:
        model = OutsideLink
        fields = ("name", "server", "ours", "theirs", "listens", "addresses", "port", "masquerade", "mtu")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        let_choose(self, [self.instance.server] if self.instance.pk else Server.objects.order_by("name"))

    def add_error(self, field: str | None, error: Any) -> None:
        """What is wrong with a field that is only shown is said above the form."""
        if field is None and hasattr(error, "error_dict"):
            placed: dict[str, list[Any]] = {}
            for name, found in error.error_dict.items():
                placed.setdefault(name if name in self.fields else NON_FIELD_ERRORS, []).extend(found)
            error = ValidationError(placed)
        super().add_error(field, error)


class FileForm(forms.Form):
    file = forms.FileField(label="Link file", widget=UnfoldAdminFileFieldWidget)


class ImportForm(forms.Form):
    """What this side says. ``sealed`` is the file as it was shown: nobody but this installation can have written it."""

    sealed = forms.CharField(widget=forms.HiddenInput)
    name = forms.CharField(
        widget=UnfoldAdminTextInputWidget, help_text=OutsideLink._meta.get_field("name").help_text, max_length=64
    )
    server = forms.ModelChoiceField(Server.objects.order_by("name"), widget=UnfoldAdminSelectWidget)
    ours = OffersField(label="We offer", help_text=OutsideLink._meta.get_field("ours").help_text)
    masquerade = forms.BooleanField(
        label="NAT",
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text=OutsideLink._meta.get_field("masquerade").help_text,
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        let_choose(self, Server.objects.order_by("name"))

    def refuse(self, error: ValidationError) -> None:
        """Show what is wrong with the link, at the field that can change it."""
        for field, said in error.message_dict.items():
            for message in said:
                self.add_error(field if field in self.fields else None, message)


@admin.register(OutsideLink)
class OutsideLinkPage(Page[OutsideLink]):
    form = OutsideLinkForm
    list_display = ("name", "server", "theirs", "carried_by", "is_up")
    list_select_related = ("server",)
    search_fields = ("name", "server__name")
    fieldsets = (
        (None, {"fields": (("name", "server"),)}),
        ("What reaches what", {"fields": ("ours", "theirs", "masquerade")}),
        ("The tunnel", {"fields": (("listens", "addresses"), ("port", "mtu"))}),
    )
    actions_list = ("import_file",)

    def get_readonly_fields(self, request: HttpRequest, obj: OutsideLink | None = None) -> tuple[str, ...]:
        """Whose side listens is part of the file."""
        if obj is None:
            return ()
        return ("server", "listens") if obj.imported else ("server",)

    def prepare(self, rows: Sequence[OutsideLink]) -> None:
        places = carriers.outside_places(rows)
        found = carriers.holders(places)
        for row, place in zip(rows, places, strict=True):
            row.end = found.get(place.name)  # type: ignore[attr-defined]
        read_heartbeats(list({host.pk: host for host in found.values()}.values()))

    @column("Carried by", ordering="listens")
    def carried_by(self, obj: OutsideLink) -> str:
        where = f"we listen on UDP port {obj.port}" if obj.listens else f"to {obj.addresses}, UDP port {obj.port}"
        return f"OpenVPN: {where}"

    @column("State", badge=True)
    def is_up(self, obj: OutsideLink) -> tuple[str, str]:
        return state_of(obj)

    def state(self, obj: OutsideLink) -> tuple[str, str]:
        return state_of(obj)

    def buttons(self, request: HttpRequest, obj: OutsideLink) -> list[Button]:
        if obj.imported:
            return super().buttons(request, obj)
        sure = "There is one already, which leads nowhere any more once there is a new one." if obj.works else ""
        return [
            *super().buttons(request, obj),
            Button("make_file", "Make a link file", "download", "default" if obj.works else "primary", sure),
        ]

    @posted("servers.change_outsidelink", sensitive=True)
    def make_file(self, request: HttpRequest, link: OutsideLink) -> HttpResponse | None:
        """The one answer that has the file."""
        try:
            text = outside_links.make_file(link, clock.now())
        except (ValidationError, LinkFileError) as error:
            for message in error.messages if isinstance(error, ValidationError) else [str(error)]:
                messages.error(request, message)
            return None
        self.log_change(request, link, "Made a link file.")
        response = HttpResponse(text, content_type="text/plain; charset=utf-8")
        response["Content-Disposition"] = content_disposition_header(True, f"link-{link.name}.txt") or "attachment"
        response["Cache-Control"] = "no-store"
        return response

    def has_import_permission(self, request: HttpRequest) -> bool:
        return self.has_add_permission(request)

    @above_list("Import a link file", "import", "import", "upload")
    def import_file(self, request: HttpRequest) -> HttpResponse:
        """A file is chosen, shown as what would be reached by it, and is a link once the rest was said."""
        if not is_fresh(request):
            return ask_again(request, request.path)
        request.current_app = self.admin_site.name
        form: FileForm | ImportForm = FileForm()
        file, problem = None, ""
        try:
            if "sealed" in request.POST:
                form = ImportForm(request.POST)
                file = opened(request.POST["sealed"])
                if link := self._taken_in(request, form, file):
                    return redirect(self.page_of(link))
            elif request.method == "POST":
                form = FileForm(request.POST, request.FILES)
                if form.is_valid():
                    file, form = self._shown(form.cleaned_data["file"])
        except LinkFileError as error:
            form, file, problem = FileForm(), None, str(error)
        context = {**self._context(request, form, file), "problem": problem}
        response = TemplateResponse(request, "admin/servers/import_link.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def _shown(self, upload: Any) -> tuple[LinkFile, ImportForm]:
        """What an uploaded file says, and the form for the rest; what it asks for is chosen where there is such."""
        raw = upload.read(link_files.LARGEST + 1)
        file = link_files.read(raw, clock.moment(clock.now()))
        outside_links.refuse_known(file)
        asked = [server for server in Server.objects.order_by("name") if {*file.ours} & routing.offered(server).keys()]
        first = asked[0] if asked else Server.objects.order_by("name").first()
        chosen = [each for each in file.ours if first is not None and each in routing.offered(first)]
        initial = {"sealed": Secret.of(raw.decode()).stored, "server": first, "ours": chosen}
        return file, ImportForm(initial=initial)

    def _taken_in(self, request: HttpRequest, form: ImportForm, file: LinkFile) -> OutsideLink | None:
        if not form.is_valid():
            return None
        given = form.cleaned_data
        link = outside_links.from_file(
            file,
            given["server"],
            given["name"],
            listed(given["ours"]),
            masquerade=given["masquerade"],
            now=clock.now(),
        )
        try:
            link.full_clean()
        except ValidationError as error:
            form.refuse(error)
            return None
        link.save()
        self.log_addition(request, link, "Imported a link file.")
        messages.success(request, f"{link} is linked. The link file is used up: delete it.")
        return link

    def _context(self, request: HttpRequest, form: FileForm | ImportForm, file: LinkFile | None) -> dict[str, Any]:
        return {
            **self.admin_site.each_context(request),
            "title": "Import a link file",
            "opts": self.opts,
            "media": self.media + form.media,
            "form": form,
            "file": file,
            "theirs": [(each, networks.parse(each).is_global) for each in file.theirs] if file else [],
        }

    def panels(self, request: HttpRequest, obj: OutsideLink) -> list[Panel]:
        (place,) = carriers.outside_places([obj])
        hosts = [row.host for row in place.rows]
        data = {"link": obj, "hosts": hosts, "now": carriers.holder(place) if len(hosts) > 1 else None}
        return [*super().panels(request, obj), Panel("How it is made", "admin/servers/outside_link.html", data)]


def opened(sealed: str) -> LinkFile:
    """The file that ``ImportForm`` carries. Raise ``LinkFileError``."""
    try:
        raw = Secret(sealed).reveal().encode()
    except CannotDecrypt:
        raise LinkFileError("Choose the file again.") from None
    return link_files.read(raw, clock.moment(clock.now()))


def state_of(link: OutsideLink) -> tuple[str, str]:
    """(tone, words): whether it is connected."""
    host: Host | None = link.end if hasattr(link, "end") else carriers.holder(*carriers.outside_places([link]))
    if host is None:
        return BAD, "no host where it could end"
    if not link.works:
        return WAITING, "no link file made yet"
    if not link.server.running or not host.enabled:
        return NEUTRAL, "its server is stopped"
    if not hasattr(host, "beat"):
        read_heartbeats([host])
    if not getattr(host, "beat", None):
        return WAITING, f"not known: {host} is silent"
    mine = f"{link.device}: "
    down = [each["text"] for each in host.conditions if each["code"] == Code.LINK_DOWN.value]
    words = next((text.removeprefix(mine) for text in down if text.startswith(mine)), "")
    return (BAD, words) if words else (GOOD, "connected")
