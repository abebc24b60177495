"""The mesh: WireGuard between the machines, through which they reach Redis and each other; and who may join it."""

from __future__ import annotations

import secrets

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from core.crypto import SecretField

from ..fields import NetworkField
from ..hostnet.state.mesh import MESH_PORT
from ..networks import spelled
from ..rules.registry import Ruled
from .host import Host

_PORTS = [MinValueValidator(1024), MaxValueValidator(65535)]


def random_network() -> str:
    """A /64 of a random unique local prefix (RFC 4193), which nobody else has."""
    return spelled(f"fd{secrets.token_hex(1)}:{secrets.token_hex(2)}:{secrets.token_hex(2)}::/64")


class Mesh(Ruled):
    """The installation's one mesh. A machine's address in it is the network's first plus the machine's host part."""

    network = NetworkField(
        default=random_network,
        help_text="Addresses of the machines among themselves: IPv6 or IPv4, used nowhere else. When it is changed, "
        "machines that are off meanwhile have to join again.",
    )
    # Addresses of before the last change, which hold until all machines had time to hear of it.
    former = models.CharField(max_length=64, blank=True, editable=False)
    former_until = models.DateTimeField(null=True, editable=False)
    port = models.PositiveIntegerField(
        "UDP port",
        default=MESH_PORT,
        validators=_PORTS,
        help_text="Where each machine listens for the others: open it in firewalls between them.",
    )
    # The X25519 key to which requests to join are sealed. Its public half is in every token.
    join_key = SecretField()

    class Meta:
        verbose_name_plural = "mesh"

    def __str__(self) -> str:
        return f"Mesh {self.network}"

    def normalize(self) -> None:
        self.network = spelled(self.network)


class MeshNode(models.Model):
    """A machine of the mesh. It is there once it has joined; ``public_key`` is empty until it has said it."""

    host = models.OneToOneField(Host, models.CASCADE, related_name="node")
    host_part = models.PositiveIntegerField(unique=True)
    public_key = models.CharField(max_length=44, blank=True)
    # Whether Redis and gateway web run there.
    control = models.BooleanField(default=False)
    # SHA-256 of its password for Redis: all that Redis needs to know. The password is random, and long.
    redis_hash = models.CharField(max_length=64, blank=True)
    joined = models.DateTimeField(null=True)

    class Meta:
        ordering = ["host_part"]
        constraints = [
            models.UniqueConstraint(
                fields=["public_key"], condition=~models.Q(public_key=""), name="one_mesh_node_of_a_key"
            )
        ]

    def __str__(self) -> str:
        return f"{self.host} in the mesh"


class JoinToken(models.Model):
    """What lets one machine join once, as this host. Who reads the database cannot use it: it holds a hash alone."""

    host = models.OneToOneField(Host, models.CASCADE, related_name="join_token")
    hash = models.CharField(max_length=64, unique=True)
    # Whether it makes a control node, and hands over what that needs: every secret of the installation.
    control = models.BooleanField(default=False)
    expires = models.DateTimeField()
    used = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"Token of {self.host}"
