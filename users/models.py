"""WHO: organizations, their people and the devices they use."""

from __future__ import annotations

import secrets
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Q

from core import task_names
from core.changes import after_commit
from core.crypto import Secret, SecretField, random_text
from core.locking import SharedRow
from core.names import Named, NameField

from .passkeys import UserPasskey as UserPasskey
from .rights import RightsQuerySet
from .signin import models as _tables_of_sign_in  # noqa: F401 (so that they are found)

# Of a factor's name, in every table that has one.
KIND_LENGTH = 32


def new_id() -> str:
    """An opaque id as it stands in URLs and profiles: 24 hex digits, unguessable, never used twice."""
    return secrets.token_hex(12)


def _new_token() -> Secret:
    return Secret.of(random_text(32))


class Organizations(RightsQuerySet["Organization"]):
    rights = frozenset({"enabled"})


class VpnUsers(RightsQuerySet["VpnUser"]):
    rights = frozenset({"enabled", "organization", "organization_id"})


class FactorOverrides(RightsQuerySet["FactorOverride"]):
    rights = frozenset({"user", "user_id", "kind", "state", "until"})


class Organization(Named, SharedRow):
    """A company or a team. It has a certificate authority of its own; its users' certificates come from it."""

    public_id = models.CharField(max_length=24, unique=True, default=new_id, editable=False)
    name = NameField(unique=True)
    enabled = models.BooleanField(default=True, help_text="Off: nobody of this organization can connect.")
    own_factors = models.BooleanField(
        "users set up their own factors",
        default=True,
        help_text="On the page of their profile link: what they do not have, and anew with a proof of what they have.",
    )
    ca_private_key = SecretField()
    ca_certificate = models.TextField(blank=True, editable=False)
    created = models.DateTimeField(auto_now_add=True)

    machine_fields = frozenset({"ca_private_key", "ca_certificate"})

    objects = Organizations.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["name_key"], name="one_organization_of_a_name")]

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


class Group(Named):
    """A label on users. A server that names groups lets in only users who are in one of them."""

    name = NameField(unique=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["name_key"], name="one_group_of_a_name")]

    def __str__(self) -> str:
        return self.name


class VpnUser(Named, SharedRow):
    """A person (or a machine) that connects. Three secrets prove it: sync_secret (HMAC), the RSA key and, through
    the server's box key, every request's own box key pair."""

    public_id = models.CharField(max_length=24, unique=True, default=new_id, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="users")
    name = NameField()
    email = models.EmailField(blank=True)
    enabled = models.BooleanField(default=True, help_text="Off: disconnected at once, and cannot connect.")
    groups = models.ManyToManyField(Group, blank=True, related_name="users")

    sync_token = SecretField(default=_new_token)
    sync_secret = SecretField(default=_new_token)
    private_key = SecretField()
    public_key = models.TextField(blank=True, editable=False)
    certificate = models.TextField(blank=True, editable=False)
    created = models.DateTimeField(auto_now_add=True)

    machine_fields = frozenset({"private_key", "public_key", "certificate"})
    named_within = ("organization",)

    objects = VpnUsers.as_manager()

    class Meta:
        ordering = ["organization", "name"]
        verbose_name = "user"
        constraints = [
            models.UniqueConstraint(fields=["organization", "name_key"], name="user_name_unique_in_organization"),
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
    """A device that a user connected from, as the device itself says.

    ``given_name`` is what its user calls it. One that was ``revoked`` is refused until an administrator lets it in
    again.
    """

    user = models.ForeignKey(VpnUser, on_delete=models.CASCADE, related_name="devices")
    device_id = models.CharField(max_length=64)
    name = models.CharField(max_length=128, blank=True)
    hostname = models.CharField(max_length=255, blank=True)
    platform = models.CharField(max_length=16, blank=True)
    client_version = models.CharField(max_length=64, blank=True)
    first_seen = models.DateTimeField()
    last_seen = models.DateTimeField()
    last_address = models.GenericIPAddressField(null=True, blank=True)
    given_name = models.CharField(max_length=64, blank=True)
    revoked = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-last_seen"]
        constraints = [models.UniqueConstraint(fields=["user", "device_id"], name="device_unique_of_user")]

    def __str__(self) -> str:
        return self.given_name or self.name or self.hostname or self.device_id


class DeviceKey(models.Model):
    """A key (P-256) by which a device of a user signs its connects. ``device_id`` is what the device calls itself.

    Nobody has confirmed it: it waits, under ``reg_key``, which the device shows its user. ``revoked``: no connect that
    it began until then may go on.
    """

    user = models.ForeignKey(VpnUser, on_delete=models.CASCADE, related_name="device_keys")
    fingerprint = models.CharField(max_length=64, editable=False)  # hex SHA-256 of the DER SubjectPublicKeyInfo
    device_id = models.CharField(max_length=64, editable=False)
    name = models.CharField(max_length=128, blank=True)
    platform = models.CharField(max_length=16, blank=True, editable=False)
    reg_key = models.CharField("registration key", max_length=16, editable=False)
    created = models.DateTimeField(editable=False)
    confirmed = models.DateTimeField(null=True, editable=False)
    revoked = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["-created", "-pk"]
        constraints = [models.UniqueConstraint(fields=["user", "fingerprint"], name="device_key_once")]
        indexes = [models.Index(fields=["user", "device_id"], name="revoked_keys", condition=Q(revoked__isnull=False))]

    def __str__(self) -> str:
        return self.name or self.device_id


class Enrolment(models.Model):
    """What one factor judges a user by. Each factor uses the columns that it needs, by its ``enrolment.py``.

    What an attempt used up (``counter``: the last TOTP time step whose code passed; ``last_attempt``: the attempt it
    passed for) is in the database, because losing it with Redis would make a used code good again.
    """

    user = models.ForeignKey(VpnUser, on_delete=models.CASCADE, related_name="enrolments")
    kind = models.CharField(max_length=KIND_LENGTH, editable=False)
    secret = SecretField()
    hash = models.CharField(max_length=200, blank=True, editable=False)
    counter = models.BigIntegerField(default=0, editable=False)
    last_attempt = models.CharField(max_length=64, blank=True, editable=False)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "kind"], name="enrolled_once")]

    def __str__(self) -> str:
        return self.kind


