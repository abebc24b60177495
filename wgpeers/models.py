"""THE CONNECTION: who is connected with which key, which keys are spent, what was decided, and profile links."""

from __future__ import annotations

from typing import TypeVar

from django.db import models
from django.db.models import Q

from core import request_id
from core.crypto import SecretField
from servers.models import Host, Server
from users.models import VpnUser, new_id

M = TypeVar("M", bound=models.Model)


class State(models.TextChoices):
    PENDING = "pending", "waiting for its host"
    OPEN = "open", "connected"
    ENDED = "ended", "ended"


class EndReason(models.TextChoices):
    SILENT = "silent", "no ping in time"
    REPLACED = "replaced", "the same device connected again"
    ELSEWHERE = "elsewhere", "the user connected with another device"
    ADMIN = "admin", "disconnected by an administrator"
    BY_USER = "by_user", "ended by its user"
    DEVICE_REVOKED = "device_revoked", "its user revoked the device"
    SIGN_IN = "sign_in_over", "the provider no longer stands by their sign-in"
    SESSION = "session_timeout", "session time is over"
    NOT_PERMITTED = "not_permitted", "no longer permitted"
    MOVED = "address_changed", "its address was changed"
    STOPPED = "server_stopped", "the server was stopped"
    DRAINED = "drained", "its host is being emptied"
    UNCONFIRMED = "unconfirmed", "no host confirmed it"


def kept(model: type[M], related_name: str) -> models.ForeignKey[M | None, M | None]:
    """What a row of history is about. That may be deleted, in a moment, however long its history is: the row keeps its
    name as text, and a key that leads nowhere (no primary key is ever given twice). Who reads a row that has ended
    selects this along, and gets None for what is gone."""
    return models.ForeignKey(
        model, on_delete=models.DO_NOTHING, db_constraint=False, null=True, related_name=related_name
    )


class Connection(models.Model):
    """One client with one WireGuard key, from being allowed to its end. Rows are kept as history. ``end_detail``, not
    stored, is for the decision that says why it ends."""

    end_detail = ""

    public_id = models.CharField(max_length=24, unique=True, default=new_id, editable=False)
    user = kept(VpnUser, "connections")
    user_name = models.CharField(max_length=140)
    server = kept(Server, "connections")
    server_name = models.CharField(max_length=64)
    host = kept(Host, "connections")
    host_name = models.CharField(max_length=64)
    state = models.CharField(max_length=8, choices=State, default=State.PENDING)

    device_id = models.CharField(max_length=64)
    device_name = models.CharField(max_length=128, blank=True)
    platform = models.CharField(max_length=16, blank=True)
    client_version = models.CharField(max_length=64, blank=True)
    client_address = models.GenericIPAddressField(null=True, blank=True, help_text="Where the request came from.")

    wg_public_key = models.CharField("WireGuard key", max_length=44)
    host_part = models.BigIntegerField()
    address = models.GenericIPAddressField()
    address6 = models.GenericIPAddressField("IPv6 address", null=True, blank=True)
    version = models.BigIntegerField(default=0)

    created = models.DateTimeField()
    opened = models.DateTimeField(null=True, blank=True)
    session_ends = models.DateTimeField(null=True, blank=True)
    due = models.DateTimeField(null=True, blank=True, help_text="When it should have ended.")
    ended = models.DateTimeField(null=True, blank=True)
    end_reason = models.CharField(max_length=16, choices=EndReason, blank=True)
    removed = models.DateTimeField(null=True, blank=True, help_text="When its host reported that it was cut off.")
    device_told = models.BooleanField(
        default=False, editable=False, help_text="Whether its device, which another one replaced, was told so."
    )
    removal_latency = models.FloatField(null=True, blank=True, help_text="Seconds from when it was due to that.")

    class Meta:
        ordering = ["-created"]
        constraints = [
            # The last word on "never given twice", whatever addresses.py may have got wrong.
            models.UniqueConstraint(
                fields=["server", "host_part"], condition=~Q(state="ended"), name="one_connection_on_an_address"
            ),
        ]
        indexes = [
            models.Index(fields=["user", "server"], condition=~Q(state="ended"), name="live_of_user"),
            models.Index(fields=["host"], condition=~Q(state="ended"), name="live_of_host"),
            models.Index(fields=["host", "ended"], condition=Q(state="ended"), name="ended_of_host"),
            models.Index(fields=["created"], condition=Q(state="pending"), name="pending_by_age"),
            models.Index(fields=["session_ends"], condition=Q(state="open"), name="open_by_session_end"),
        ]

    def __str__(self) -> str:
        return f"{self.user_name} at {self.address}"

    @property
    def server_key(self) -> int:
        """The server's primary key, which stays when the server has gone."""
        return self.server_id or 0


