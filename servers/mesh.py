"""The mesh in the database, and what each machine is told of it."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging

import redis
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from core import clock, front_networks
from core.crypto import Secret
from core.redis_store import RedisUnavailable, redis_client
from core.shared_stores import redis_is_ours

from . import networks
from .hostnet.state import RELAYS, Gateway, MeshPeer, joining
from .hostnet.state import Mesh as DesiredMesh
from .models import Host, Mesh, MeshNode

log = logging.getLogger(__name__)

# Seconds for which a network that is no longer the mesh's still works beside the new one.
FORMER_FOR = 3600.0
KEY_BYTES = 32


class Full(Exception):
    """The mesh's network has no address left."""


def the_mesh() -> Mesh:
    """The installation's own; made at the first call."""
    key = base64.b64encode(joining.new_private()).decode()
    return Mesh.objects.get_or_create(pk=1, defaults={"join_key": Secret.of(key)})[0]


def join_private(mesh: Mesh) -> bytes:
    return base64.b64decode(mesh.join_key.reveal())


def control_node(host: Host, redis_hash: str = "") -> MeshNode:
    """``host`` as a machine that Redis and gateway web run on; its key it says itself. ``redis_hash`` is that of its
    worker's password for Redis."""
    node = MeshNode.objects.filter(host=host).first()
    if node is None:
        node = MeshNode(host=host, host_part=free_host_part(the_mesh()))
    node.control, node.redis_hash = True, redis_hash or node.redis_hash
    node.save()
    return node


def free_host_part(mesh: Mesh) -> int:
    """The least that no machine has. Raise ``Full``."""
    taken = {*MeshNode.objects.values_list("host_part", flat=True)}
    host_part = next(number for number in range(1, len(taken) + 2) if number not in taken)
    if host_part > last_host_part(networks.parse(mesh.network)):
        raise Full
    return host_part


def last_host_part(network: networks.Network) -> int:
    # The last address of an IPv4 network is its broadcast address.
    return network.num_addresses - (2 if network.version == 4 else 1)


def note_key(host: Host, key: object) -> None:
    """A machine has said its public key. Only one that is in the mesh is heard, and nobody gets another one's key."""
    if not isinstance(key, str) or not is_key(key):
        return
    node = MeshNode.objects.filter(host=host).exclude(public_key=key).first()
    if node is None:
        return
    node.public_key = key
    try:
        with transaction.atomic():
            node.save()
    except IntegrityError:
        log.warning("host %s says that it has the key of another one", host)


def is_key(text: str) -> bool:
    """Whether ``text`` is a WireGuard public key in its one spelling."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return False
    return len(raw) == KEY_BYTES and base64.b64encode(raw).decode() == text


def needed_by_others(host: Host) -> bool:
    """Whether other machines have their way to the control side through this one alone: without it they would be out
    of reach for good."""
    return (
        MeshNode.objects.filter(host=host, control=True).exists()
        and not MeshNode.objects.filter(control=True).exclude(host=host).exists()
        and MeshNode.objects.exclude(host=host).exists()
    )


def machines() -> list[Host]:
    """Those that are in the mesh, by name."""
    nodes = MeshNode.objects.exclude(public_key="").select_related("host").order_by("host__name")
    return [node.host for node in nodes]


def is_alone(host: Host) -> bool:
    """Whether no machine has joined as ``host``."""
    return not MeshNode.objects.filter(host=host).exists()


# What machines are told


def mesh_of(host: Host) -> DesiredMesh | None:
    """What ``host`` is to have of the mesh; None where it is not in it, or alone."""
    nodes = list(MeshNode.objects.exclude(public_key="").select_related("host"))
    mine = next((node for node in nodes if node.host_id == host.pk), None)
    if mine is None or len(nodes) < 2:
        return None
    mesh = the_mesh()
    return DesiredMesh(
        addresses=_alone(mesh, mine),
        port=mesh.port,
        mtu=0,
        peers=tuple(_peer(mesh, node) for node in nodes if node is not mine),
        serves=_served() if mine.control else (),
        # A Redis elsewhere is reached by the address that machines were told when they joined.
        redis=tuple(at for node in nodes if node.control for at in redis_addresses(mesh, node) if redis_is_ours()),
        relays=_relays(mine),
    )


def _served() -> tuple[int, ...]:
    """TCP ports of a control node that the other machines reach."""
    return tuple(sorted({settings.GATEWAY_PORT, *([settings.MESH_REDIS_PORT] if redis_is_ours() else [])}))


def _peer(mesh: Mesh, node: MeshNode) -> MeshPeer:
    where = endpoints(node.host, mesh.port)
    return MeshPeer(node.host.public_id, node.public_key, where, _alone(mesh, node), _relays(node))


def gateways_of(host: Host) -> tuple[Gateway, ...]:
    """Where ``host`` has pings of its clients go: to gateway web of the control nodes. None where it is one itself, or
    in no mesh."""
    nodes = list(MeshNode.objects.exclude(public_key="").select_related("host"))
    if not any(node.host_id == host.pk and not node.control for node in nodes):
        return ()
    mesh = the_mesh()
    return tuple(
        Gateway(address, settings.GATEWAY_PORT)
        for node in nodes
        if node.control
        for address in addresses(mesh, node)[:1]
    )


def carried() -> list[tuple[str, int]]:
    """Each machine's addresses in the mesh, with each server (primary key) that it carries."""
    nodes = MeshNode.objects.exclude(public_key="").values_list("host", "host_part", "host__attachments__server")
    if not nodes:
        return []
    mesh = the_mesh()
    return [
        (address, server)
        for host, host_part, server in nodes
        if server is not None
        for address in addresses(mesh, MeshNode(host_id=host, host_part=host_part))
    ]