class RecoveryCode(models.Model):
    """A code that stands once for an authenticator. A new enrolment has none of the old one's.

    ``digest``: HMAC under a key that comes from the enrolment's own secret, which is encrypted. ``used_by``: the
    attempt that it passed for.
    """

    enrolment = models.ForeignKey(Enrolment, on_delete=models.CASCADE, related_name="recovery_codes")
    digest = models.CharField(max_length=64, editable=False)
    used = models.DateTimeField(null=True)
    used_by = models.CharField(max_length=64, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["enrolment", "digest"], name="one_recovery_code_of_enrolment")]

    def __str__(self) -> str:
        return "used recovery code" if self.used else "recovery code"


class Provider(Named, models.Model):
    """A service of somebody else's by which a factor judges: a RADIUS server, an identity provider.

    ``settings`` and ``secrets`` (a JSON object, encrypted) are what the factor's own form says of it; what reads and
    checks them is ``users.factors.providers``.
    """

    public_id = models.CharField(max_length=24, unique=True, default=new_id, editable=False)
    kind = models.CharField("factor", max_length=KIND_LENGTH, editable=False)
    name = NameField(help_text="Which one it is, for you; users may read it where they sign in.")
    settings = models.JSONField(default=dict, blank=True, editable=False)
    secrets = SecretField()
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["name_key"], name="one_provider_of_a_name")]

    def __str__(self) -> str:
        return self.name


class WrongAttempts(models.Model):
    """Second factors offered for a user that were wrong, since the last that were right.

    In the database, because losing them with Redis would let a guesser begin anew. ``kinds``: the factors that were
    asked for in them. Until ``paused_until`` none is looked at.
    """

    user = models.OneToOneField(VpnUser, on_delete=models.CASCADE, related_name="wrong_attempts")
    count = models.PositiveIntegerField()
    kinds = models.JSONField(default=list)
    last = models.DateTimeField()
    paused_until = models.DateTimeField(null=True)

    class Meta:
        verbose_name = verbose_name_plural = "wrong attempts"

    def __str__(self) -> str:
        return f"{self.count} wrong attempts"


