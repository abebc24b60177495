"""WireGuard private keys of this host: made here, kept in files that only their owner reads, never sent anywhere."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from nacl.bindings import crypto_scalarmult_base

from .base import WireGuardError
from .fields import KEY_BYTES, key_bytes, key_text

_TEXT_BYTES = 44  # base64 of 32 bytes


def make_private() -> bytes:
    """A new private key: 32 random bytes, clamped as X25519 (RFC 7748) wants them."""
    raw = bytearray(secrets.token_bytes(KEY_BYTES))
    raw[0] &= 0b1111_1000
    raw[31] = (raw[31] & 0b0111_1111) | 0b0100_0000
    return bytes(raw)


def public_of(private: bytes) -> str:
    """The public key, in base64, of a private one. Raise ``ValueError`` when that does not have 32 bytes."""
    if len(private) != KEY_BYTES:  # PyNaCl does not look: it would read past a shorter one's end
        raise ValueError(f"a private key has {KEY_BYTES} bytes, this one {len(private)}")
    return key_text(crypto_scalarmult_base(private))


def load_or_make(path: Path) -> bytes:
    """The private key (32 bytes) kept in ``path``, made at the first call.

    The file holds one line as ``wg genkey`` prints it, mode 0600. A file that others could read is made private
    again. A file that holds no key is never replaced, since all clients know the public half: ``WireGuardError``.
    """
    try:
        key = _load(path)
        return key if key is not None else _make(path)
    except OSError as error:
        raise WireGuardError(f"key file {path}: {error.strerror}") from None


def _load(path: Path) -> bytes | None:
    try:
        # Not through a symbolic link, which could make us tighten or trust somebody else's file.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise WireGuardError(f"key file {path} is not a regular file of ours")
        if stat.S_IMODE(status.st_mode) != 0o600:
            os.fchmod(descriptor, 0o600)
        text = file.read(_TEXT_BYTES + 2).strip()
    try:
        return key_bytes(text.decode("ascii"))
    except (WireGuardError, UnicodeDecodeError):
        # Whatever is in there may be most of a key: the words name the file, not what it holds.
        raise WireGuardError(f"key file {path} does not hold a WireGuard key; restore it or remove it") from None


def _make(path: Path) -> bytes:
    """Write a new key beside ``path``, bring it to disk whole, and only then give it its name."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    private = make_private()
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(key_text(private).encode("ascii") + b"\n")
            file.flush()
            os.fsync(descriptor)
        # A hard link, where rename would overwrite: of two processes that both found no key, one wins and the
        # other takes the winner's.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    _sync_directory(path.parent)
    kept = _load(path)
    if kept is None:
        raise WireGuardError(f"key file {path} was removed while it was being made")
    return kept


def _sync_directory(directory: Path) -> None:
    """Make the new name last through a power cut, as fsync of the file alone does not."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
