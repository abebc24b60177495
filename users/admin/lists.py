"""Users in and out as lists: a file is read whole, shown as what it would change, and imported after a yes."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from unfold.widgets import UnfoldAdminFileFieldWidget

from core import clock
from core import jobs as all_jobs
from core.admin import bulk
from core.admin.jobs import page_of_job
from core.admin.page import Page, above_list
from core.models import Job, JobState
from users import jobs
from users.lists.planning import plan
from users.lists.reading import COLUMNS, Problem, read
from users.lists.writing import write
from users.models import VpnUser

PROBLEMS_SHOWN = 200


class ListForm(forms.Form):
    file = forms.FileField(label="CSV file", widget=UnfoldAdminFileFieldWidget)


class ListsMixin(Page[VpnUser]):
    """*Import* and *Export* above the list of users."""

    actions_list = ("import_list", "export_list")

    def get_urls(self) -> Any:
        # Before unfold's own, which end in a pattern that takes everything.
        view = self.admin_site.admin_view(self.confirm_import)
        return [path("import/<int:job_id>/", view, name="users_vpnuser_confirm_import"), *super().get_urls()]

    def has_import_permission(self, request: HttpRequest) -> bool:
        # An import creates and changes.
        return self.has_add_permission(request) and self.has_change_permission(request)

    def has_export_permission(self, request: HttpRequest) -> bool:
        # A file of everybody, to take away: more than looking at pages of them.
        return self.has_change_permission(request)

    @above_list("Import", "import", "import", "upload")
    def import_list(self, request: HttpRequest) -> HttpResponse:
        form = ListForm(request.POST or None, request.FILES or None)
        problems: list[Problem] = []
        if request.method == "POST" and form.is_valid():
            file = form.cleaned_data["file"]
            job, problems = self._draft(request, file.read(), file.name)
            if job is not None:
                return redirect(reverse("admin:users_vpnuser_confirm_import", args=[job.pk]))
        context = {
            **self._context(request, "Import users"),
            "form": form,
            "columns": COLUMNS,
            "problems": problems[:PROBLEMS_SHOWN],
            "more": max(0, len(problems) - PROBLEMS_SHOWN),
        }
        return TemplateResponse(request, "admin/users/import.html", context)

    def _draft(self, request: HttpRequest, raw: bytes, file_name: str) -> tuple[Job | None, list[Problem]]:
        """What would be imported, as a job that waits for a yes; or all that is wrong with the file."""
        reading = read(raw)
        if reading.problems:
            return None, reading.problems
        found = plan(reading.lines)
        if found.problems:
            return None, found.problems
        people = [*found.new, *found.changed]
        if not people:
            return None, [Problem(0, f"It changes nothing: all {found.same:,} users in it are as they are here.")]
        counts = {"new": len(found.new), "changed": len(found.changed), "same": found.same}
        title = f"Import {bulk.counted(len(people), self.opts)} from {file_name}"
        return jobs.import_list(people, title, reading.notes, counts, request.user), []

    def confirm_import(self, request: HttpRequest, job_id: int) -> HttpResponse:
        """What the file would change; a POST begins it."""
        if not self.has_import_permission(request):
            raise PermissionDenied
        job = get_object_or_404(Job, pk=job_id, kind=jobs.IMPORT)
        if job.administrator_id != request.user.pk:
            raise Http404
        if job.state != JobState.DRAFT:
            return redirect(page_of_job(job))
        if request.method == "POST":
            all_jobs.begin(job)
            return redirect(page_of_job(job))
        new = job.arguments["counts"]["new"]
        names = [person.name for person in jobs.people_of(job)]
        context = {
            **self._context(request, f"{job}?"),
            "counts": job.arguments["counts"],
            "notes": job.arguments["notes"],
            "new": _some(names[:new]),
            "changed": _some(names[new:]),
            "back": reverse("admin:users_vpnuser_import_list"),
        }
        return TemplateResponse(request, "admin/users/import_confirm.html", context)

    @above_list("Export", "export", "export", "download")
    def export_list(self, request: HttpRequest) -> StreamingHttpResponse:
        response = StreamingHttpResponse(write(VpnUser.objects.order_by("organization__name_key", "name_key")))
        response["Content-Type"] = "text/csv; charset=utf-8"
        day = clock.moment(clock.now()).date().isoformat()
        response["Content-Disposition"] = f'attachment; filename="users-{day}.csv"'
        return response

    def _context(self, request: HttpRequest, title: str) -> dict[str, Any]:
        request.current_app = self.admin_site.name
        return {**self.admin_site.each_context(request), "title": title, "opts": self.opts, "media": self.media}


def _some(names: list[str]) -> list[str]:
    more = [f"and {len(names) - bulk.SHOWN:,} more"] if len(names) > bulk.SHOWN else []
    return [*names[: bulk.SHOWN], *more]
