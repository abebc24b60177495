"""Long work, kept as rows, so that a restart goes on with it; and what administrators sign in with."""

from __future__ import annotations

import secrets
from functools import cached_property
from typing import Any

from django.conf import settings
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models
from django.db.models import Q

from .crypto import SecretField


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


class AdminSession(AbstractBaseSession):
    """A browser's session, and whose it is: so that an administrator sees their own, and ends one by its row.

    ``public_id`` stands for it on pages, which never hold the key; see ``core.session_store``.
    """

    public_id = models.CharField(max_length=24, blank=True, db_index=True)
    administrator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, related_name="+")
    address = models.CharField(max_length=45, blank=True)
    browser = models.CharField(max_length=200, blank=True)
    began = models.DateTimeField(null=True)
    seen = models.DateTimeField(null=True, help_text="Within some minutes.")

    def __str__(self) -> str:
        return f"session from {self.address}"


class AdminAuthenticator(models.Model):
    """An administrator's authenticator app. ``counter`` is the last time step (30 s since 1970) whose code was used."""

    administrator = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="authenticator"
    )
    secret = SecretField()
    counter = models.BigIntegerField()
    created = models.DateTimeField()

    class Meta:
        verbose_name = "authenticator"

    def __str__(self) -> str:
        return f"authenticator of {self.administrator}"


class StoredPasskey(models.Model):
    """A WebAuthn credential of somebody, good at the host name ``rp_id`` only.

    ``credential_id`` and ``public_key`` (COSE) are base64url. ``counter`` is that of the authenticator, 0 where it
    keeps none. One that did not grow is another copy's: ``locked`` since then, which never ends.
    """

    name = models.CharField(max_length=60)
    rp_id = models.CharField(max_length=253)
    credential_id = models.CharField(max_length=1400, unique=True)
    public_key = models.TextField()
    counter = models.BigIntegerField(default=0)
    created = models.DateTimeField()
    used = models.DateTimeField(null=True)
    locked = models.DateTimeField(null=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.name


class Passkey(StoredPasskey):
    """An administrator's; those of users are ``users.models.UserPasskey``."""

    administrator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="passkeys")


class RecoveryCode(models.Model):
    """A code that stands in for a lost second factor once. Each carries 80 random bits, so that a plain SHA-256 of it
    tells nobody anything, and no rotation of keys makes it void."""

    administrator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="recovery_codes")
    hash = models.CharField(max_length=64)
    used = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["administrator", "hash"], name="a_recovery_code_is_there_once")]

    def __str__(self) -> str:
        return f"recovery code of {self.administrator}"


class AdminGuesses(models.Model):
    """Wrong codes of one administrator since the last that was right. Until ``paused_until`` none is looked at."""

    administrator = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="wrong_codes")
    count = models.PositiveIntegerField()
    last = models.DateTimeField()
    paused_until = models.DateTimeField(null=True)

    class Meta:
        verbose_name = verbose_name_plural = "wrong codes"

    def __str__(self) -> str:
        return f"{self.count} wrong codes"
