"""The rows of a first start: an administrator, this machine as a host, and one organization, server and user.

Each is made once. What an administrator deleted or renamed since is not made again.
"""

from __future__ import annotations

import ipaddress
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from django.contrib.auth.models import User
from django.db import transaction

from servers import services
from servers.hostnet.state import routing_table
from servers.hostnet.state.names import OUR_INTERFACE
from servers.models import Host, Server, ServerHost
from users.models import Organization, VpnUser
from users.services import known_to_others
from wgpeers.models import ProfileLink
from wgpeers.profiles import links

ADMIN, ORGANIZATION, SERVER, USER = "admin", "Team", "VPN", "user1"
PASSWORD_LENGTH = 20


@dataclass(frozen=True, slots=True)
class Machine:
    """What bin/run knows of the machine. ``host_id`` is its host's public id, empty before the first start;
    ``old_address`` the address that clients were told last time; ``in_use`` the networks it routes already."""

    name: str
    host_id: str
    address: str
    old_address: str
    wireguard_port: int
    in_use: tuple[ipaddress.IPv4Network, ...] = ()


@transaction.atomic
def make_admin() -> str:
    """Make the administrator if there is none; returns the password then, else nothing."""
    if User.objects.filter(is_superuser=True).exists():
        return ""
    alphabet = string.ascii_letters + string.digits
    password = "".join(secrets.choice(alphabet) for _ in range(PASSWORD_LENGTH))
    admin = User.objects.create_superuser(ADMIN, password=password)
    known_to_others(admin)
    return password


@transaction.atomic
def make_host(machine: Machine) -> Host:
    """This machine's host, made if it is not there. Its address follows the machine's, unless it was edited."""
    host = Host.objects.filter(public_id=machine.host_id).first() if machine.host_id else None
    if host is None:
        host = Host(name=_free_name(machine.name))
    field = "public_address6" if ":" in machine.address else "public_address"
    present = (host.public_address, host.public_address6)
    if host._state.adding or (machine.old_address in present and machine.address not in present):
        for name in ("public_address", "public_address6"):
            if getattr(host, name) == machine.old_address:
                setattr(host, name, "")
        setattr(host, field, machine.address)
        host.full_clean()
        host.save()
    return host


def _free_name(wanted: str) -> str:
    taken = set(Host.objects.values_list("name", flat=True))
    numbered = (f"{wanted}-{number}" for number in range(2, len(taken) + 3))
    return wanted if wanted not in taken else next(name for name in numbered if name not in taken)


@transaction.atomic
def make_server(host: Host, machine: Machine, now: float) -> ProfileLink | None:
    """On an empty installation: an organization, a started server on ``host``, a user, and a link to their profile."""
    if Organization.objects.exists() or Server.objects.exists():
        return None
    organization = Organization(name=ORGANIZATION)
    organization.full_clean()
    organization.save()
    virtual, tunnel = choose_networks(machine.in_use)
    server = Server(name=SERVER, network=virtual, wg_network=tunnel, port=machine.wireguard_port, started=True)
    server.full_clean(exclude=["box_private_key"])
    server.save()
    server.organizations.add(organization)
    services.ask_first_factors(server)
    ServerHost.objects.create(server=server, host=host)
    user = VpnUser(organization=organization, name=USER)
    user.full_clean()
    user.save()
    return links.create(user, now)


def choose_networks(in_use: Iterable[ipaddress.IPv4Network]) -> tuple[str, str]:
    """The virtual and the tunnel network of the first server, beside what the machine routes already."""
    taken = list(in_use)
    pairs = ((f"10.{second}.0.0/20", f"10.{second + 1}.0.0/20") for second in range(8, 254, 10))
    for pair in pairs:
        if not any(ipaddress.IPv4Network(text).overlaps(network) for text in pair for network in taken):
            return pair
    # Everything in 10.0.0.0/8 is routed somewhere.
    return "172.24.0.0/20", "172.25.0.0/20"


def routed_networks(proc: Path = routing_table.PROC) -> tuple[ipaddress.IPv4Network, ...]:
    """The IPv4 networks in this machine's routing table, but for the default route and our own tunnels."""
    return tuple(
        route.network
        for route in routing_table.read(proc)
        if isinstance(route.network, ipaddress.IPv4Network)
        and route.network.prefixlen
        and not OUR_INTERFACE.fullmatch(route.interface)
    )
