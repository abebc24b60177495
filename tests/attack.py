"""An attacker's tools: requests put together again with whatever keys are in hand, and a look at whether anything
has changed on the server."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, utils
from django.apps import apps
from nacl.public import PrivateKey

from core.redis_store import redis_client
from servers.models import Server
from users.models import VpnUser
from wgpeers.lifecycle.keepalive import keepalive
from wgpeers.models import Decision

from .factories import Company, HostStandIn
from .protocol_client import (
    NOW,
    ClientRequest,
    Identity,
    another_rsa_key,
    b64,
    make_request,
    open_answer,
    plaintext,
    sign_headers,
)

# What a refused request may change: nonces, attempt budgets, views; a decision is the log.
MAY_CHANGE = ("counts:", "nonce:", "attempts:", "views:")


def snapshot() -> dict[str, Any]:
    """Every row of our tables but decisions, and every key of Redis that a refusal must leave alone."""
    keepalive.write()
    models = [
        model for app in ("core", "users", "servers", "wgpeers") for model in apps.get_app_config(app).get_models()
    ]
    models += [model for model in apps.get_models(include_auto_created=True) if model._meta.auto_created]
    tables = {
        model._meta.db_table: list(model._default_manager.order_by("pk").values())
        for model in models
        if model is not Decision
    }
    keys = [key for key in redis_client().scan_iter() if not key.startswith(MAY_CHANGE)]
    return tables | {f"redis {key}": _value(key) for key in keys}


def _value(key: str) -> Any:
    redis = redis_client()
    kind = redis.type(key)
    if kind == "list":
        return redis.lrange(key, 0, -1)
    if kind == "set":
        return redis.smembers(key)
    if kind == "hash":
        return redis.hgetall(key)
    if kind == "zset":
        return redis.zrange(key, 0, -1, withscores=True)
    return redis.get(key)


@contextlib.contextmanager
def unchanged(host: HostStandIn | None = None) -> Iterator[None]:
    """Nothing may change within, and no message may go to ``host``."""
    before, messages = snapshot(), list(host.messages) if host else []
    yield
    after = snapshot()
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert not changed, changed
    assert host is None or host.messages == messages


def resign(identity: Identity, request: ClientRequest, now: int = NOW) -> ClientRequest:
    """A new HMAC over the request as it is now: what a holder of ``sync_secret`` can do."""
    body = {name: value if isinstance(value, str) else "" for name, value in request.body.items()}
    body = dict.fromkeys(("data", "nonce", "public_key", "signature"), "") | body
    headers = sign_headers(identity, request.method, request.path, body, now)
    return dataclasses.replace(request, headers=headers, body=dict(request.body))


def resign_rsa(identity: Identity, request: ClientRequest, now: int = NOW) -> ClientRequest:
    """A new RSA signature and HMAC over the request as it is now; the box stays what it was."""
    text = "&".join(str(request.body.get(name, "")) for name in ("data", "nonce", "public_key"))
    pss = padding.PSS(padding.MGF1(hashes.SHA512()), padding.PSS.MAX_LENGTH)
    digest = hashlib.sha512(text.encode()).digest()
    request.body["signature"] = b64(identity.key.sign(digest, pss, utils.Prehashed(hashes.SHA512())))
    return resign(identity, request, now)


def flip(text: str) -> str:
    """The same base64 but for one bit of what it stands for."""
    raw = bytearray(base64.b64decode(text + "=" * (-len(text) % 4)))
    raw[len(raw) // 2] ^= 1
    flipped = b64(bytes(raw))
    return flipped if text.endswith("=") or len(text) % 4 == 0 else flipped.rstrip("=")


def turn(text: str) -> str:
    """The same text but for one character, a letter or digit as well."""
    return ("a" if text[0] != "a" else "b") + text[1:]


def hire_with_own_key(company: Company, name: str) -> tuple[VpnUser, Identity]:
    """A user whose RSA key is not the one that ``Company.hire`` gives to everybody."""
    key = another_rsa_key()
    user, identity = company.hire(name)
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    VpnUser.objects.filter(pk=user.pk).update(public_key=key.public_key().public_bytes(encoding, form).decode())
    return user, dataclasses.replace(identity, key=key)


def second_server(company: Company) -> Server:
    """Another server of the same company on the same host, which its users may use too."""
    server = Server.objects.create(
        name="Lab", network="10.18.0.0/24", wg_network="10.19.0.0/24", started=True, port=51821
    )
    server.organizations.add(company.organization)
    server.attachments.create(host=company.host, public_key=b64(bytes(PrivateKey.generate().public_key)))
    return server


def at_server(identity: Identity, server: Server) -> Identity:
    return dataclasses.replace(identity, server=server.public_id, box_public_key=server.box_public_key)


def connect(identity: Identity, *, now: int = NOW, **fields: Any) -> tuple[ClientRequest, dict[str, Any]]:
    """Connect with a right request and return it with the opened answer."""
    request = make_request(identity, plaintext(timestamp=now, **fields), now=now)
    response = request.send()
    assert response.status_code == 200, response.content
    return request, open_answer(response.json(), identity, request.box_private_key)


def ping(identity: Identity, key: str, *, now: int = NOW, sent: int | None = None, **extra: Any) -> Any:
    """The response to a right ping with ``key``; ``sent``: its plaintext timestamp, where that is not ``now``."""
    fields = plaintext(wg_public_key=key, timestamp=now if sent is None else sent)
    return make_request(identity, fields, method="PUT", now=now).send(**extra)


def pinged(identity: Identity, key: str, *, now: int = NOW, sent: int | None = None) -> bool:
    """What a right ping with ``key`` is told."""
    fields = plaintext(wg_public_key=key, timestamp=now if sent is None else sent)
    request = make_request(identity, fields, method="PUT", now=now)
    response = request.send()
    assert response.status_code == 200, response.content
    answer = open_answer(response.json(), identity, request.box_private_key)
    assert answer["timestamp"] == now
    return bool(answer["status"])
