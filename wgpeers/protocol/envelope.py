"""The envelope of every request and answer: HMAC, clock window, nonce, RSA-PSS, box. The one place for them.

A request proves itself three times, by three keys that a thief would have to steal in three ways: the HMAC secret,
the RSA private key and (through the box) the client's knowledge of this very server. docs/PROTOCOL.md has the
format; tests hold it to vectors made with other libraries.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import redis
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey
from nacl.utils import random as random_bytes

from core.crypto import Secret, decrypt
from core.redis_store import RedisUnavailable, redis_client

from .errors import Refusal

MAX_BODY = 64 * 1024
BODY_FIELDS = ("data", "nonce", "public_key", "signature", "device_signature")
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)
_AUTH_NONCE = re.compile(r"[A-Za-z0-9]{16,64}", re.ASCII)
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA512()), salt_length=padding.PSS.AUTO)
_PREHASHED = utils.Prehashed(hashes.SHA512())
# Far from now in either direction; kept small so that no arithmetic on it can overflow anything.
_LATEST_TIMESTAMP = 10**12


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request of one user to one server must match. ``rsa_public_pem`` is empty while the user's key is
    still being made; nothing verifies then."""

    token: Secret
    secret: Secret
    rsa_public_pem: str
    box_private_key: Secret


