"""Long work, kept as rows, so that a restart goes on with it."""

from __future__ import annotations

import secrets
from functools import cached_property
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q


class JobState(models.TextChoices):
    DRAFT = "draft", "waiting for a yes"
    QUEUED = "queued", "under way"
    DONE = "done", "done"
    FAILED = "failed", "failed"
    STOPPED = "stopped", "stopped"


def new_job_id() -> str:
    """An opaque id, as it stands in addresses."""
    return secrets.token_hex(12)


class Job(models.Model):
    """Work that is too long for one transaction: carried out step by step (see ``core.jobs``).

    ``arguments`` say what to do, ``place`` where the next step begins; both are the kind's own, as JSON, without any
    secret. ``notes`` is what a person should read afterwards.
    """

    public_id = models.CharField(max_length=24, unique=True, default=new_job_id, editable=False)
    kind = models.CharField(max_length=40)
    title = models.CharField(max_length=200)
    state = models.CharField(max_length=8, choices=JobState, default=JobState.QUEUED)
    place = models.JSONField(null=True)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    notes = models.JSONField(default=list)
    failures = models.PositiveSmallIntegerField(default=0, help_text="Steps that failed in a row.")
    administrator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    administrator_name = models.CharField("asked for by", max_length=150, blank=True)
    created = models.DateTimeField("asked for")
    stepped = models.DateTimeField(null=True, help_text="When a step was last carried out.")
    ended = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created"]
        indexes = [models.Index(fields=["created"], condition=Q(state="queued"), name="jobs_to_do")]

    def __str__(self) -> str:
        return self.title

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """Read once: they never change, and there are many of them."""
        found: dict[str, Any] = JobArguments.objects.get(job=self).arguments
        return found


class JobArguments(models.Model):
    """A job's arguments, in a row of their own: they may name thousands of rows, and the job's row is written anew
    with each step."""

    job = models.OneToOneField(Job, on_delete=models.CASCADE, primary_key=True, related_name="+")
    arguments = models.JSONField(default=dict)

    class Meta:
        verbose_name = verbose_name_plural = "job arguments"

    def __str__(self) -> str:
        return f"arguments of {self.job}"
