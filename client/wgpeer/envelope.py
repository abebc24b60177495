"""The three proofs: HMAC, box and signature. Build a request, open a response. Pure: no network, no clock, no files.

A request proves itself by an HMAC-SHA512 (who holds the sync secret), by a NaCl box (only the server can read it) and
by an RSA-PSS signature (who holds the user's private key). TLS is never relied on. The format is that of
docs/PROTOCOL.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey

ALPHANUMERIC = string.ascii_letters + string.digits


class InvalidResponse(Exception):
    """A response that nobody but an attacker or a broken server sends. Treated like no response at all."""


class DeviceKey(Protocol):
    """A P-256 key, wherever it is; ``public_der`` is its public half as SubjectPublicKeyInfo."""

    @property
    def public_der(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes:
        """ECDSA with SHA-256, in ASN.1 DER. Raises ``TpmError``."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a client proves itself with. ``device_key`` (P-256) is None where the profile asks for none. Nothing of this
    is ever shown."""

    sync_token: str = field(repr=False)
    sync_secret: str = field(repr=False)
    rsa_key: rsa.RSAPrivateKey = field(repr=False)
    server_box_key: PublicKey = field(repr=False)
    device_key: DeviceKey | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Ephemeral:
    """What must be new for each request: the box key pair, the 24-byte nonce of the box, and ``auth_nonce``, the 32
    letters and digits of the Auth-Nonce header."""

    box_key: PrivateKey = field(repr=False)
    box_nonce: bytes
    auth_nonce: str

    @classmethod
    def generate(cls) -> Ephemeral:
        """A new one, from the system's random numbers."""
        return cls(PrivateKey.generate(), secrets.token_bytes(24), random_alphanumeric(32))


@dataclass(frozen=True, slots=True)
class SealedRequest:
    """A request ready to be sent. ``box_key`` alone opens its response; it is None for a sync, whose response has no
    box."""

    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    box_key: PrivateKey | None = field(repr=False)


def random_alphanumeric(count: int) -> str:
    """``count`` random ASCII letters and digits."""
    return "".join(secrets.choice(ALPHANUMERIC) for _ in range(count))


