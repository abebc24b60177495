"""What stands in the path at the top of a page."""

from __future__ import annotations

from typing import Any

from django import template
from django.apps import apps
from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from django.utils.text import capfirst

register = template.Library()
# Django's own tables have other names in this site's side bar.
OTHER_NAMES = {"/auth/user/": "Administrators", "/auth/group/": "Roles", "/auth/": "This site"}


@register.filter
def crumb(part: dict[str, Any]) -> str:
    """Of unfold's ``part`` (title, link). A row has the name that somebody gave it, in their spelling."""
    title = part["title"]
    if isinstance(title, Model):
        return str(title)
    link = str(part.get("link") or "")
    return next((name for end, name in OTHER_NAMES.items() if link.endswith(end)), capfirst(str(title)))


@register.filter
def with_page(parts: list[dict[str, Any]], request: HttpRequest) -> list[dict[str, Any]]:
    """With one for a page on which something is added: unfold's ``parts`` end in the list that it will be in."""
    app, _, rest = str(request.resolver_match.url_name if request.resolver_match else "").partition("_")
    model, _, what = rest.partition("_")
    if what != "add":
        return parts
    page = admin.site.get_model_admin(apps.get_model(app, model))
    return [*parts, {"title": f"Add {page.opts.verbose_name}"}]
