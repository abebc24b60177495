"""What was decided on each request, read-only."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RangeDateTimeFilter

from core.admin.page import BAD, GOOD, NEUTRAL, ReadOnlyPage, column
from users.factors.registry import FACTORS
from wgpeers.lifecycle.codes import SENTENCES, explain, factor_codes
from wgpeers.models import Decision, EndReason

ENDINGS = frozenset(EndReason.values)
# From the catalogue rather than from the table, which may hold a year of rows.
CODES = sorted({*map(str, SENTENCES), *factor_codes()})
LAYERS = (
    "envelope",
    "account",
    "policy",
    "factors",
    *FACTORS,
    "budget",
    "connect",
    "host",
    "liveness",
    "session",
    "sign_in",
    "admin",
    "own_page",
)


class OneOf(SimpleListFilter):
    """A filter on a text column by a list of values that is known beforehand."""

    values: tuple[str, ...]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, value) for value in self.values]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Decision]) -> QuerySet[Decision]:
        return queryset.filter(**{str(self.parameter_name): self.value()}) if self.value() else queryset


class CodeFilter(OneOf):
    title = parameter_name = "code"
    values = tuple(CODES)


class LayerFilter(OneOf):
    title = parameter_name = "layer"
    values = LAYERS


class WhatFilter(SimpleListFilter):
    title = "what"
    parameter_name = "what"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("allowed", "allowed"), ("refused", "refused"), ("ended", "connection ended")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Decision]) -> QuerySet[Decision]:
        wanted: dict[str, dict[str, Any]] = {"allowed": {"allowed": True}, "ended": {"code__in": ENDINGS}}
        if self.value() == "refused":
            return queryset.filter(allowed=False).exclude(code__in=ENDINGS)
        return queryset.filter(**wanted.get(self.value() or "", {}))


def verdict_of(decision: Decision) -> tuple[str, str]:
    if decision.allowed:
        return GOOD, "allowed"
    return (NEUTRAL, "ended") if decision.code in ENDINGS else (BAD, "refused")


@admin.register(Decision)
class DecisionPage(ReadOnlyPage[Decision]):
    list_display = ("when", "verdict", "user_name", "server_name", "layer", "said", "times", "address", "device_name")
    list_filter = (WhatFilter, LayerFilter, CodeFilter, "server", ("time", RangeDateTimeFilter))
    list_filter_submit = True
    search_fields = ("user_name", "server_name", "code", "address", "device_name", "request")
    fields = (
        "sentence",
        ("when", "times"),
        ("user", "user_name"),
        ("server", "server_name"),
        ("address", "device_name"),
        ("layer", "code"),
        "way",
        "request",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Decision]:
        # What it was about may be gone; see ``wgpeers.models.kept``.
        return super().get_queryset(request).select_related("server", "user")

    @column("Time (UTC)", ordering="time")
    def when(self, obj: Decision) -> str:
        return f"{obj.time:%Y-%m-%d %H:%M:%S}"

    @column("Times")
    def times(self, obj: Decision) -> str:
        return f"{obj.count}, until {obj.last:%H:%M:%S}" if obj.last else "1"

    @column("Decision", badge=True)
    def verdict(self, obj: Decision) -> tuple[str, str]:
        return verdict_of(obj)

    @column("What happened")
    def sentence(self, obj: Decision) -> str:
        return explain(obj.code, obj.detail) or "-"

    @column("Code", ordering="code")
    def said(self, obj: Decision) -> SafeString:
        return format_html('<span title="{}">{}</span>', explain(obj.code, obj.detail), obj.code)

    @column("What each layer said")
    def way(self, obj: Decision) -> SafeString:
        return format_html_join(" → ", "<b>{}</b>: {}", ((layer, said) for layer, said in obj.layers))

    def state(self, obj: Decision) -> tuple[str, str]:
        return verdict_of(obj)
