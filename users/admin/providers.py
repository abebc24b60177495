"""Providers: the services of others by which factors judge. What a page asks is the factor's own form."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import messages
from django.db.models import Count, Max, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.text import capfirst
from unfold import widgets

from core.admin.asking_again import AsksAgain
from core.admin.looks import dress
from core.admin.page import Button, Page, column, posted
from users.factors import providers
from users.factors.base import Factor
from users.factors.panels import NotDone
from users.factors.registry import FACTORS, load
from users.models import Provider

if TYPE_CHECKING:

    class _ProviderForm(forms.ModelForm[Provider]): ...

else:
    _ProviderForm = forms.ModelForm


def _factor(kind: str) -> Factor | None:
    """That asks a provider."""
    factor = load(kind) if kind in FACTORS else None
    return factor if factor and factor.provider_form else None


class ProviderModelForm(_ProviderForm):
    """A provider's name, and the fields of ``own``, the form of its factor. What is stored of a secret is never sent to
    a browser; an empty field keeps it."""

    own: type[providers.ProviderForm] = providers.ProviderForm
    kind = ""

    class Meta:
        model = Provider
        fields = ("name",)
        widgets = {"name": widgets.UnfoldAdminTextInputWidget}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.instance.kind = self.instance.kind or self.kind
        self.kept = providers.stored_secrets(self.instance)
        for name in self.own.base_fields:
            if name not in self.fields:
                continue  # for who may only look
            if name not in self.own.secret_fields:
                self.initial.setdefault(name, self.instance.settings.get(name, self.fields[name].initial))
            elif self.kept.get(name):
                self.fields[name].required = False
                self.fields[name].help_text = "Leave it empty to keep the one that is stored."

    def clean(self) -> None:
        super().clean()
        values = {name: self.cleaned_data.get(name) for name in self.own.base_fields}
        for name in self.own.secret_fields:
            values[name] = values[name] or self.kept.get(name)
        own = self.own(values)
        if own.is_valid():
            providers.put(self.instance, own)
            return
        for field, said in own.errors.as_data().items():
            if field not in self.errors:
                self.add_error(field if field in self.fields else None, said)

    @property
    def changed_data(self) -> list[str]:
        """With the columns that what was changed stands in."""
        changed = list(super().changed_data)
        columns = {"secrets" if name in self.own.secret_fields else "settings" for name in changed if name != "name"}
        return [*changed, *sorted(columns)]


def form_of(factor: Factor) -> type[ProviderModelForm]:
    own = factor.provider_form or providers.ProviderForm
    fields: dict[str, Any] = {name: copy.deepcopy(field) for name, field in own.base_fields.items()}
    for field in fields.values():
        dress(field)
    return type("ProviderModelForm", (ProviderModelForm,), {**fields, "own": own, "kind": factor.kind})


class ProviderPage(AsksAgain, Page[Provider]):
    """Registered by the layer that knows which servers ask a provider (``servers.admin``)."""

    ordering = ("name",)
    list_display: tuple[str, ...] = ("name", "factor", "asked_again", "created")
    list_filter = ("kind",)
    search_fields = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Provider]:
        asked = {"agreed": Max("grants__agreed"), "silent": Max("grants__silent_since")}
        mine: QuerySet[Provider] = super().get_queryset(request)
        return mine.annotate(grants_count=Count("grants"), **asked)

    @column("Factor", ordering="kind")
    def factor(self, obj: Provider) -> str:
        return capfirst(load(obj.kind).label) if obj.kind in FACTORS else f"{obj.kind} (not installed)"

    @column("Asked again")
    def asked_again(self, obj: Provider) -> str:
        """About how many sign-ins, and whether it answers."""
        count, agreed, silent = (getattr(obj, name) for name in ("grants_count", "agreed", "silent"))
        if not count:
            return "-"
        people = "1 user" if count == 1 else f"{count} users"
        return f"{people}, no answer since {silent:%Y-%m-%d %H:%M} (UTC)" if silent and silent > agreed else people

    def get_form(self, request: HttpRequest, obj: Provider | None = None, change: bool = False, **kwargs: Any) -> Any:
        factor = _factor(obj.kind if obj else request.GET.get("kind", ""))
        if factor is None:
            return super().get_form(request, obj, change, **kwargs)
        return super().get_form(request, obj, change, **{**kwargs, "form": form_of(factor)})

    def get_fields(self, request: HttpRequest, obj: Provider | None = None) -> Any:
        factor = _factor(obj.kind if obj else request.GET.get("kind", ""))
        own = factor.provider_form if factor else None
        may_change = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        return ["name", *(own.base_fields if own and may_change else ())]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if _factor(request.GET.get("kind", "")) is None and self.has_add_permission(request):
            return self._choose(request)
        return super().add_view(request, form_url, extra_context)

    def _choose(self, request: HttpRequest) -> HttpResponse:
        """Which kind of provider to add: what is asked of each differs."""
        kinds = [factor for kind in FACTORS if (factor := _factor(kind))]
        context = {
            **self.admin_site.each_context(request),
            "title": "Add a provider",
            "opts": self.opts,
            "kinds": [{"kind": each.kind, "label": each.label, "missing": each.missing()} for each in kinds],
        }
        return TemplateResponse(request, "admin/users/provider_kinds.html", context)

    def buttons(self, request: HttpRequest, obj: Provider) -> list[Button]:
        buttons = super().buttons(request, obj)
        factor = _factor(obj.kind)
        if factor and factor.can_be_tried:
            buttons = [*buttons, Button("try_out", "Try it", icon="network_check")]
        return buttons

    @posted("users.change_provider", sensitive=True)
    def try_out(self, request: HttpRequest, provider: Provider) -> None:
        factor = _factor(provider.kind)
        if factor is None or factor.provider_form is None:
            return
        try:
            messages.success(request, factor.try_out(providers.config_of(provider, factor.provider_form)))
        except NotDone as error:
            messages.error(request, str(error))
        except providers.NotConfigured:
            messages.error(request, "What is stored of it cannot be used any more: fill it in again.")
