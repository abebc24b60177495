"""Encryption of secrets at rest, and keyed hashes of secrets that are only ever compared.

The keys come from ``settings.FIELD_KEYS`` (not from the database), newest first. Every secret is encrypted with
the newest; all of them can decrypt. ``manage.py rotate_keys`` encrypts everything anew.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db import models

LETTERS_AND_DIGITS = string.ascii_letters + string.digits


class CannotDecrypt(Exception):
    """A stored secret was encrypted with a key that is no longer in FIELD_KEYS."""


def random_text(length: int) -> str:
    """Unguessable letters and digits; 32 of them carry 190 bits."""
    return "".join(secrets.choice(LETTERS_AND_DIGITS) for _ in range(length))


@lru_cache(maxsize=4)
def _fernet(keys: tuple[bytes, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])


def encrypt(secret: str) -> str:
    return _fernet(tuple(settings.FIELD_KEYS)).encrypt(secret.encode()).decode()


def decrypt(stored: str) -> str:
    try:
        return _fernet(tuple(settings.FIELD_KEYS)).decrypt(stored.encode()).decode()
    except InvalidToken:
        raise CannotDecrypt("A stored secret does not open with any of FIELD_KEYS; put the old key back.") from None


@lru_cache(maxsize=4)
def _hash_key(keys: tuple[bytes, ...], purpose: str) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=None, info=purpose.encode()).derive(keys[0])


def keyed_hash(purpose: str, *parts: str) -> str:
    """Hex HMAC-SHA256 of ``parts`` under a key of its own for each ``purpose``.

    For secrets that must be recognised but never read back: who copies the database cannot guess through it.
    Parts are joined with their lengths, so that no two lists of parts collide. After a key rotation old hashes no
    longer match, which costs their owners one more second factor.
    """
    message = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    return hmac.new(_hash_key(tuple(settings.FIELD_KEYS), purpose), message, hashlib.sha256).hexdigest()


class Secret:
    """A stored secret: still encrypted until ``reveal``; prints as dots."""

    __slots__ = ("stored",)

    def __init__(self, stored: str) -> None:
        self.stored = stored

    @classmethod
    def of(cls, plain: str) -> Secret:
        return cls(encrypt(plain))

    def reveal(self) -> str:
        return decrypt(self.stored)

    def __bool__(self) -> bool:
        return bool(self.stored)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.stored == other.stored

    def __hash__(self) -> int:
        return hash(self.stored)

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__


if TYPE_CHECKING:
    _TextField = models.TextField[Secret, Secret]
else:
    _TextField = models.TextField


class SecretField(_TextField):
    """A text column that holds ciphertext; in Python a ``Secret``. Empty text is "no secret"."""

    description = "a secret, encrypted"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("editable", False)
        kwargs.setdefault("default", Secret(""))
        kwargs.setdefault("blank", True)
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        kwargs.pop("default", None)
        return name, path, args, kwargs

    def from_db_value(self, value: str | None, expression: object, connection: object) -> Secret:
        return Secret(value or "")

    def to_python(self, value: object) -> Secret:
        return value if isinstance(value, Secret) else Secret(str(value or ""))

    def get_prep_value(self, value: object) -> str:
        if isinstance(value, Secret):
            return value.stored
        if value in (None, ""):
            return ""
        # Plain text here is a programming error that would store a secret in the clear.
        raise TypeError("A SecretField takes Secret.of(text), never the text itself.")

    def value_to_string(self, obj: models.Model) -> str:
        return str(self.value_from_object(obj).stored)
