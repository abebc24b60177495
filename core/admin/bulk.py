"""What a list's action does to many rows: it asks first, works in the background where that takes long, and says one
thing in the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html

from core import jobs
from core.models import Job

# More rows than this are a job.
FEW = 50
# Names that a question shows.
SHOWN = 20


def counted(number: int, opts: Any) -> str:
    """``1 user``, ``5,000 users``."""
    return f"{number:,} {opts.verbose_name if number == 1 else opts.verbose_name_plural}"


def confirmed(request: HttpRequest) -> bool:
    return request.POST.get("post") == "yes"


def first_names(rows: QuerySet[Any]) -> list[str]:
    """Some of their names, and how many more there are."""
    count = rows.count()
    return [*map(str, rows[:SHOWN]), *([f"and {count - SHOWN:,} more"] if count > SHOWN else [])]


def ask(
    page: Any,
    request: HttpRequest,
    queryset: QuerySet[Any],
    action: str,
    title: str,
    names: Sequence[str],
    facts: Sequence[str] = (),
) -> HttpResponse:
    """The question before an action on a list. Its form carries the selection on as it was made."""
    context = {
        **page.admin_site.each_context(request),
        "title": title,
        "subtitle": None,
        "opts": page.opts,
        "names": names,
        "facts": facts,
        "action": action,
        "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
        "checkbox": ACTION_CHECKBOX_NAME,
        "across": request.POST.get("select_across", "0"),
        "media": page.media,
    }
    request.current_app = page.admin_site.name
    return TemplateResponse(request, "admin/core/confirm.html", context)


def carry_out(
    request: HttpRequest, kind: str, title: str, rows: QuerySet[Any], done: str, arguments: dict[str, Any]
) -> None:
    """Have a job of this kind deal with ``rows`` (as ``keys``, in the order of their making), or do so at once where
    they are few. ``done`` is what is said then, unless there is something else to say."""
    keys = list(rows.order_by("pk").values_list("pk", flat=True))
    everything = {**arguments, "keys": keys}
    if len(keys) > FEW:
        say(request, jobs.create(kind, title, everything, len(keys), request.user), done)
        return
    notes = jobs.at_once(kind, everything, request.user)
    for note in notes:
        messages.info(request, note)
    if not notes:
        say(request, None, done)


def say(request: HttpRequest, job: Job | None, done: str) -> None:
    """That it is done, or where to see how far it is."""
    if job is None:
        messages.success(request, done)
        return
    page = reverse("admin:core_job_change", args=[job.pk])
    messages.info(
        request, format_html('{} is under way. <a class="underline" href="{}">See how far it is</a>', job, page)
    )
