"""Servers, and which hosts they run on."""

from __future__ import annotations

from typing import Any

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction
from django.db.models import Q

from core.crypto import SecretField
from core.locking import SharedRow
from core.names import Named, NameField
from servers.hostnet.state.names import PREFIX
from users.models import Group, Organization, new_id

from .. import boxkeys, changes, networks, validators
from ..fields import NetworkField, NetworksField, all_spelled
from ..rules.registry import Confirmable, Ruled
from .host import Host


class Server(Named, Confirmable, SharedRow):
    """A VPN: its people, its tunnel networks, and the hosts that carry it."""

    public_id = models.CharField(max_length=24, unique=True, default=new_id, editable=False)
    name = NameField(unique=True)
    organizations = models.ManyToManyField(Organization, blank=True, related_name="servers")
    groups = models.ManyToManyField(
        Group, blank=True, related_name="servers", help_text="Only users in one of these; none: all of them."
    )
    hosts = models.ManyToManyField(Host, through="ServerHost", related_name="servers")
    wireguard = models.BooleanField("WireGuard", default=True, help_text="Clients can connect only where it is on.")
    started = models.BooleanField(default=False, help_text="Stopped: no tunnels, and clients are told to go elsewhere.")

    network = NetworkField("virtual network", help_text="For example 10.8.0.0/24.")
    wg_network = NetworkField(
        "virtual WG network", help_text="Tunnel addresses; as long a prefix as the virtual network."
    )
    ipv6 = models.BooleanField("IPv6", default=False)
    network6 = NetworkField(
        "IPv6 network",
        blank=True,
        help_text="For example fd09::/64; empty: a private one, derived from the virtual WG network.",
    )
    port = models.PositiveIntegerField(
        "WireGuard port", default=51820, validators=[MinValueValidator(1), MaxValueValidator(65535)], help_text="UDP."
    )
    mtu = models.PositiveIntegerField("MTU", default=0, validators=[validators.mtu], help_text="0: chosen for you.")
    dns_servers = models.CharField(
        "DNS servers", max_length=400, blank=True, validators=[validators.addresses], help_text="Separated by commas."
    )
    dns_tls_name = models.CharField(
        "DNS over TLS",
        max_length=253,
        blank=True,
        validators=[validators.domains],
        help_text="The name in those servers' certificate: hosts then ask them over TLS. Empty: plain.",
    )
    search_domains = models.CharField(
        max_length=400, blank=True, validators=[validators.domains], help_text="Tried behind short names; by commas."
    )
    routing_domains = models.CharField(
        max_length=400,
        blank=True,
        validators=[validators.domains],
        help_text="Looked up through the tunnel and nowhere else, without being tried behind short names; by commas.",
    )
    dns_mapping = models.BooleanField(
        "names for clients",
        default=False,
        help_text="Clients have names such as laptop.alice.acme.vpn, and ask the host's own DNS server.",
    )
    dns_zone = models.CharField("zone of those names", max_length=100, default="vpn", validators=[validators.zone])
    restrict_routes = models.BooleanField(
        "restrict to routes", default=True, help_text="Clients reach what is a route of this server, and nothing else."
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
    keep_connected_device = models.BooleanField(
        default=False,
        help_text="Without multi-device: on, a user's new device is refused while another one is connected.",
    )
    max_devices = models.PositiveIntegerField(
        default=5,
        validators=[MinValueValidator(1), MaxValueValidator(1000)],
        help_text="Of one user at the same time, with multi-device.",
    )

    platforms = models.CharField(
        "allowed platforms",
        max_length=100,
        blank=True,
        validators=[validators.platforms],
        help_text="Of linux, win, mac, ios, android, chrome, unknown, separated by commas; empty: all.",
    )
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
    trusted_networks = NetworksField(
        max_length=1000,
        blank=True,
        validators=[validators.trusted_networks],
        help_text="Public networks of yours, separated by commas: who connects from there is asked for no second "
        "factor, unless their own page says that they always are.",
    )
    ask_again_at = models.TimeField(
        "ask again at",
        null=True,
        blank=True,
        help_text="A time of day at which every connection ends and nothing that was passed counts any longer. "
        "Empty: none.",
    )
    time_zone = models.CharField(
        max_length=64, default="UTC", validators=[validators.time_zone], help_text="Of that time; like Europe/Berlin."
    )
    ask_again_elsewhere = models.BooleanField(
        "ask again elsewhere",
        default=False,
        help_text="What was passed counts only where it was: a new public address is asked again.",
    )
    pre_connect_message = models.CharField(max_length=500, blank=True, help_text="Shown to users before connecting.")

    box_private_key = SecretField()
    box_public_key = models.CharField(max_length=44, blank=True, editable=False)
    # Host parts below this one have been allotted at least once; see addresses.py.
    next_host_part = models.BigIntegerField(default=networks.FIRST_HOST_PART, editable=False)
    created = models.DateTimeField(auto_now_add=True)

    machine_fields = frozenset({"next_host_part", "box_private_key", "box_public_key"})

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["name_key"], name="one_server_of_a_name"),
            models.UniqueConstraint(fields=["network"], name="server_network_unique"),
            models.UniqueConstraint(fields=["wg_network"], name="server_wg_network_unique"),
        ]

    def __str__(self) -> str:
        return self.name

    def normalize(self) -> None:
        """Networks in one spelling, because hosts and clients read them too; and the IPv6 network that belongs to the
        WG network, if an admin chose none: there is none yet, or still the one of the WG network as it was."""
        for field in ("network", "wg_network", "network6"):
            setattr(self, field, networks.spelled(getattr(self, field)))
        self.trusted_networks = all_spelled(self.trusted_networks)
        if not self.ipv6:
            return
        before = type(self)._base_manager.filter(pk=self.pk).values_list("wg_network", flat=True).first()
        if not self.network6 or (before and self.network6 == networks.derived6_of(before)):
            self.network6 = networks.derived6_of(self.wg_network) or self.network6

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self.box_private_key:
            self.box_private_key, self.box_public_key = boxkeys.new_pair()
        self.normalize()
        if {"ipv6", "wg_network"} & set(kwargs.get("update_fields") or ()):
            # It follows from these two: hosts and clients rely on its being there.
            kwargs["update_fields"] = {*kwargs["update_fields"], "network6"}
        with transaction.atomic():
            super().save(*args, **kwargs)
            changes.record(hosts_of(self.pk))

    @property
    def interface(self) -> str:
        """The interface's name on every host; at most 15 characters."""
        return f"{PREFIX}{self.pk}"

    @property
    def running(self) -> bool:
        return self.started and self.wireguard


