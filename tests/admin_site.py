"""Filling in the admin's forms as a browser would: everything as it was shown, but for what is changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from django.contrib.auth.models import Permission, User
from django.contrib.messages import get_messages
from django.forms import BaseForm
from django.template.response import TemplateResponse
from django.test import Client

from core.redis_store import redis_client

PASSWORD = "correct horse battery staple"


def staff(client: Client, *permissions: str, superuser: bool = False) -> User:
    """Log in an administrator with just these permissions, as ``app.codename``."""
    user = User.objects.create_user("superuser" if superuser else "staff", password=PASSWORD, is_staff=True)
    user.is_superuser = superuser
    user.save()
    for permission in permissions:
        app, codename = permission.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    client.force_login(user)
    # Refused. The first request of a session writes down where it began, which costs statements that others do not.
    client.get("/admin/logout/")
    return user


def form_data(response: Any) -> dict[str, Any]:
    """What the browser would send back, were nothing changed."""
    data = _of_form(response.context_data["adminform"].form)
    for inline in response.context_data["inline_admin_formsets"]:
        data |= _of_form(inline.formset.management_form)
        for form in inline.formset.forms:
            data |= _of_form(form)
            if own := getattr(form, "settings_form", None):
                data |= _of_form(own)  # a factor's
    return data


@contextmanager
def unwritten() -> Iterator[None]:
    """No page is written meanwhile, for whoever only wants what it would be written from: that is most of the work of a
    form's page. It counts as seen, with what it would have said."""

    def nothing(page: TemplateResponse) -> str:
        list(get_messages(page._request))
        return ""

    with mock.patch.object(TemplateResponse, "rendered_content", property(nothing)):
        yield


def _of_form(form: BaseForm) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for bound in form:
        value = bound.value()
        if value is False or value is None:
            continue
        data[bound.html_name] = [getattr(item, "pk", item) for item in value] if isinstance(value, list) else value
    return data


def send(client: Client, url: str, **changes: Any) -> Any:
    """Open the form at ``url`` and save it with ``changes`` (by field name; None leaves one out). ``_inline`` holds
    new rows: {prefix: [{field: value}, …]}."""
    with unwritten():
        data = form_data(client.get(url))
    for prefix, rows in changes.pop("_inline", {}).items():
        total = int(data[f"{prefix}-TOTAL_FORMS"])
        for number, row in enumerate(rows, start=total):
            data |= {f"{prefix}-{number}-{name}": value for name, value in row.items()}
        data[f"{prefix}-TOTAL_FORMS"] = total + len(rows)
    data |= changes
    return client.post(url, {name: value for name, value in data.items() if value is not None})


def errors(response: Any) -> dict[str, list[str]]:
    """Every message by the name of its field; those of inlines as ``prefix-number-field``. Empty: it was saved."""
    if response.status_code == 302:
        return {}
    found = {name: list(said) for name, said in response.context["adminform"].form.errors.items()}
    for inline in response.context["inline_admin_formsets"]:
        for form in inline.formset.forms:
            found |= {form.add_prefix(name): list(said) for name, said in form.errors.items()}
        if said := list(inline.formset.non_form_errors()):
            found[inline.formset.prefix] = said
    return found


def messages(client: Client, url: str, data: dict[str, Any] | None = None) -> str:
    """Post a button and read what the administrator is then told."""
    response = client.post(url, data or {}, follow=True)
    assert response.status_code == 200, response.status_code
    return " ".join(str(message) for message in response.context["messages"])


def queued(queue: str = "control") -> list[str]:
    """The names of the tasks on a queue, oldest first."""
    return [json.loads(text)["headers"]["task"] for text in reversed(redis_client().lrange(queue, 0, -1))]
