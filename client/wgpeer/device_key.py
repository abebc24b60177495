"""The key by which a server knows this very machine: in its TPM where it has one, else in a file of root's."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from wgpeer import tpm
from wgpeer.envelope import DeviceKey
from wgpeer.store import Store, StoreError, read_json, write_file
from wgpeer.tpm import TpmError, TpmKey

IN_TPM, IN_FILE = "in this machine's TPM", "in a file"


@dataclass(frozen=True, slots=True)
class FileKey:
    """A key in the memory of this process."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def public_der(self) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_key().public_bytes(serialization.Encoding.DER, form)

    def sign(self, message: bytes) -> bytes:
        return self.key.sign(message, ec.ECDSA(hashes.SHA256()))


@dataclass(frozen=True, slots=True)
class Held:
    """The key of this machine, and for people where it is and why there."""

    key: DeviceKey
    where: str
    why: str = ""


def held(store: Store) -> Held:
    """The key of this machine, made at the first use. Where it is once, it stays: another key is another device to the
    server. Raises ``StoreError``."""
    if store.tpm_key_path.exists():
        return Held(_of_tpm(store.tpm_key_path), IN_TPM)
    if store.file_key_path.exists():
        return Held(_of_file(store.file_key_path), IN_FILE)
    problem = tpm.problem()
    return make(store, in_tpm=not problem, why=problem)


def make(store: Store, *, in_tpm: bool, why: str = "") -> Held:
    """A new key in the place of any other. Raises ``StoreError``, and the old one stays."""
    if in_tpm:
        try:
            made = TpmKey.generate()
        except TpmError as error:
            raise StoreError(str(error)) from error
        write_file(store.tpm_key_path, json.dumps(made.as_json()))
        store.file_key_path.unlink(missing_ok=True)
        return Held(made, IN_TPM)
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    write_file(store.file_key_path, pem.decode())
    store.tpm_key_path.unlink(missing_ok=True)
    return Held(FileKey(key), IN_FILE, why)


def _of_tpm(path: Path) -> DeviceKey:
    try:
        return TpmKey.from_json(read_json(path))
    except ValueError as error:
        raise StoreError(f"{path} cannot be read; make a new key with: wgpeer device new") from error


def _of_file(path: Path) -> DeviceKey:
    try:
        loaded = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StoreError(f"{path} cannot be read; remove it and register this device anew") from error
    if not isinstance(loaded, ec.EllipticCurvePrivateKey) or not isinstance(loaded.curve, ec.SECP256R1):
        raise StoreError(f"{path} is not a P-256 key; remove it and register this device anew")
    return FileKey(loaded)
