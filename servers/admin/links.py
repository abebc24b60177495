"""Which servers are linked."""

from __future__ import annotations

from django.contrib import admin

from core.admin.page import Page, column
from servers.models import ServerLink


@admin.register(ServerLink)
class ServerLinkPage(Page[ServerLink]):
    list_display = ("servers", "masquerade", "names")
    list_filter = ("masquerade", "names")
    list_select_related = ("first", "second")
    search_fields = ("first__name", "second__name")
    autocomplete_fields = ("first", "second")
    fields = (("first", "second"), ("masquerade", "names"))

    @column("Servers", ordering="first__name")
    def servers(self, obj: ServerLink) -> str:
        return str(obj)