@dataclass(frozen=True, slots=True)
class Signed:
    """A request as it arrived, well formed and nothing more. ``body`` has BODY_FIELDS, all empty for GET."""

    method: str
    path: str
    token: str = field(repr=False)
    timestamp: int
    nonce: str
    signature: str
    body: dict[str, str]

    def signed_string(self) -> str:
        parts = [self.token, str(self.timestamp), self.nonce, self.method, self.path]
        if self.method != "GET":
            parts += [self.body[field] for field in BODY_FIELDS[:4]]
            if self.body["device_signature"]:
                parts.append(self.body["device_signature"])
        return "&".join(parts)

    def digest(self) -> bytes:
        """What the RSA and the device key sign: 64 bytes."""
        text = "&".join(self.body[field] for field in BODY_FIELDS[:3])
        return hashlib.sha512(text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Authentic:
    """A request whose token and HMAC fit these credentials. Made by ``authenticate`` alone, so that nothing can be
    opened or sealed that was not authenticated, and nothing is authenticated twice."""

    request: Signed
    credentials: Credentials


@dataclass(frozen=True, slots=True)
class Plaintext:
    """What was in the box, each field of its right type. ``repr`` would show secrets, so there is none of them."""

    fields: dict[str, Any]
    timestamp: int

    def text(self, name: str) -> str:
        return str(self.fields.get(name) or "")

    def __repr__(self) -> str:
        return f"Plaintext(timestamp={self.timestamp})"


# What a stranger's request is checked against: as costly as the real thing, and nothing fits it.
@lru_cache(maxsize=1)
def nobody() -> Credentials:
    box = Secret.of(base64.b64encode(bytes(PrivateKey.generate())).decode())
    return Credentials(Secret.of(random_bytes(24).hex()), Secret.of(random_bytes(24).hex()), "", box)


# Parsed forms of what is in the database, by ciphertext, so that they are never stale. They hold secrets in memory,
# as this process does anyway with FIELD_KEYS; a ping would spend half its time on these without them.
_reveal = lru_cache(maxsize=16384)(decrypt)


@lru_cache(maxsize=16384)
def _rsa_key(pem: str) -> rsa.RSAPublicKey:
    key = serialization.load_pem_public_key(pem.encode())
    if not isinstance(key, rsa.RSAPublicKey):
        raise TypeError("not an RSA public key")
    return key


@lru_cache(maxsize=1024)
def _box_key(stored: str) -> PrivateKey:
    return PrivateKey(base64.b64decode(decrypt(stored)))


def parse(method: str, path: str, headers: dict[str, str], body: bytes) -> Signed:
    """Read the four ``Auth-*`` headers (``headers`` has them by lower-case name without ``auth-``) and the body.

    Raise ``Refusal`` malformed or too_large; it looks at nothing but form.
    """
    if not all(headers.get(name, "") and headers[name].isascii() for name in ("token", "signature")):
        raise Refusal("unauthorized", "not authorized")
    if not _TIMESTAMP.fullmatch(headers.get("timestamp", "")):
        raise Refusal("malformed", "Auth-Timestamp must be Unix seconds")
    if not _AUTH_NONCE.fullmatch(headers.get("nonce", "")):
        raise Refusal("malformed", "Auth-Nonce must be letters and digits")
    fields = dict.fromkeys(BODY_FIELDS, "") if method == "GET" else _body(body)
    # The decimal text itself is signed: leading zeros would be another text, so they are refused.
    timestamp = int(headers["timestamp"])
    if str(timestamp) != headers["timestamp"]:
        raise Refusal("malformed", "Auth-Timestamp must be Unix seconds")
    return Signed(method, path, headers["token"], timestamp, headers["nonce"], headers["signature"], fields)


def _body(body: bytes) -> dict[str, str]:
    if len(body) > MAX_BODY:
        raise Refusal("too_large", f"the body is limited to {MAX_BODY} bytes")
    data = _json_object(body, "the body")
    fields = {}
    for name in BODY_FIELDS:
        value = data.get(name)
        if value is None and name == "device_signature":
            value = ""
        if not isinstance(value, str) or not value.isascii():
            raise Refusal("malformed", f"{name} must be text")
        fields[name] = value
    return fields


def _json_object(text: bytes, what: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise Refusal("malformed", f"{what} is not JSON") from None
    if not isinstance(data, dict):
        raise Refusal("malformed", f"{what} is not a JSON object")
    return data


def authenticate(request: Signed, credentials: Credentials) -> Authentic:
    """The first of all proofs. Until it holds, nothing may tell a stranger whether the account exists. Raise
    ``Refusal`` unauthorized."""
    check_hmac(request, credentials)
    return Authentic(request, credentials)


def check_hmac(request: Signed, credentials: Credentials) -> None:
    """Token and HMAC."""
    expected = hmac.digest(_reveal(credentials.secret.stored).encode(), request.signed_string().encode(), "sha512")
    token_fits = hmac.compare_digest(_reveal(credentials.token.stored).encode(), request.token.encode())
    hmac_fits = hmac.compare_digest(base64.b64encode(expected), request.signature.encode())
    if not (token_fits and hmac_fits):
        raise Refusal("unauthorized", "not authorized")


def check_clock(timestamp: int, now: float, window: int) -> None:
    behind = int(now) - timestamp
    if abs(behind) > window:
        word = "behind" if behind > 0 else "ahead"
        raise Refusal("clock", f"the client's clock is {abs(behind)} s {word}; {window} s is the most")


def check_nonce(request: Signed, window: int) -> None:
    """Remember the nonce for longer than any timestamp with it can be in the window (which reaches both ways)."""
    key = hashlib.sha256(f"{request.token}&{request.nonce}".encode()).hexdigest()
    try:
        fresh = redis_client().set(f"nonce:{key}", 1, nx=True, ex=2 * window + 60)
    except redis.RedisError as error:
        raise RedisUnavailable from error
    if not fresh:
        raise Refusal("replayed", "this nonce was used before")


def check_rsa(request: Signed, credentials: Credentials) -> None:
    if not credentials.rsa_public_pem:
        raise Refusal("unauthorized", "not authorized")
    signature = _base64(request.body["signature"], "signature")
    try:
        _rsa_key(credentials.rsa_public_pem).verify(signature, request.digest(), _PSS, _PREHASHED)
    except InvalidSignature:
        raise Refusal("unauthorized", "not authorized") from None


def open_box(authentic: Authentic) -> Plaintext:
    """Open the box and read the plaintext. A box that does not open is as wrong as a bad signature (401)."""
    body = authentic.request.body
    nonce = _base64(body["nonce"], "nonce", Box.NONCE_SIZE)
    sealed = _base64(body["data"], "data")
    try:
        opened = _box(authentic).decrypt(sealed, nonce)
    except (CryptoError, ValueError):
        raise Refusal("unauthorized", "not authorized") from None
    return _plaintext(opened)


def _box(authentic: Authentic) -> Box:
    return _agreed(authentic.credentials.box_private_key.stored, authentic.request.body["public_key"])


# A request is opened and its answer sealed with one key agreement; kept no longer than until a few others came.
@lru_cache(maxsize=64)
def _agreed(box_private_key: str, their_public_key: str) -> Box:
    theirs = PublicKey(_base64(their_public_key, "public_key", PublicKey.SIZE))
    try:
        return Box(_box_key(box_private_key), theirs)
    except CryptoError:  # a point of low order: whoever sends it could read the box without any key
        raise Refusal("unauthorized", "not authorized") from None


# Limits in characters; what is not listed here is not looked at.
TEXT_FIELDS = {
    "device_id": 64,
    "device_name": 128,
    "device_hostname": 255,
    "device_key": 256,
    "platform": 16,
    "client_ver": 64,
    "mac_addr": 64,
    "token": 64,
    "nonce": 64,
    "password": 256,
    "wg_public_key": 64,
    "public_address": 64,
    "public_address6": 64,
    "sso_token": 128,
    "renews": 64,
}

# Only ever shown to people: what cannot be printed is left out, since a machine's name is no reason to refuse it.
SHOWN_FIELDS = {"device_name", "device_hostname", "client_ver"}


def _plaintext(opened: bytes) -> Plaintext:
    data = _json_object(opened, "the plaintext")
    fields = {}
    for name, longest in TEXT_FIELDS.items():
        value = data.get(name)
        value = "" if value is None else value
        if name in SHOWN_FIELDS and isinstance(value, str):
            value = "".join(filter(str.isprintable, value))[:longest]
        if not isinstance(value, str) or len(value) > longest or not value.isprintable():
            raise Refusal("malformed", f"{name} must be text of at most {longest} printable characters")
        fields[name] = value
    timestamp = data.get("timestamp")
    if not isinstance(timestamp, int) or isinstance(timestamp, bool) or not 0 <= timestamp < _LATEST_TIMESTAMP:
        raise Refusal("malformed", "timestamp must be Unix seconds")
    if not fields["device_id"] or not fields["wg_public_key"]:
        raise Refusal("malformed", "device_id and wg_public_key are needed")
    return Plaintext(fields, timestamp)


def check_device(request: Signed, plaintext: Plaintext) -> None:
    """Where the client signed with its device key, the signature must fit the key that it names."""
    if not request.body["device_signature"]:
        return
    try:
        key = serialization.load_der_public_key(_raw_base64(plaintext.text("device_key"), "device_key"))
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise Refusal("malformed", "device_key must be a P-256 public key")
        signature = _raw_base64(request.body["device_signature"], "device_signature")
        key.verify(signature, request.digest(), ec.ECDSA(hashes.SHA256()))
    except (ValueError, UnsupportedAlgorithm):
        raise Refusal("malformed", "device_key must be a P-256 public key") from None
    except InvalidSignature:
        raise Refusal("unauthorized", "not authorized") from None


def device_of(request: Signed, plaintext: Plaintext) -> str:
    """Of a request that ``open_request`` has proven: hex SHA-256 of the device key that signed it (its DER), empty
    where none has. A key that is only named proves nothing."""
    if not request.body["device_signature"]:
        return ""
    return hashlib.sha256(_raw_base64(plaintext.text("device_key"), "device_key")).hexdigest()


def open_request(authentic: Authentic, now: float, window: int, *, remember_nonce: bool = True) -> Plaintext:
    """All further proofs of a POST or PUT, cheap before costly; see "Order of checks" in docs/PROTOCOL.md.

    ``remember_nonce`` False is for pings, which protect themselves by their growing timestamps, and for a request that
    another process of ours has opened and handed over.
    """
    request = authentic.request
    check_clock(request.timestamp, now, window)
    if remember_nonce:
        check_nonce(request, window)
    check_rsa(request, authentic.credentials)
    plaintext = open_box(authentic)
    # Neither the RSA signature nor the box covers the headers: without this, whoever holds only sync_secret could
    # wrap an old box anew.
    check_clock(plaintext.timestamp, now, window)
    check_device(request, plaintext)
    return plaintext


def check_get(authentic: Authentic, now: float, window: int) -> None:
    """The further proofs of a GET, which has no body to sign or to seal."""
    check_clock(authentic.request.timestamp, now, window)
    check_nonce(authentic.request, window)


def seal(answer: dict[str, Any], authentic: Authentic) -> dict[str, str]:
    """``answer`` in a box for the key pair of this request, under our HMAC."""
    nonce = random_bytes(Box.NONCE_SIZE)
    sealed = _box(authentic).encrypt(json.dumps(answer).encode(), nonce).ciphertext
    data, nonce_text = base64.b64encode(sealed).decode(), base64.b64encode(nonce).decode()
    return {"data": data, "nonce": nonce_text, "signature": sign(f"{data}&{nonce_text}", authentic.credentials)}


def sign(text: str, credentials: Credentials) -> str:
    """b64 of HMAC-SHA512(sync_secret, text)."""
    return base64.b64encode(hmac.digest(_reveal(credentials.secret.stored).encode(), text.encode(), "sha512")).decode()


def _base64(text: str, what: str, length: int | None = None) -> bytes:
    """Standard base64 with padding, and no other spelling of the same bytes."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal("malformed", f"{what} is not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise Refusal("malformed", f"{what} is not base64")
    if length is not None and len(raw) != length:
        raise Refusal("malformed", f"{what} must be {length} bytes")
    return raw


def _raw_base64(text: str, what: str) -> bytes:
    return _base64(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), what)


def wireguard_key(text: str) -> bytes:
    """The 32 bytes of a WireGuard public key; ``Refusal`` invalid_key for anything that cannot be one."""
    try:
        raw = _base64(text, "wg_public_key", 32)
    except Refusal as refusal:
        raise Refusal("invalid_key", refusal.detail) from None
    # Another spelling of the same point would be a second life for a spent key, and a point of low order has no
    # secret behind it.
    if raw[31] & 0x80 or int.from_bytes(raw, "little") >= 2**255 - 19 or _low_order(raw):
        raise Refusal("invalid_key", "wg_public_key is not a usable key")
    return raw


def _low_order(raw: bytes) -> bool:
    try:
        Box(_probe(), PublicKey(raw))
    except CryptoError:
        return True
    return False


@lru_cache(maxsize=1)
def _probe() -> PrivateKey:
    return PrivateKey.generate()
