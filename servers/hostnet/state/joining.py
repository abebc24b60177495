"""How a machine and the control side know each other when it joins: the token, and boxes for a request and its answer.

A token is a secret, by which the control side knows the machine, and the control side's public key, by which the
machine knows that side: TLS certificates are self-signed often, and whoever is between the two must neither learn
anything nor say anything in the other's name. The request is sealed to that key by a key made for it alone; only who
has the private half of either can make the answer, or read it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey

PREFIX = "join1-"  # the format of tokens, and of what they are used for
SECRET_BYTES, KEY_BYTES = 24, 32
# Bytes of a request, and of an answer: some hundred machines may be in it.
LONGEST_REQUEST, LONGEST_ANSWER = 32 * 1024, 512 * 1024
PATH = "/host/join"


class JoinError(Exception):
    """A token, a request or an answer that is not what it should be, in words that quote none of it."""


@dataclass(frozen=True, slots=True)
class Token:
    secret: bytes = field(repr=False)
    control_key: bytes

    @classmethod
    def make(cls, control_key: bytes) -> Self:
        return cls(secrets.token_bytes(SECRET_BYTES), control_key)

    @property
    def text(self) -> str:
        return PREFIX + base64.urlsafe_b64encode(self.secret + self.control_key).decode().rstrip("=")

    @property
    def sent(self) -> str:
        """What a request says of it: the secret alone."""
        return self.secret.hex()

    @property
    def hash(self) -> str:
        """By which the control side finds it. It is random and long: nobody guesses it by trying."""
        return hash_of(self.sent)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise ``JoinError`` for what is no token."""
        head, _, rest = text.strip().partition(PREFIX)
        try:
            raw = base64.b64decode(rest + "=" * (-len(rest) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            raw = b""
        if head or len(raw) != SECRET_BYTES + KEY_BYTES:
            raise JoinError("This is not a token, or not all of it: copy it anew from the host's page.")
        return cls(raw[:SECRET_BYTES], raw[SECRET_BYTES:])


def hash_of(sent: str) -> str:
    return hashlib.sha256(f"join token {sent}".encode()).hexdigest()


def sealed(box: Box, message: Mapping[str, Any]) -> str:
    return base64.b64encode(box.encrypt(json.dumps(message).encode())).decode()


def opened(box: Box, text: object) -> dict[str, Any]:
    """Raise ``JoinError`` where it was not sealed by the other side of this very box."""
    try:
        data = json.loads(box.decrypt(base64.b64decode(str(text), validate=True)))
    except (ValueError, CryptoError, RecursionError):
        raise JoinError("it was not sealed by the other side") from None
    if not isinstance(data, dict):
        raise JoinError("it is no object")
    return data


class Request:
    """The machine's side of one request."""

    def __init__(self, control_key: bytes) -> None:
        """Raise ``JoinError`` where the key is none that anything can be sealed to."""
        self._private = PrivateKey.generate()
        try:
            self._box = Box(self._private, PublicKey(control_key))
        except CryptoError:
            raise JoinError("the key in the token is none") from None

    def body(self, message: Mapping[str, Any]) -> bytes:
        key = base64.b64encode(bytes(self._private.public_key)).decode()
        return json.dumps({"key": key, "box": sealed(self._box, message)}).encode()

    def answer(self, body: bytes) -> dict[str, Any]:
        """Raise ``JoinError`` where the control side did not make it."""
        try:
            return opened(self._box, json.loads(body)["box"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise JoinError("it is no answer to a request to join") from None


def box_of(body: bytes, private: bytes) -> tuple[Box, dict[str, Any]]:
    """The control side's part: the box in which to answer, and the message. Raise ``JoinError``."""
    try:
        data = json.loads(body)
        key = base64.b64decode(str(data["key"]), validate=True)
        box = Box(PrivateKey(private), PublicKey(key))
        return box, opened(box, data["box"])
    except (ValueError, KeyError, TypeError, CryptoError, RecursionError):
        raise JoinError("it is no request to join") from None


def public_half(private: bytes) -> bytes:
    return bytes(PrivateKey(private).public_key)


def new_private() -> bytes:
    return bytes(PrivateKey.generate())
