"""A client's half of the protocol, written apart from the server's: its keys, its requests, and answers opened."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from django.test import Client
from nacl.public import Box, PrivateKey, PublicKey

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "connect.json").read_text())
NOW = 1790000000


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def new_wg_key() -> str:
    return b64(bytes(PrivateKey.generate().public_key))


@cache
def rsa_key(pem: str = VECTORS["user_private_key_pkcs8"]) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


@cache
def another_rsa_key() -> rsa.RSAPrivateKey:
    """Of a stranger; short, because only its being another one matters."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class Identity:
    """What a client's profile holds."""

    organization: str
    user: str
    server: str
    token: str
    secret: str
    box_public_key: str
    key: rsa.RSAPrivateKey = field(default_factory=rsa_key)


@dataclass
class ClientRequest:
    """One request as it goes over the wire; change any part before ``send``."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    box_private_key: PrivateKey

    def wire(self, **more: str) -> bytes:
        """As it goes over a connection of its own; ``more`` are further headers."""
        body = b"" if self.method == "GET" else json.dumps(self.body).encode()
        headers = {"Host": "here", "Connection": "close", "Content-Type": "application/json", **self.headers, **more}
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body

    def send(self, client: Client | None = None, **extra: Any) -> Any:
        meta = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in self.headers.items()}
        call = getattr(client or Client(), self.method.lower())
        if self.method == "GET":
            return call(self.path, **meta, **extra)
        return call(self.path, data=json.dumps(self.body), content_type="application/json", **meta, **extra)


def plaintext(**changes: Any) -> dict[str, Any]:
    """What a client says of itself; ``changes`` replace fields, None drops one."""
    fields = {
        "client_ver": "1.3.4466.51",
        "device_hostname": "laptop",
        "device_id": "0b7c9e5f4a8d4e0f9a1b2c3d4e5f6071",
        "device_key": "",
        "device_name": "wandering-heron-4821",
        "mac_addr": "02:00:00:00:00:01",
        "mac_addrs": ["02:00:00:00:00:01"],
        "nonce": "abcdefghijklmnop",
        "password": "",
        "platform": "linux",
        "public_address": "",
        "public_address6": "",
        "sso_token": "",
        "timestamp": NOW,
        "token": "",
        "wg_public_key": new_wg_key(),
    } | changes
    return {name: value for name, value in fields.items() if value is not None}


def sign_headers(identity: Identity, method: str, path: str, body: dict[str, Any], now: int) -> dict[str, str]:
    nonce = secrets.token_hex(16)
    parts = [identity.token, str(now), nonce, method, path]
    if method != "GET":
        parts += [body["data"], body["nonce"], body["public_key"], body["signature"]]
        if body.get("device_signature"):
            parts.append(body["device_signature"])
    digest = hmac.digest(identity.secret.encode(), "&".join(parts).encode(), "sha512")
    return {
        "Auth-Token": identity.token,
        "Auth-Timestamp": str(now),
        "Auth-Nonce": nonce,
        "Auth-Signature": b64(digest),
    }


def make_request(
    identity: Identity,
    fields: dict[str, Any] | bytes | None = None,
    *,
    method: str = "POST",
    kind: str = "wg",
    now: int = NOW,
    box: PrivateKey | None = None,
) -> ClientRequest:
    """A right request at ``now``. ``fields`` is the plaintext (bytes: as they are)."""
    path = f"/key/{kind}/{identity.organization}/{identity.user}/{identity.server}"
    mine = box or PrivateKey.generate()
    nonce = secrets.token_bytes(Box.NONCE_SIZE)
    opened = fields if isinstance(fields, bytes) else json.dumps(fields or plaintext(timestamp=now)).encode()
    theirs = PublicKey(base64.b64decode(identity.box_public_key))
    body = {
        "data": b64(Box(mine, theirs).encrypt(opened, nonce).ciphertext),
        "nonce": b64(nonce),
        "public_key": b64(bytes(mine.public_key)),
    }
    digest = hashlib.sha512("&".join(body.values()).encode()).digest()
    pss = padding.PSS(padding.MGF1(hashes.SHA512()), padding.PSS.MAX_LENGTH)
    body["signature"] = b64(identity.key.sign(digest, pss, utils.Prehashed(hashes.SHA512())))
    body["device_signature"] = ""
    return ClientRequest(method, path, sign_headers(identity, method, path, body, now), body, mine)


def device_signed(identity: Identity, key: ec.EllipticCurvePrivateKey | None = None, **changes: Any) -> ClientRequest:
    """A right request that its device has signed as well. ``changes``: of what the client says of itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    public = b64(key.public_key().public_bytes(*form)).rstrip("=")
    request = make_request(identity, plaintext(device_key=public, **changes))
    text = "&".join(request.body[name] for name in ("data", "nonce", "public_key"))
    message = hashlib.sha512(text.encode()).digest()
    request.body["device_signature"] = b64(key.sign(message, ec.ECDSA(hashes.SHA256()))).rstrip("=")
    signed = (request.method, request.path, request.body, int(request.headers["Auth-Timestamp"]))
    return replace(request, headers=sign_headers(identity, *signed))


def make_sync(identity: Identity, sync_hash: str, *, now: int = NOW) -> ClientRequest:
    path = f"/key/sync/{identity.organization}/{identity.user}/{identity.server}/{sync_hash}"
    return ClientRequest("GET", path, sign_headers(identity, "GET", path, {}, now), {}, PrivateKey.generate())


def open_answer(answer: dict[str, str], identity: Identity, box: PrivateKey) -> dict[str, Any]:
    """Check the HMAC and open the box of a sealed answer, as a client does."""
    signed = f"{answer['data']}&{answer['nonce']}".encode()
    expected = b64(hmac.digest(identity.secret.encode(), signed, "sha512"))
    assert hmac.compare_digest(expected, answer["signature"])
    theirs = PublicKey(base64.b64decode(identity.box_public_key))
    opened = Box(box, theirs).decrypt(base64.b64decode(answer["data"]), base64.b64decode(answer["nonce"]))
    result: dict[str, Any] = json.loads(opened)
    return result