class ServerHost(Ruled, SharedRow):
    """A server on a host. The host makes the WireGuard key, keeps the private half and reports the public one."""

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="attachments")
    host = models.ForeignKey(Host, on_delete=models.CASCADE, related_name="attachments")
    public_key = models.CharField(max_length=44, blank=True, editable=False)
    priority = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="Hosts of 1 get clients first; greater ones only while none of the lesser ones takes any.",
    )

    machine_fields = frozenset({"public_key"})

    class Meta:
        verbose_name = "attached host"
        constraints = [models.UniqueConstraint(fields=["server", "host"], name="host_attached_once")]

    def __str__(self) -> str:
        return f"{self.server} on {self.host}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        with transaction.atomic():
            super().save(*args, **kwargs)
            # By it, hosts of linked servers may reach what its routes lead to.
            changes.record({self.host_id, *hosts_of_linked(self.server_id)})


def hosts_of(*servers: int) -> set[int]:
    """The hosts (primary keys) that carry one of these servers, or one that is linked with one of them: what becomes
    of a server concerns all of them."""
    carry = ServerHost.objects.filter(server__in=servers).values_list("host_id", flat=True)
    return {*carry, *hosts_of_linked(*servers)}


def hosts_of_linked(*servers: int) -> set[int]:
    """The hosts (primary keys) that carry a server that is linked with one of these."""
    linked = Q(server__links_as_first__second__in=servers) | Q(server__links_as_second__first__in=servers)
    return set(ServerHost.objects.filter(linked).values_list("host_id", flat=True))