def b64(raw: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(raw).decode()


def b64raw(raw: bytes) -> str:
    """Standard base64 without padding."""
    return b64(raw).rstrip("=")


def b64_decode(text: object, size: int | None = None) -> bytes:
    """The bytes of padded base64. Raises ``InvalidResponse``, also when they are not ``size`` bytes, where that is
    given."""
    if not isinstance(text, str):
        raise InvalidResponse("a base64 text is missing")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidResponse("not base64") from error
    if size is not None and len(raw) != size:
        raise InvalidResponse(f"{len(raw)} bytes where {size} belong")
    return raw


def mac(secret: str, message: str) -> str:
    """The HMAC-SHA512 of ``message``, in padded base64."""
    return b64(hmac.digest(secret.encode(), message.encode(), "sha512"))


def verify_mac(secret: str, message: str, signature: object) -> bool:
    """Whether ``signature`` is the HMAC of ``message``, compared in constant time."""
    try:
        return isinstance(signature, str) and hmac.compare_digest(mac(secret, message).encode(), signature.encode())
    except UnicodeEncodeError:  # JSON can carry half a character, which no honest text has
        return False


def body_digest(data: str, nonce: str, public_key: str) -> bytes:
    """The 64-byte digest that the RSA key and the device key sign."""
    return hashlib.sha512(f"{data}&{nonce}&{public_key}".encode()).digest()


def signed_string(headers: Mapping[str, str], method: str, path: str, body: Mapping[str, str] | None = None) -> str:
    """What the HMAC of a request is computed over. ``path`` has no query string; ``body`` is None for a sync."""
    parts = [headers["Auth-Token"], headers["Auth-Timestamp"], headers["Auth-Nonce"], method, path]
    if body is not None:
        parts += [body["data"], body["nonce"], body["public_key"], body["signature"]]
        if body.get("device_signature"):
            parts.append(body["device_signature"])
    return "&".join(parts)


def seal(
    identity: Identity,
    fresh: Ephemeral,
    method: str,
    path: str,
    plaintext: Mapping[str, Any],
    now: int,
    *,
    device: bool,
) -> SealedRequest:
    """Encrypt ``plaintext`` to the server and add all three proofs, and with ``device`` the device's signature too.
    ``now`` is Unix seconds. Raises ``ValueError`` where a device key is needed and there is none."""
    box = Box(fresh.box_key, identity.server_box_key)
    message = json.dumps(plaintext, separators=(",", ":")).encode()
    body = {
        "data": b64(box.encrypt(message, fresh.box_nonce).ciphertext),
        "nonce": b64(fresh.box_nonce),
        "public_key": b64(bytes(fresh.box_key.public_key)),
    }
    digest = body_digest(body["data"], body["nonce"], body["public_key"])
    body["signature"] = b64(sign_digest(identity.rsa_key, digest))
    if device:
        body["device_signature"] = b64raw(sign_device(identity.device_key, digest))
    headers = _headers(identity, fresh.auth_nonce, now)
    headers["Auth-Signature"] = mac(identity.sync_secret, signed_string(headers, method, path, body))
    headers["Content-Type"] = "application/json"
    return SealedRequest(method, path, headers, json.dumps(body).encode(), fresh.box_key)


def sign_sync(identity: Identity, auth_nonce: str, path: str, now: int) -> SealedRequest:
    """A sync request, proven by the HMAC alone. ``path`` has no query string; ``now`` is Unix seconds."""
    headers = _headers(identity, auth_nonce, now)
    headers["Auth-Signature"] = mac(identity.sync_secret, signed_string(headers, "GET", path))
    return SealedRequest("GET", path, headers, b"", None)


def _headers(identity: Identity, auth_nonce: str, now: int) -> dict[str, str]:
    return {"Auth-Token": identity.sync_token, "Auth-Timestamp": str(now), "Auth-Nonce": auth_nonce}


def sign_digest(key: rsa.RSAPrivateKey, digest: bytes) -> bytes:
    """RSA-PSS with SHA-512 over a 64-byte digest that is taken as already hashed; the raw signature."""
    scheme = padding.PSS(mgf=padding.MGF1(hashes.SHA512()), salt_length=padding.PSS.MAX_LENGTH)
    return key.sign(digest, scheme, Prehashed(hashes.SHA512()))


def sign_device(key: DeviceKey | None, digest: bytes) -> bytes:
    """ECDSA P-256 with SHA-256, whose message is the digest itself; in ASN.1 DER. Raises ``ValueError`` without a
    key, ``TpmError`` where its TPM does not sign."""
    if key is None:
        raise ValueError("this profile asks for a device key, and there is none")
    return key.sign(digest)


def device_public(key: DeviceKey | None) -> str:
    """The device's public key as requests carry it: SubjectPublicKeyInfo in DER, base64 without padding. Empty without
    one."""
    return b64raw(key.public_der) if key else ""


def open_response(identity: Identity, box_key: PrivateKey, response: Mapping[str, Any]) -> dict[str, Any]:
    """The plaintext of a sealed response: its HMAC is checked, then its box is opened. Raises ``InvalidResponse``.

    The box is sealed to a key made for this one request, so an old response never opens: no replay.
    """
    data, nonce = response.get("data"), response.get("nonce")
    if not isinstance(data, str) or not isinstance(nonce, str):
        raise InvalidResponse("the response is not sealed")
    if not verify_mac(identity.sync_secret, f"{data}&{nonce}", response.get("signature")):
        raise InvalidResponse("the response's signature is wrong")
    try:
        message = Box(box_key, identity.server_box_key).decrypt(b64_decode(data), b64_decode(nonce, Box.NONCE_SIZE))
    except CryptoError as error:
        raise InvalidResponse("the response's box does not open") from error
    return json_object(message)


def json_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in ``raw``. Raises ``InvalidResponse``."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidResponse("the response is not JSON") from error
    if not isinstance(value, dict):
        raise InvalidResponse("the response is not a JSON object")
    return value
