"""The second factors on a server's page: a line for each factor that is installed, with its own settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.functional import cached_property
from django.utils.text import capfirst
from unfold import widgets

from core.admin.asking_again import RowsAskAgain
from core.admin.looks import dressed
from core.admin.page import Inline
from servers.models import FactorMode, IfUnavailable, Server, ServerFactor
from servers.rules import factor as rules
from servers.services import FIRST_FACTORS
from users.factors.registry import FACTORS, load
from users.models import Provider

from .forms import TogetherFormSet

if TYPE_CHECKING:

    class _FactorForm(forms.ModelForm[ServerFactor]): ...

else:
    _FactorForm = forms.ModelForm

# A word and not nothing: what a broken form leaves out must take no factor off a server.
OFF = "off"


def _select(label: str, choices: list[tuple[str, str]]) -> forms.ChoiceField:
    """The first choice is that of a new row."""
    widget = widgets.UnfoldAdminSelectWidget(choices=choices)
    return forms.ChoiceField(label=label, choices=choices, initial=choices[0][0], widget=widget)


def _provider_field(kind: str) -> forms.Field:
    return forms.ModelChoiceField(
        Provider.objects.filter(kind=kind),
        required=False,
        label="Provider",
        empty_label="the only one there is",
        widget=widgets.UnfoldAdminSelectWidget,
    )


class FactorForm(_FactorForm):
    """One factor of a server, with the fields of the factor's own form as ``settings_form``. Not asked for: no row."""

    may_remove = True
    taken_off = False

    class Meta:
        model = ServerFactor
        fields = ("kind", "mode", "provider", "if_unavailable")
        widgets = {"kind": forms.HiddenInput}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kind = self.instance.kind or (self["kind"].value() if "kind" in self.fields else "")
        self.factor = load(kind) if kind in FACTORS else None
        self.label = capfirst(self.factor.label) if self.factor else f"{kind} (not installed)"
        if "mode" not in self.fields:
            return  # for who may only look
        new = self.instance._state.adding
        self.fields["kind"].disabled = not new
        self.fields["mode"] = _select("Asked", [(OFF, "not asked"), *FactorMode.choices])
        self.fields["if_unavailable"] = _select("If its provider is down", IfUnavailable.choices)
        if not (self.factor and self.factor.can_be_unavailable):
            del self.fields["if_unavailable"]
        if self.factor and self.factor.provider_form:
            self.fields["provider"] = _provider_field(kind)
        else:
            del self.fields["provider"]
        if new and self.is_bound:
            # Whatever the page suggested, there is no row: what asks for the factor is a change.
            self.initial["mode"] = OFF

    @cached_property
    def settings_form(self) -> forms.Form:
        if self.factor is None:
            return forms.Form()
        data = self.data if self.is_bound else None
        prefix = self.add_prefix("settings")
        return dressed(self.factor.settings_form(data, prefix=prefix, initial=dict(self.instance.settings)))

    @cached_property
    def changed_data(self) -> list[str]:
        changed = super().changed_data
        if self.instance._state.adding and "mode" not in changed:
            return []  # still not asked for, whatever else was filled in
        return [*changed, "settings"] if self.settings_form.changed_data else changed

    def clean(self) -> None:
        super().clean()
        if self.cleaned_data.get("mode") == OFF:
            if not self.may_remove:
                self.add_error("mode", "You may not take a factor off a server.")
            else:
                self.taken_off = True
                del self.cleaned_data["mode"]  # no mode that a row could have
            return
        if self.settings_form.is_bound and not self.settings_form.is_valid():
            raise ValidationError(f"{self.label}: see its settings.")
        self.instance.settings = dict(self.settings_form.cleaned_data) if self.settings_form.is_bound else {}

    def add_error(self, field: str | None, error: Any) -> None:
        """What the rule says of a field that is not here is said of the row."""
        if field is None and hasattr(error, "error_dict"):
            for name, said in error.error_dict.items():
                super().add_error(name if name in self.fields and name != "kind" else None, said)
            return
        super().add_error(field, error)


class FactorsFormSet(TogetherFormSet):
    """A form for each factor that the server asks for, and one for each that it could ask for."""

    together = staticmethod(rules.together)
    instance: Server

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        asked = {row.kind for row in self.get_queryset()} if self.instance.pk else set()
        modes = {} if self.instance.pk else FIRST_FACTORS
        self.initial_extra = [{"kind": kind, "mode": modes.get(kind, OFF)} for kind in FACTORS if kind not in asked]
        self.extra = len(self.initial_extra)

    def _construct_form(self, i: int, **kwargs: Any) -> Any:
        form = super()._construct_form(i, **kwargs)
        form.may_remove = self.can_delete
        form.instance.decided_with = self._rows_here()
        return form

    def _rows_here(self) -> list[int]:
        """The rows that have a line in this form, by primary key: not one that somebody else has saved meanwhile."""
        if not self.is_bound:
            return []
        keys = [str(self.data.get(f"{self.add_prefix(i)}-id", "")) for i in range(self.initial_form_count())]
        return [int(key) for key in keys if key.isascii() and key.isdigit()]

    def _should_delete_form(self, form: Any) -> bool:
        return bool(form.taken_off)

    def _goes(self, form: Any) -> bool:
        return self._should_delete_form(form) or super()._goes(form)


class FactorsInline(RowsAskAgain, Inline):
    model = ServerFactor
    form = FactorForm
    formset = FactorsFormSet
    template = "admin/servers/factors.html"
    fields = FactorForm.Meta.fields
    hide_title = True
    verbose_name_plural = "second factors, beside the keys in a profile"
