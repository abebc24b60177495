"""Long work through Django's test client, and its tasks one after the other in this process."""

from __future__ import annotations

from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from core.models import Job, JobState
from tests.admin_site import send
from tests.connection_rows import queued
from tests.factories import Company
from tests.long_work import Kind
from vpnproject.celery import app


class Browser:
    """The admin site, by Django's test client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def post(self, path: str, data: dict[str, Any]) -> None:
        response = self._client.post(path, data, follow=True)
        assert response.status_code == 200

    def save(self, path: str, **changes: str) -> None:
        left_out = {name: value or None for name, value in changes.items()}
        assert send(self._client, path, **left_out).status_code == 302

    def upload(self, path: str, raw: bytes) -> str:
        data = {"file": SimpleUploadedFile("people.csv", raw, "text/csv")}
        return str(self._client.post(path, data).headers["Location"])


def carry_out(kind: Kind, branch: Company) -> set[str]:
    """Take from the queue until nothing is left, as the control worker does; the names of the tasks."""
    app.loader.import_default_modules()
    done: set[str] = set()
    while tasks := queued():
        for name, arguments in tasks:
            app.tasks[name](*arguments)
            done.add(name)
    assert not kind.goes_on(branch), kind.name
    assert not Job.objects.filter(state=JobState.FAILED).exists()
    return done
