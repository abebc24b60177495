"""The NaCl box key pair of a server: what a request's plaintext is sealed for."""

from __future__ import annotations

from base64 import b64encode

from nacl.public import PrivateKey

from core.crypto import Secret


def new_pair() -> tuple[Secret, str]:
    """(private half, encrypted; public half as base64 of 32 bytes)."""
    private = PrivateKey.generate()
    return Secret.of(b64encode(bytes(private)).decode()), b64encode(bytes(private.public_key)).decode()
