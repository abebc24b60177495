"""WHERE: hosts, the servers that run on them, what they route, and who has which tunnel address."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction

from users.crypto import SecretField
from users.models import Group, Organization, VpnUser, name_validator, new_id
from users.queueing import after_commit
from users.rows import SharedRow

from . import boxkeys, changes, checks, networks


class Host(SharedRow):
    """A machine that clients' tunnels end on. Its worker reports in over Redis; see ``hostnet``."""

    public_id = models.CharField(max_length=24, unique=True, default=new_id, editable=False)
    name = models.CharField(max_length=64, unique=True, validators=[name_validator])
    public_address = models.CharField(
        max_length=253,
        blank=True,
        validators=[checks.host_address4],
        help_text="IPv4 address or name where clients send their WireGuard packets.",
    )
    public_address6 = models.CharField(
        max_length=253,
        blank=True,
        validators=[checks.host_address6],
        verbose_name="public IPv6 address",
        help_text="IPv6 address, if it has one.",
    )
    enabled = models.BooleanField(default=True, help_text="Off: its tunnels are taken down and it gets no new clients.")

    # Raised by every change that concerns this host, in the change's own transaction. An old message never wins.
    version = models.BigIntegerField(default=1, editable=False)
    boot = models.CharField(max_length=64, blank=True, editable=False)
    backend = models.CharField(max_length=16, blank=True, editable=False)
    applied_at = models.DateTimeField(null=True, blank=True, editable=False)
    applied_version = models.BigIntegerField(default=0, editable=False)
    drift = models.TextField(blank=True, editable=False)
    drift_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_error = models.TextField(blank=True, editable=False)

    machine_fields = frozenset(
        {"version", "boot", "backend", "applied_at", "applied_version", "drift", "drift_at", "last_error"}
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        if not self.public_address and not self.public_address6:
            raise ValidationError({"public_address": "Give an IPv4 address, a name or an IPv6 address."})

    def save(self, *args: Any, **kwargs: Any) -> None:
        with changes.of_hosts() as changed:
            super().save(*args, **kwargs)
            changed.add(self.pk)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            changes.raise_versions([self.pk])
            self.refresh_from_db(fields=["version", "boot"])
            # Without a row nobody can work out its state any more: this is the last word that it gets from us.
            after_commit("wgpeers.dismiss", self.public_id, self.version, self.boot)
            return super().delete(*args, **kwargs)

    @property
    def queue(self) -> str:
        return f"host.{self.public_id}"


class PinMode(models.TextChoices):
    OFF = "off", "not asked"
    OPTIONAL = "optional", "asked of users who have one"
    REQUIRED = "required", "asked of everybody"


class Server(SharedRow):
    """A VPN: its people, its tunnel networks, and the hosts that carry it."""

    public_id = models.CharField(max_length=24, unique=True, default=new_id, editable=False)
    name = models.CharField(max_length=64, unique=True, validators=[name_validator])
    organizations = models.ManyToManyField(Organization, blank=True, related_name="servers")
    groups = models.ManyToManyField(
        Group, blank=True, related_name="servers", help_text="Only users in one of these; none: all of them."
    )
    hosts = models.ManyToManyField(Host, through="ServerHost", related_name="servers")
    wireguard = models.BooleanField("WireGuard", default=True, help_text="Clients can connect only where it is on.")
    started = models.BooleanField(default=False, help_text="Stopped: no tunnels, and clients are told to go elsewhere.")

    network = models.CharField("virtual network", max_length=18, help_text="For example 10.8.0.0/24.")
    wg_network = models.CharField(
        "virtual WG network", max_length=18, help_text="Tunnel addresses; as long a prefix as the virtual network."
    )
    ipv6 = models.BooleanField("IPv6", default=False)
    network6 = models.CharField("IPv6 network", max_length=43, blank=True, help_text="For example fd09::/64.")
    port = models.PositiveIntegerField(
        "WireGuard port", default=51820, validators=[MinValueValidator(1), MaxValueValidator(65535)], help_text="UDP."
    )
    mtu = models.PositiveIntegerField("MTU", default=0, validators=[checks.mtu], help_text="0: chosen for you.")
    dns_servers = models.CharField(
        "DNS servers", max_length=400, blank=True, validators=[checks.addresses], help_text="Separated by commas."
    )
    search_domains = models.CharField(
        max_length=400, blank=True, validators=[checks.domains], help_text="Separated by commas."
    )
    inter_client = models.BooleanField("clients reach each other", default=True)

    ping_interval = models.PositiveIntegerField(
        default=10, validators=[MinValueValidator(5), MaxValueValidator(300)], help_text="Seconds."
    )
    ping_timeout = models.PositiveIntegerField(
        default=360,
        validators=[MinValueValidator(15), MaxValueValidator(86400)],
        help_text="Seconds of silence after which a connection's key is revoked for good.",
    )
    session_timeout = models.PositiveIntegerField(
        default=0,
        validators=[MaxValueValidator(31 * 86400)],
        help_text="Seconds after which a connection ends whatever its pings say; 0: never.",
    )
    multi_device = models.BooleanField(
        default=False, help_text="Off: a user's new device takes over from the one before."
    )
    max_devices = models.PositiveIntegerField(
        default=0, validators=[MaxValueValidator(1000)], help_text="At the same time, with multi-device; 0: no limit."
    )

    platforms = models.CharField(
        "allowed platforms",
        max_length=100,
        blank=True,
        validators=[checks.platforms],
        help_text="Of linux, win, mac, ios, android, chrome, unknown, separated by commas; empty: all.",
    )
    pin = models.CharField("PIN", max_length=8, choices=PinMode, default=PinMode.OPTIONAL)
    totp = models.BooleanField("TOTP", default=False, help_text="Ask for a code of an authenticator app.")
    factor_token_ttl = models.PositiveIntegerField(
        "factor token lifetime",
        default=0,
        validators=[MaxValueValidator(90 * 86400)],
        help_text="Seconds for which a client may keep a token that stands for the factors passed; 0: off.",
    )
    reconnect_grace = models.PositiveIntegerField(
        default=8 * 3600,
        validators=[MaxValueValidator(7 * 86400)],
        help_text="Seconds within which a device may reconnect with the secret that passed before; 0: off.",
    )
    pre_connect_message = models.CharField(max_length=500, blank=True, help_text="Shown to users before connecting.")

    box_private_key = SecretField()
    box_public_key = models.CharField(max_length=44, blank=True, editable=False)
    # Host parts below this one have been allotted at least once; see addresses.py.
    next_part = models.BigIntegerField(default=networks.FIRST_PART, editable=False)
    created = models.DateTimeField(auto_now_add=True)

    machine_fields = frozenset({"next_part", "box_private_key", "box_public_key"})

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["network"], name="server_network_unique"),
            models.UniqueConstraint(fields=["wg_network"], name="server_wg_network_unique"),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        checks.server(self)

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self.box_private_key:
            self.box_private_key, self.box_public_key = boxkeys.new_pair()
        with changes.of_hosts() as changed:
            super().save(*args, **kwargs)
            changed.update(self.attachments.values_list("host_id", flat=True))

    @property
    def interface(self) -> str:
        """The interface's name on every host; at most 15 characters."""
        return f"wgs{self.pk}"

    @property
    def running(self) -> bool:
        return self.started and self.wireguard


