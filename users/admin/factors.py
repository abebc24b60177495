"""A user's second factors on their page: each factor's own panel, and what holds for this user whatever servers say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import messages
from django.db.models import Field
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.widgets import UnfoldAdminSelectWidget

from core import clock
from core.admin.asking_again import RowsAskAgain
from core.admin.page import Button, Inline, Page, Panel, posted
from core.redis_store import RedisUnavailable
from users.factors import guesses
from users.factors.panels import FactorPanel, NotDone, ShownOnce
from users.factors.registry import FACTORS, load
from users.models import Enrolment, FactorOverride, VpnUser

if TYPE_CHECKING:

    class _OverrideForm(forms.ModelForm[FactorOverride]): ...

else:
    _OverrideForm = forms.ModelForm


class OverrideForm(_OverrideForm):
    class Meta:
        model = FactorOverride
        fields = ("kind", "state", "reason", "until")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "kind" in self.fields:  # not for who may only look
            there = {kind: load(kind).label for kind in FACTORS}
            # One that is not installed any more refuses its user: it is shown, to be removed.
            gone = {self.instance.kind: f"{self.instance.kind} (not installed)"} if self.instance.kind else {}
            choices = list((gone | there).items())
            self.fields["kind"] = forms.ChoiceField(
                label="Factor", choices=choices, widget=UnfoldAdminSelectWidget(choices=choices)
            )


class OverridesInline(RowsAskAgain, Inline):
    model = FactorOverride
    form = OverrideForm
    fields = ("kind", "state", "reason", "until")
    hide_title = True
    # Most users have none.
    classes = ("collapse",)
    show_count = True
    verbose_name_plural = "exceptions for this user's second factors"

    def formfield_for_dbfield(self, db_field: Field[Any, Any], request: HttpRequest, **kwargs: Any) -> Any:
        found: Any = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name == "reason" and found is not None:
            found.widget.attrs["style"] = "min-width: 16rem"
        return found


class FactorsMixin(Page[VpnUser]):
    def get_inlines(self, request: HttpRequest, obj: VpnUser | None) -> Any:
        return [*super().get_inlines(request, obj), OverridesInline]

    def panels(self, request: HttpRequest, obj: VpnUser) -> list[Panel]:
        enrolments = {enrolment.kind: enrolment for enrolment in obj.enrolments.all()}
        shown = {kind: panel for kind in FACTORS if (panel := load(kind).panel)}
        parts = [self._part(request, obj, kind, panel, enrolments.get(kind)) for kind, panel in shown.items()]
        return [
            *super().panels(request, obj),
            Panel("Second factors", "admin/users/factors.html", {"parts": parts}, place=2),
        ]

    def buttons(self, request: HttpRequest, obj: VpnUser) -> list[Button]:
        buttons = super().buttons(request, obj)
        if not guesses.pause_left(guesses.of(obj), clock.now()):
            return buttons
        confirm = "Whoever guessed may go on. If it was not this user, give them a new profile first."
        return [*buttons, Button("lift_pause", "Let them try again", icon="lock_open", confirm=confirm)]

    @posted("users.change_vpnuser")
    def lift_pause(self, request: HttpRequest, user: VpnUser) -> None:
        try:
            guesses.lift(user)
        except RedisUnavailable:
            messages.error(request, "Not done: Redis is down.")
            return
        self.done(request, user, f"Ended the pause after wrong second factors of {user}.")

    def _part(
        self, request: HttpRequest, user: VpnUser, kind: str, panel: FactorPanel, enrolment: Enrolment | None
    ) -> dict[str, Any]:
        return {
            "template": panel.template,
            "user": user,
            "enrolment": enrolment,
            "data": panel.data(enrolment),
            "may_change": self.may_post(request, "act_on_factor"),
            "url": self.post_url(user, "act_on_factor"),
            "fields": {action: {"factor": kind, "action": action} for action in panel.actions},
        }

    @posted("users.change_vpnuser", sensitive=True)
    def act_on_factor(self, request: HttpRequest, user: VpnUser) -> HttpResponse | None:
        """A button of a factor's panel: the form says which (``factor``, ``action``), the factor what it does."""
        kind = request.POST.get("factor", "")
        panel = load(kind).panel if kind in FACTORS else None
        action = panel.actions.get(request.POST.get("action", "")) if panel else None
        if action is None:
            raise Http404
        try:
            done = action(user, {name: str(value) for name, value in request.POST.items()})
        except NotDone as error:
            messages.error(request, str(error))
            return None
        if done.shown is None:
            self.done(request, user, done.message)
            return None
        self.log_change(request, user, done.message)
        return self._show_once(request, user, done.shown)

    def _show_once(self, request: HttpRequest, user: VpnUser, shown: ShownOnce) -> HttpResponse:
        """The one answer that shows a secret; it is never shown again."""
        context = {
            **self.admin_site.each_context(request),
            "title": shown.title,
            "opts": self.opts,
            "user_page": self.page_of(user),
            "vpn_user": user,
            **shown.context,
        }
        response = TemplateResponse(request, shown.template, context)
        response["Cache-Control"] = "no-store"
        return response