class FactorOverride(models.Model):
    """What holds for one user whatever a server says: that a factor is asked for on every server, or on none."""

    class State(models.TextChoices):
        REQUIRED = "required", "always asked"
        EXEMPT = "exempt", "never asked"

    objects = FactorOverrides.as_manager()

    user = models.ForeignKey(VpnUser, on_delete=models.CASCADE, related_name="factor_overrides")
    kind = models.CharField("factor", max_length=KIND_LENGTH)
    state = models.CharField("of this user", max_length=8, choices=State)
    reason = models.CharField(max_length=200, blank=True, help_text="Why the user passes without it.")
    until = models.DateTimeField(null=True, blank=True, help_text="Asked again from then on; empty: without an end.")

    class Meta:
        ordering = ["kind"]
        verbose_name = "exception"
        constraints = [
            models.UniqueConstraint(
                fields=["user", "kind"],
                name="factor_override_once",
                violation_error_message="There is an exception for this factor already.",
            ),
            # Said here too, so that no door lets somebody off without a word of why.
            models.CheckConstraint(
                condition=Q(state="required", until=None) | Q(state="exempt") & ~Q(reason=""),
                name="factor_exemption_has_reason",
                violation_error_message="Say why the user is exempt; only an exemption ends by itself.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.get_state_display()}"

    def clean(self) -> None:
        if self.state == self.State.EXEMPT and not self.reason.strip():
            raise ValidationError({"reason": "Say why: whoever reads this later must be able to judge it."})
        if self.state == self.State.REQUIRED and self.until:
            raise ValidationError({"until": "Only an exemption ends by itself: leave this empty."})

    def save(self, *args: Any, **kwargs: Any) -> None:
        with transaction.atomic():
            super().save(*args, **kwargs)
            after_commit(task_names.ENFORCE)


class SignIn(models.Model):
    """A sign-in in a browser that one attempt to connect waits for; see ``users.signin``.

    In the database, as what is in it lets somebody in. ``page``: its name in the address that the user opens;
    ``attempt_hash``: the only attempt that it is good for; ``browser_hash`` and ``state_hash``: the browser in which
    its button was pressed, and what the provider must send back, once; ``outcome``: empty while it waits, "ok", or the
    code of a refusal; ``groups``: those that the provider names, None: it does not say. ``provider``: None: it is we.
    """

    page = models.CharField(max_length=32, unique=True)
    user = models.ForeignKey(VpnUser, on_delete=models.CASCADE, related_name="sign_ins")
    kind = models.CharField(max_length=KIND_LENGTH)
    provider = models.ForeignKey(Provider, on_delete=models.CASCADE, null=True, related_name="sign_ins")
    attempt_hash = models.CharField(max_length=64)
    server_name = models.CharField(max_length=200)
    device_name = models.CharField(max_length=128)
    address = models.CharField(max_length=64)
    expires = models.DateTimeField()
    browser_hash = models.CharField(max_length=64, blank=True)
    state_hash = models.CharField(max_length=64, blank=True)
    outcome = models.CharField(max_length=32, blank=True)
    groups = models.JSONField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "kind", "attempt_hash"], name="one_sign_in_of_attempt")]
        indexes = [models.Index(fields=["state_hash"], name="sign_in_by_state")]

    def __str__(self) -> str:
        return f"{self.kind} sign-in"


class OneTimePassword(models.Model):
    """An administrator's first password, which somebody else has seen: good for signing in and choosing another one.

    ``password`` is the hash as the account has it; once that differs, the account has a password of its own.
    """

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="one_time_password")
    password = models.CharField(max_length=128)

    class Meta:
        verbose_name = "one-time password"

    def __str__(self) -> str:
        return f"one-time password of {self.user}"


class RememberedPass(models.Model):
    """That a device passed its factors, so that for a while it need not again.

    ``kind`` "token": the client's factor token stands for them. ``kind`` "grace": the very secret that passed
    before passes again, for a client that reconnects by itself. Only a keyed hash of either is kept, which also
    covers the user's enrolments: changing one of these makes it void.
    """

    user = models.ForeignKey(VpnUser, on_delete=models.CASCADE, related_name="remembered")
    scope = models.CharField(max_length=24)
    kind = models.CharField(max_length=8, choices=[("token", "token"), ("grace", "grace")])
    device_id = models.CharField(max_length=64)
    device_name = models.CharField(max_length=128)
    digest = models.CharField(max_length=64)
    expires = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name_plural = "remembered passes"
        constraints = [
            models.UniqueConstraint(
                fields=["user", "scope", "kind", "device_id", "device_name"], name="one_remembered_pass"
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} until {self.expires:%Y-%m-%d %H:%M}"