class ServerHost(SharedRow):
    """A server on a host. The host makes the WireGuard key, keeps the private half and reports the public one."""

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="attachments")
    host = models.ForeignKey(Host, on_delete=models.CASCADE, related_name="attachments")
    public_key = models.CharField(max_length=44, blank=True, editable=False)

    machine_fields = frozenset({"public_key"})

    class Meta:
        verbose_name = "attached host"
        constraints = [models.UniqueConstraint(fields=["server", "host"], name="host_attached_once")]

    def __str__(self) -> str:
        return f"{self.server} on {self.host}"

    def clean(self) -> None:
        checks.attachment(self)

    def save(self, *args: Any, **kwargs: Any) -> None:
        with changes.of_hosts() as changed:
            super().save(*args, **kwargs)
            changed.add(self.host_id)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with changes.of_hosts() as changed:
            changed.add(self.host_id)
            return super().delete(*args, **kwargs)


class Route(models.Model):
    """A network that a server's clients reach through its hosts."""

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="routes")
    network = models.CharField(max_length=43, help_text="For example 192.168.1.0/24; 0.0.0.0/0 sends everything.")
    nat = models.BooleanField(
        "NAT",
        default=True,
        help_text="Clients appear there with the host's own address; off: with their tunnel address.",
    )
    comment = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["server", "network"]
        constraints = [
            models.UniqueConstraint(
                fields=["server", "network"],
                name="route_unique_of_server",
                violation_error_message="This server has a route to this network already.",
            )
        ]

    def __str__(self) -> str:
        return self.network

    def clean(self) -> None:
        checks.route(self)

    def save(self, *args: Any, **kwargs: Any) -> None:
        with changes.of_hosts() as changed:
            super().save(*args, **kwargs)
            changed.update(self.server.attachments.values_list("host_id", flat=True))

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with changes.of_hosts() as changed:
            changed.update(self.server.attachments.values_list("host_id", flat=True))
            return super().delete(*args, **kwargs)


class Address(models.Model):
    """One host part of a server's networks that has been allotted at least once.

    A row with a user and ``dynamic`` off is that user's static address; with a user and ``dynamic`` on it is in
    use by one of the user's further devices; without a user it is free to be allotted again.
    """

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="addresses")
    part = models.BigIntegerField(editable=False)
    user = models.ForeignKey(VpnUser, on_delete=models.SET_NULL, null=True, blank=True, related_name="addresses")
    dynamic = models.BooleanField(default=False, editable=False)

    class Meta:
        ordering = ["server", "part"]
        verbose_name_plural = "addresses"
        constraints = [
            models.UniqueConstraint(fields=["server", "part"], name="address_given_once"),
            models.UniqueConstraint(
                fields=["server", "user"], condition=models.Q(dynamic=False), name="one_static_address_of_user"
            ),
        ]
        indexes = [
            models.Index(fields=["server", "part"], condition=models.Q(user=None), name="free_addresses"),
        ]

    def __str__(self) -> str:
        return self.address

    @property
    def address(self) -> str:
        return networks.address(self.server.wg_network, self.part)
