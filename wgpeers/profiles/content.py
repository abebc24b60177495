"""The profile: what a client downloads once and keeps in step afterwards. docs/PROTOCOL.md has the format."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from django.conf import settings
from django.db import transaction

from core import clock
from core.crypto import keyed_hash
from servers.models import Host, Server, ServerHost
from servers.policy import policy_of
from users.factors.wanted import profile_flags
from users.models import VpnUser
from wgpeers.models import ProfileRevision
from wgpeers.protocol.errors import Refusal

_NOT_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9.@_-]+")
# Parsed by clients that can do OpenVPN as well; none of it opens an OpenVPN here.
_OPENVPN_LINES = (
    "client",
    "dev tun",
    "dev-type tun",
    "nobind",
    "persist-tun",
    "cipher AES-256-GCM",
    "auth SHA256",
    "verb 4",
    "ping 10",
    "ping-restart 60",
    "remote-cert-tls server",
)


def ascii_name(name: str) -> str:
    """``name`` with everything replaced that a file name or a header cannot carry; neither hidden nor an option."""
    return _NOT_IN_FILE_NAMES.sub("-", name).strip(".-") or "vpn"


def file_name(user: VpnUser, server: Server) -> str:
    """``ORG_USER_SERVER.ovpn``, safe on every file system."""
    names = (user.organization.name, user.name, server.name)
    return "_".join(ascii_name(name) for name in names) + ".ovpn"


def full(user: VpnUser, server: Server) -> str:
    """The whole profile with the user's keys, for a new device: each has a device id of its own."""
    if not user.key_ready:
        raise Refusal("key_not_ready", "this user's key is still being made; try again in a few seconds", 3)
    header, sync_hash, revision = _header(user, server)
    header |= {"sync_hash": sync_hash, "revision": revision}
    header |= {"sync_token": user.sync_token.reveal(), "sync_secret": user.sync_secret.reveal()}
    device = secrets.token_hex(16)
    return _text(header, device, _device_name(device), user, key=user.private_key.reveal())


def synced(user: VpnUser, server: Server) -> tuple[str, str]:
    """(sync hash, profile text without any private key), for a client that has the profile already.

    The request does not say which device asks, so the device id here is the user's own; a client that has one from
    its full download keeps that.
    """
    header, sync_hash, revision = _header(user, server)
    device = keyed_hash("device id of a synced profile", user.public_id, server.public_id)[:32]
    text = _text(header | {"sync_hash": sync_hash, "revision": revision}, device, _device_name(device), user, key=None)
    return sync_hash, text


def _header(user: VpnUser, server: Server) -> tuple[dict[str, Any], str, int]:
    """What a change must bring to clients, its hash, and the number of that change."""
    header = _content(user, server)
    content = [header, _remotes(), user.organization.ca_certificate, user.certificate]
    sync_hash = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
    return header, sync_hash, _revision(user, server, sync_hash)


def _content(user: VpnUser, server: Server) -> dict[str, Any]:
    policy = policy_of(server)
    factors = profile_flags(user, policy, clock.now())
    return {
        "version": 2,
        "user": user.name,
        "organization": user.organization.name,
        "server": server.name,
        "user_id": user.public_id,
        "organization_id": user.organization.public_id,
        "server_id": server.public_id,
        "wg": server.wireguard,
        "hide_ovpn": True,
        "last_mode": "wg",
        "server_public_key": _old_public_key(user),
        "server_box_public_key": server.box_public_key,
        "sync_hosts": settings.API_URLS,
        "password_mode": factors.password_mode,
        "token": bool(factors.password_mode and server.factor_token_ttl),
        "token_ttl": server.factor_token_ttl,
        "push_auth": factors.push_auth,
        "push_auth_ttl": factors.push_auth_ttl,
        "sso_auth": factors.sso_auth,
        "device_auth": factors.device_auth,
        "dynamic_firewall": False,
        "force_connect": False,
        "restrict_client": False,
        "disable_reconnect": False,
        "force_dns": False,
        "disable_gateway": False,
        "disable_dns": False,
        "geo_sort": None,
        "pre_connect_msg": server.pre_connect_message,
        "remotes_data": _remotes_data(server),
        "hosts": _hosts(server),
    }


def _remotes_data(server: Server) -> dict[str, dict[str, int]]:
    """By name or address of the API: where that is one of the server's hosts, the priority which that has there."""
    priorities: dict[str, int] = {}
    for each in ServerHost.objects.filter(server=server, host__enabled=True).select_related("host"):
        for address in (each.host.public_address, each.host.public_address6):
            priorities[address.lower()] = min(each.priority, priorities.get(address.lower(), each.priority))
    return {remote: {"priority": priorities.get(remote.lower(), 1)} for remote in _remotes()}


def _hosts(server: Server) -> list[list[object]]:
    """Ours, ignored by others: hosts that come, go, or change address or port change the hash by it."""
    attached = Host.objects.filter(attachments__server=server, enabled=True).order_by("public_id")
    return [[host.public_address, host.public_address6, server.port] for host in attached]


def _old_public_key(user: VpnUser) -> list[str]:
    """Lines of an RSA public key, which older clients want to find; nothing is sealed for it."""
    if not user.organization.ca_certificate:
        return []
    public = x509.load_pem_x509_certificate(user.organization.ca_certificate.encode()).public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem.decode().splitlines()


def _remotes() -> list[str]:
    """Host names or addresses of the API, which clients use with port 443 where sync_hosts failed."""
    return list(dict.fromkeys(urlsplit(url).hostname or "" for url in settings.API_URLS))


def _revision(user: VpnUser, server: Server, sync_hash: str) -> int:
    # Most syncs find nothing changed and are only read: a transaction would take SQLite's one write lock.
    known = ProfileRevision.objects.filter(user=user, server=server, sync_hash=sync_hash).first()
    if known is not None:
        return known.revision
    # From the time on: a number that only counted changes would go back with a database that is restored from a backup,
    # and clients, which take no revision below their own, would take nothing until it had caught up.
    now = int(clock.now())
    with transaction.atomic():
        row, _ = ProfileRevision.objects.select_for_update().get_or_create(
            user=user, server=server, defaults={"sync_hash": sync_hash, "revision": now}
        )
        if row.sync_hash != sync_hash:
            row.sync_hash, row.revision = sync_hash, max(row.revision + 1, now)
            row.save(update_fields=["sync_hash", "revision"])
    return row.revision


def _device_name(device: str) -> str:
    return f"device-{device[:8]}"


def _text(header: dict[str, Any], device: str, device_name: str, user: VpnUser, key: str | None) -> str:
    # Three steps: the JSON header, the OpenVPN-style lines, the PEM blocks.
    lines = ["#{", *(f"#{line}" for line in json.dumps(header, indent=2).splitlines()[1:-1]), "#}"]
    lines += [f"setenv UV_ID {device}", f"setenv UV_NAME {device_name}", *_OPENVPN_LINES]
    lines += [_remote_line(host) for host in _remotes()]
    blocks = {"ca": user.organization.ca_certificate, "cert": user.certificate, "key": key}
    for tag, pem in blocks.items():
        if pem:
            lines += [f"<{tag}>", pem.strip(), f"</{tag}>"]
    return "\n".join(lines) + "\n"


def _remote_line(host: str) -> str:
    # Always four words, or clients skip the line.
    return f"remote {host} 443 {'tcp6-client' if ':' in host else 'tcp-client'}"