def live_on(servers: models.QuerySet[Server]) -> models.QuerySet[Connection]:
    """Who is connected to these servers, found among those who are connected.

    Each has a host part: that is said because databases then take the index of the live ones. By that of the server
    they would go through all of its history.
    """
    live = Connection.objects.exclude(state=State.ENDED)
    return live.filter(server__in=servers.order_by().values("pk"), host_part__gte=0)


class SpentKey(models.Model):
    """A WireGuard key that was allowed once. Kept for ever: no key is accepted twice."""

    digest = models.BinaryField(max_length=32, unique=True, help_text="SHA-256 of the 32 bytes.")
    connection = models.ForeignKey(Connection, on_delete=models.SET_NULL, null=True, related_name="spent_keys")
    created = models.DateTimeField()

    def __str__(self) -> str:
        return bytes(self.digest).hex()[:12]


class Decision(models.Model):
    """What was decided on one request, or on one connection's end, and which layer said so. Holds no secret.

    Refusals that repeat within an hour are one row: ``time`` of the first, ``last`` of the last, ``count`` of all.
    """

    time = models.DateTimeField(db_index=True)
    last = models.DateTimeField(null=True, blank=True, help_text="When it was decided so again, and no other way.")
    count = models.PositiveIntegerField(default=1)
    user = kept(VpnUser, "decisions")
    user_name = models.CharField(max_length=140)
    server = kept(Server, "decisions")
    server_name = models.CharField(max_length=64)
    address = models.GenericIPAddressField(null=True, blank=True)
    device_name = models.CharField(max_length=128, blank=True)
    allowed = models.BooleanField(default=False)
    layer = models.CharField(max_length=24)
    code = models.CharField(max_length=32, db_index=True)
    layers = models.JSONField(default=list, help_text="What each layer said, in order.")
    detail = models.CharField(max_length=200, blank=True, help_text="What is special of this case.")
    request = models.CharField(
        max_length=request_id.LENGTH, blank=True, default=request_id.current, help_text="Its name in the log."
    )

    class Meta:
        ordering = ["-time"]
        indexes = [
            models.Index(fields=["user", "code", "time"], condition=Q(allowed=False), name="refusals_of_user"),
        ]

    def __str__(self) -> str:
        return f"{self.time:%Y-%m-%d %H:%M:%S} {self.user_name}: {self.code}"


class ProfileRevision(models.Model):
    """The last profile content a user was given for a server: its hash, and a number that grows with each change."""

    user = models.ForeignKey(VpnUser, on_delete=models.CASCADE, related_name="profile_revisions")
    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="profile_revisions")
    sync_hash = models.CharField(max_length=64)
    revision = models.PositiveBigIntegerField(default=1)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "server"], name="one_revision_of_profile")]

    def __str__(self) -> str:
        return f"{self.user} on {self.server}: {self.revision}"


class ProfileLink(models.Model):
    """A temporary, unguessable link to a user's profiles. Looked up by hash, so that a look into the database (or
    the time a look-up takes) opens no link."""

    user = models.ForeignKey(VpnUser, on_delete=models.CASCADE, related_name="links")
    key_id = SecretField()
    key_digest = models.CharField(max_length=64, unique=True, editable=False)
    short_id = SecretField()
    short_digest = models.CharField(max_length=64, unique=True, editable=False)
    one_time = models.BooleanField(default=False, help_text="Gone after the first download.")
    created = models.DateTimeField()
    expires = models.DateTimeField(db_index=True)
    short_expires = models.DateTimeField(help_text="Ten minutes after it is first opened.")
    opened = models.DateTimeField(null=True, blank=True)
    used = models.DateTimeField(null=True, blank=True)
    revoked = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created"]

    def __str__(self) -> str:
        return f"link for {self.user}, until {self.expires:%Y-%m-%d %H:%M}"
