"""Long work, as whoever asked for it sees it: how far it is, what was noted, and a way to stop it."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from core import clock, jobs
from core.models import Job, JobState

from .page import BAD, GOOD, NEUTRAL, WAITING, Button, Panel, ReadOnlyPage, ago, column, posted

TONES = {JobState.DONE: GOOD, JobState.FAILED: BAD, JobState.QUEUED: WAITING}
# Seconds after which a page that shows work under way is asked for again.
REFRESH = 2


def page_of_job(job: Job) -> str:
    return reverse("admin:core_job_change", args=[job.pk])


@admin.register(Job)
class JobPage(ReadOnlyPage[Job]):
    ordering = ("-created",)
    list_display = ("title", "status", "progress", "by", "began", "finished")
    list_filter = ("state",)
    fields = (("administrator_name", "created"), "ended")

    def has_view_permission(self, request: HttpRequest, obj: Job | None = None) -> bool:
        """Whoever asked for it may always see how it goes."""
        own = obj is not None and obj.administrator_id == request.user.pk
        return own or super().has_view_permission(request, obj)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).exclude(state=JobState.DRAFT)

    def state(self, obj: Job) -> tuple[str, str]:
        return TONES.get(JobState(obj.state), NEUTRAL), obj.get_state_display()

    @column("State", badge=True)
    def status(self, obj: Job) -> tuple[str, str]:
        return self.state(obj)

    @column("Progress")
    def progress(self, obj: Job) -> str:
        return f"{obj.done:,} of {max(obj.total, obj.done):,}"

    @column("By", ordering="administrator_name")
    def by(self, obj: Job) -> str:
        return obj.administrator_name or "-"

    @column("Asked for", ordering="created")
    def began(self, obj: Job) -> str:
        return ago(clock.now() - obj.created.timestamp())

    @column("Ended", ordering="ended")
    def finished(self, obj: Job) -> str:
        return ago(clock.now() - obj.ended.timestamp()) if obj.ended else "-"

    def panels(self, request: HttpRequest, obj: Job) -> list[Panel]:
        total = max(obj.total, obj.done, 1)
        data = {"job": obj, "progress": self.progress(obj), "total": total, "running": obj.state == JobState.QUEUED}
        return [Panel("Progress", "admin/core/job.html", data, wide=True)]

    def buttons(self, request: HttpRequest, obj: Job) -> list[Button]:
        confirm = "What is done stays done; the rest is left as it is."
        return [Button("stop", "Stop", "stop_circle", "danger", confirm)] if obj.state == JobState.QUEUED else []

    @posted("core.change_job")
    def stop(self, request: HttpRequest, job: Job) -> None:
        if jobs.stop(job):
            self.done(request, job, f"Stopped: {job}.")
        else:
            messages.info(request, f"It had ended already: {job}.")

    def render_change_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = super().render_change_form(request, *args, **kwargs)
        job = kwargs.get("obj")
        if job is not None and job.state == JobState.QUEUED:
            response["Refresh"] = str(REFRESH)
        return response
