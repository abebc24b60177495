"""Which servers ask a provider, on its page."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from core.admin.page import column
from users.admin.providers import ProviderPage
from users.models import Provider


@admin.register(Provider)
class AskedProviderPage(ProviderPage):
    list_display = ("name", "factor", "servers", "asked_again", "created")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Provider]:
        return super().get_queryset(request).prefetch_related("asked_by__server")

    @column("Servers that name it")
    def servers(self, obj: Provider) -> str:
        return ", ".join(sorted(row.server.name for row in obj.asked_by.all())) or "-"