def addresses(mesh: Mesh, node: MeshNode) -> list[str]:
    """The machine's addresses in the mesh, the present one first."""
    return [networks.address(network, node.host_part) for network in networks_of(mesh)]


def networks_of(mesh: Mesh) -> list[str]:
    """Those that work now, the present one first."""
    former = mesh.former if mesh.former_until and mesh.former_until > clock.moment(clock.now()) else ""
    return [network for network in (mesh.network, former) if network]


def tell_fronts() -> None:
    """Say which networks those are to the front of each control node. Raise ``RedisUnavailable``."""
    try:
        front_networks.say(redis_client(), networks_of(the_mesh()))
    except redis.RedisError as error:
        raise RedisUnavailable from error


def redis_addresses(mesh: Mesh, node: MeshNode) -> list[str]:
    return [_with_port(address, settings.MESH_REDIS_PORT) for address in addresses(mesh, node)[:1]]


def endpoints(host: Host, port: int) -> tuple[str, ...]:
    return tuple(_with_port(each, port) for each in (host.public_address, host.public_address6) if each)


def _alone(mesh: Mesh, node: MeshNode) -> tuple[str, ...]:
    return tuple(map(_single, addresses(mesh, node)))


def _single(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def _relays(node: MeshNode) -> tuple[str, ...]:
    """By which it hands on what arrives for clients of other machines."""
    return tuple(_single(networks.address(network, node.host_part)) for network in RELAYS.values())


def _with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def change_network(mesh: Mesh, before: str) -> None:
    """Save ``mesh`` with its new network; that of ``before`` goes on working for a while."""
    mesh.former, mesh.former_until = before, clock.moment(clock.now() + FORMER_FOR)
    mesh.save()


def forget_former(now: float) -> None:
    """Take the network of before off all machines, once its time is over."""
    for mesh in Mesh.objects.filter(former_until__lt=clock.moment(now)):
        mesh.former, mesh.former_until = "", None
        mesh.save()


def overlapping(network: str, others: list[str]) -> str:
    """The first of ``others`` (routes of a machine) that shares addresses with ``network``; empty if none does. Default
    routes share with everything, and do not count."""
    for text in others:
        try:
            other = ipaddress.ip_network(text)
        except ValueError:
            continue
        if other.prefixlen and networks.overlaps(other, network):
            return text
    return ""


def usable(text: str) -> networks.Network:
    """A network that a mesh can have. Raise ``ValidationError``."""
    network = networks.parse(text)
    if network.num_addresses < 8:
        raise ValidationError(f"{network} is too small: a /{network.max_prefixlen - 3} is the least, for six machines.")
    unusable = network.is_loopback or network.is_multicast or network.is_link_local or network.is_unspecified
    if unusable or network.is_reserved or network.network_address.packed[0] == 0:
        raise ValidationError(f"{network} cannot be used between machines.")
    return network
