"""Where clients come from."""

from __future__ import annotations

from django.contrib import admin

from core.admin.page import Page
from servers.models import ClientRegion


@admin.register(ClientRegion)
class ClientRegionPage(Page[ClientRegion]):
    list_display = ("network", "region")
    list_filter = ("region",)
    search_fields = ("network", "region")
    fields = ("network", "region")
