"""WHO: organizations, their people and the devices they use."""

from __future__ import annotations

import secrets
from typing import Any

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models, transaction
from django.db.models.functions import Lower

from core import task_names
from core.changes import after_commit
from core.crypto import Secret, SecretField, random_text
from core.locking import SharedRow

# Names become part of file names, certificates and (later) DNS names.
name_validator = RegexValidator(
    r"\A[\w][\w .@+-]*\Z", "Use letters, digits, spaces and . _ - + @; begin with a letter or a digit."
)


def new_id() -> str:
    """An opaque id as it stands in URLs and profiles: 24 hex digits, unguessable, never used twice."""
    return secrets.token_hex(12)


def _new_token() -> Secret:
    return Secret.of(random_text(32))


class Organization(SharedRow):
    """A company or a team. It has a certificate authority of its own; its users' certificates come from it."""

    public_id = models.CharField(max_length=24, unique=True, default=new_id, editable=False)
    name = models.CharField(max_length=64, unique=True, validators=[name_validator])
    enabled = models.BooleanField(default=True, help_text="Off: nobody of this organization can connect.")
    ca_private_key = SecretField()
    ca_certificate = models.TextField(blank=True, editable=False)
    created = models.DateTimeField(auto_now_add=True)

    machine_fields = frozenset({"ca_private_key", "ca_certificate"})

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        created = self._state.adding
        with transaction.atomic():
            super().save(*args, **kwargs)
            if created:
                after_commit(task_names.MAKE_ORGANIZATION_CA, self.pk)
            else:
                after_commit(task_names.ENFORCE)


class Group(models.Model):
    """A label on users. A server that names groups lets in only users who are in one of them."""

    name = models.CharField(max_length=64, unique=True, validators=[name_validator])

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class VpnUser(SharedRow):
    """A person (or a machine) that connects. Three secrets prove it: sync_secret (HMAC), the RSA key and, through
    the server's box key, every request's own box key pair."""

    public_id = models.CharField(max_length=24, unique=True, default=new_id, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="users")
    name = models.CharField(max_length=64, validators=[name_validator])
    email = models.EmailField(blank=True)
    enabled = models.BooleanField(default=True, help_text="Off: disconnected at once, and cannot connect.")
    groups = models.ManyToManyField(Group, blank=True, related_name="users")

    sync_token = SecretField(default=_new_token)
    sync_secret = SecretField(default=_new_token)
    private_key = SecretField()
    public_key = models.TextField(blank=True, editable=False)
    certificate = models.TextField(blank=True, editable=False)

    pin_hash = models.CharField(max_length=200, blank=True, editable=False)
    totp_secret = SecretField()
    # The last time step whose code passed, and the attempt it passed for: in the database, because losing it with
    # Redis would make a used code good again.
    totp_last_step = models.BigIntegerField(default=0, editable=False)
    totp_last_attempt = models.CharField(max_length=64, blank=True, editable=False)
    created = models.DateTimeField(auto_now_add=True)

    machine_fields = frozenset(
        {"private_key", "public_key", "certificate", "totp_last_step", "totp_last_attempt"},
    )

    class Meta:
        ordering = ["organization", "name"]
        verbose_name = "user"
        constraints = [
            models.UniqueConstraint(
                "organization",
                Lower("name"),
                name="user_name_unique_in_organization",
                violation_error_message="This organization has a user of this name already.",
            )
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        created = self._state.adding
        with transaction.atomic():
            super().save(*args, **kwargs)
            if created:
                after_commit(task_names.MAKE_USER_KEY, self.pk)
            else:
                # Disabled, or of another organization now.
                after_commit(task_names.ENFORCE)

    @property
    def key_ready(self) -> bool:
        return bool(self.certificate)


class Device(models.Model):
    """A device that a user connected from, as the device itself says."""

    user = models.ForeignKey(VpnUser, on_delete=models.CASCADE, related_name="devices")
    device_id = models.CharField(max_length=64)
    name = models.CharField(max_length=128, blank=True)
    hostname = models.CharField(max_length=255, blank=True)
    platform = models.CharField(max_length=16, blank=True)
    client_version = models.CharField(max_length=64, blank=True)
    first_seen = models.DateTimeField()
    last_seen = models.DateTimeField()
    last_address = models.GenericIPAddressField(null=True, blank=True)

    class Meta:
        ordering = ["-last_seen"]
        constraints = [models.UniqueConstraint(fields=["user", "device_id"], name="device_unique_of_user")]

    def __str__(self) -> str:
        return self.name or self.hostname or self.device_id


class OneTimePassword(models.Model):
    """An administrator's first password, which somebody else has seen: good for signing in and choosing another one.

    ``password`` is the hash as the account has it; once that differs, the account has a password of its own.
    """

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="one_time_password")
    password = models.CharField(max_length=128)

    def __str__(self) -> str:
        return f"one-time password of {self.user}"


class RememberedPass(models.Model):
    """That a device passed its factors, so that for a while it need not again.

    ``kind`` "token": the client's factor token stands for them. ``kind`` "grace": the very secret that passed
    before passes again, for a client that reconnects by itself. Only a keyed hash of either is kept, which also
    covers the user's PIN and TOTP secret: changing one of these makes it void.
    """

    user = models.ForeignKey(VpnUser, on_delete=models.CASCADE, related_name="remembered")
    scope = models.CharField(max_length=24)
    kind = models.CharField(max_length=8, choices=[("token", "token"), ("grace", "grace")])
    device_id = models.CharField(max_length=64)
    device_name = models.CharField(max_length=128)
    digest = models.CharField(max_length=64)
    expires = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user", "scope", "kind", "device_id", "device_name"], name="one_remembered_pass"
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} until {self.expires:%Y-%m-%d %H:%M}"
