"""Machines that join: tokens for them, and what their requests are answered."""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from core import clock

from . import control_joining, mesh, redis_access
from .control_joining import JoinRefused, use_up
from .hostnet.state import mesh_to_json
from .hostnet.state.joining import JoinError, Token, box_of, hash_of, public_half, sealed
from .models import Host, JoinToken, MeshNode

GOOD_FOR = timedelta(minutes=15)
MOST_NETWORKS = 4096  # and addresses
# Many places have networks of these.
LOCAL = [
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def make_token(host: Host, now: float, *, control: bool = False) -> Token:
    """A new token for ``host``; one that was made before is worth nothing from now on. It is kept nowhere. ``control``:
    its machine becomes a control node, and gets every secret of the installation."""
    token = Token.make(public_half(mesh.join_private(mesh.the_mesh())))
    fields = {"hash": token.hash, "expires": clock.moment(now) + GOOD_FOR, "used": None, "control": control}
    JoinToken.objects.update_or_create(host=host, defaults=fields)
    return token


def answer(body: bytes, now: float) -> tuple[int, dict[str, Any]]:
    """HTTP status and JSON for a request. What is said to who has the right key is sealed, refusals included. Raise
    ``RedisUnavailable``, with nothing changed."""
    try:
        box, message = box_of(body, mesh.join_private(mesh.the_mesh()))
    except JoinError:
        words = "This is not the installation that made the token, or the request was changed on its way."
        return 400, {"error": "malformed", "detail": words}
    try:
        said, status = _act(message, now), 200
    except JoinRefused as refusal:
        said, status = {"error": refusal.code, "detail": str(refusal)}, 403
    return status, {"box": sealed(box, said)}


def _act(message: dict[str, Any], now: float) -> dict[str, Any]:
    token = _token(message, now)
    _is_asked_by_its_command(token, message)
    if token.control:
        control_joining.check(token.host, message)
    else:
        _can_be_joined()
    _is_no_other(token.host, message)
    _fits(message)
    if message.get("action") == "check":
        row = mesh.the_mesh()
        return {"host": token.host.name, "network": row.network, "port": row.port}
    if message.get("action") == "join":
        return control_joining.join(token, now) if token.control else _join(token, message, now)
    raise JoinRefused("malformed", "This version of the control side does not know what is asked of it.")


def _token(message: dict[str, Any], now: float) -> JoinToken:
    """The token of the request, if it is good."""
    found = JoinToken.objects.filter(hash=hash_of(str(message.get("token")))).select_related("host").first()
    if found is None:
        raise JoinRefused(
            "unknown_token", "Nobody here knows this token: a newer one was made, or the host was removed."
        )
    if found.used is not None:
        raise JoinRefused("used_token", f"This token of {found.host} has been used. Make a new one on its page.")
    if found.expires <= clock.moment(now):
        raise JoinRefused("expired_token", f"This token of {found.host} has expired. Make a new one on its page.")
    return found


def _is_asked_by_its_command(token: JoinToken, message: dict[str, Any]) -> None:
    if token.control == (message.get("as") == "control"):
        return
    right = "sudo bin/run --join" if token.control else "bin/host join"
    raise JoinRefused("other_command", f"This token of {token.host} is for another command: {right} ADDRESS TOKEN.")


def _can_be_joined() -> None:
    if words := redis_access.obstacle():
        raise JoinRefused("foreign_redis", words)
    if not MeshNode.objects.filter(control=True).exclude(public_key="").exists():
        words = "The control side's own machine has no key in the mesh yet: its host worker has to run first."
        raise JoinRefused("no_control_node", words)


def _is_no_other(host: Host, message: dict[str, Any]) -> None:
    """Whether the machine, whose addresses the message says, is not that of another host: the command may have been
    typed on the wrong one."""
    mine = {address for text in _listed(message.get("addresses")) if (address := _address(text)) is not None}
    own = [address for text in (host.public_address, host.public_address6) if (address := _address(text)) is not None]
    # Behind NAT, a network of its own may have the addresses of another one.
    elsewhere = not any(_is_local(address) or address in mine for address in own)
    for other in Host.objects.exclude(pk=host.pk).order_by("pk"):
        for address in map(_address, (other.public_address, other.public_address6)):
            if address in mine and not (elsewhere and _is_local(address)):
                words = f"This machine has the address {address}, which is that of host {other}: run the command on"
                raise JoinRefused(
                    "other_host", f"{words} the machine of {host}, or correct the address on one of their pages."
                )


def _listed(said: object) -> list[str]:
    return [str(each) for each in said[:MOST_NETWORKS]] if isinstance(said, list) else []


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:  # a name, or none
        return None


def _is_local(address: Address | None) -> bool:
    return any(address in network for network in LOCAL if address is not None and address.version == network.version)


def _fits(message: dict[str, Any]) -> None:
    """Whether the mesh has a place on the machine, whose networks the message says."""
    network = mesh.the_mesh().network
    if other := mesh.overlapping(network, _listed(message.get("networks"))):
        words = f"The mesh's network {network} overlaps {other}, which this machine has: change one of them."
        raise JoinRefused("network_in_use", f"{words} The mesh's is changed in the admin, below Mesh.")


def _join(token: JoinToken, message: dict[str, Any], now: float) -> dict[str, Any]:
    key = message.get("public_key")
    if not isinstance(key, str) or not mesh.is_key(key):
        raise JoinRefused("malformed", "The machine's public key is none.")
    password = secrets.token_urlsafe(32)
    password_hash = hashlib.sha256(password.encode()).hexdigest()
    host = token.host
    try:
        with transaction.atomic():
            use_up(token, now)
            _save_node(host, key, password_hash, now)
            # Within the transaction: without its user the machine would have joined nothing.
            redis_access.let_in(host.public_id, password_hash)
    except redis_access.Refuses as refusal:
        raise JoinRefused("foreign_redis", str(refusal)) from None
    except IntegrityError:
        raise JoinRefused(
            "key_in_use", "Another machine of the mesh has this one's key: was its disk copied?"
        ) from None
    desired = mesh.mesh_of(host)
    return {
        "id": host.public_id,
        "name": host.name,
        "redis": redis_access.address_for_hosts(),
        "redis_user": redis_access.user_of(host.public_id),
        "redis_password": password,
        "web_port": settings.GATEWAY_PORT,
        "mesh": mesh_to_json(desired) if desired is not None else None,
    }


def _save_node(host: Host, key: str, password_hash: str, now: float) -> None:
    """Who joins again keeps its address."""
    node = MeshNode.objects.filter(host=host).first()
    if node is None:
        try:
            node = MeshNode(host=host, host_part=mesh.free_host_part(mesh.the_mesh()))
        except mesh.Full:
            raise JoinRefused("mesh_full", "The mesh's network has no address left: give it a larger one.") from None
    elif node.control:
        raise JoinRefused("control_node", f"{host} is the control side's own machine, which joins by itself.")
    node.public_key, node.redis_hash, node.joined = key, password_hash, clock.moment(now)
    node.save()
