"""A device key that lives in this machine's TPM 2.0 and cannot leave it.

The key is made by the TPM, below a primary key of its owner hierarchy that is made anew each time from the same seed.
What is on disk is that key as the TPM has wrapped it: of use to this TPM alone. It needs ``tpm2-pytss``, which stands
on the system's libtss2.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

DEVICE = Path("/dev/tpmrm0")
# How libtss2 reaches the TPM. Tests have a software TPM behind a socket.
TCTI = "WGPEER_TPM"
MISSING = "tpm2-pytss is not installed (pip install 'wgpeer[tpm]'; it needs gcc, python3-dev and libtss2-dev)"
KEY = ("fixedtpm", "fixedparent", "sensitivedataorigin", "userwithauth", "sign")
PARENT = ("fixedtpm", "fixedparent", "sensitivedataorigin", "userwithauth", "restricted", "decrypt")
ATTRIBUTES = {
    "fixedtpm": "FIXEDTPM",
    "fixedparent": "FIXEDPARENT",
    "sensitivedataorigin": "SENSITIVEDATAORIGIN",
    "userwithauth": "USERWITHAUTH",
    "sign": "SIGN_ENCRYPT",
    "restricted": "RESTRICTED",
    "decrypt": "DECRYPT",
}


class TpmError(Exception):
    """The TPM does not do it. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class TpmKey:
    """A P-256 key of a TPM, as that has wrapped it, and its public half as SubjectPublicKeyInfo in DER."""

    private: bytes
    public: bytes
    public_der: bytes

    @classmethod
    def generate(cls) -> TpmKey:
        """A new one. Raises ``TpmError``."""
        with _parent() as (tss, tpm, parent), _words("the TPM makes no key"):
            template = tss.TPM2B_PUBLIC.parse("ecc256:ecdsa-sha256:null", objectAttributes=_attributes(tss, KEY))
            private, public, *_ = tpm.create(parent, tss.TPM2B_SENSITIVE_CREATE(), template)
            return cls(private.marshal(), public.marshal(), public.to_der())

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> TpmKey:
        """As ``as_json`` has made it. Raises ``ValueError``."""
        try:
            parts = [base64.b64decode(held[name], validate=True) for name in ("private", "public", "public_der")]
        except (KeyError, TypeError, binascii.Error) as error:
            raise ValueError("no key of a TPM") from error
        return cls(*parts)

    def as_json(self) -> dict[str, str]:
        """Nothing in it is secret to anybody but this TPM."""
        return {name: base64.b64encode(getattr(self, name)).decode() for name in ("private", "public", "public_der")}

    def sign(self, message: bytes) -> bytes:
        """ECDSA with SHA-256, in ASN.1 DER. Raises ``TpmError``."""
        with _parent() as (tss, tpm, parent):
            with _words("the TPM does not know this device's key (cleared, or another machine?)"):
                private = tss.TPM2B_PRIVATE.unmarshal(self.private)[0]
                handle = tpm.load(parent, private, tss.TPM2B_PUBLIC.unmarshal(self.public)[0])
            try:
                with _words("the TPM does not sign"):
                    return _signature(tss, tpm, handle, hashlib.sha256(message).digest())
            finally:
                tpm.flush_context(handle)


def problem() -> str:
    """Why there is no TPM to be used here, for people; empty: there is one."""
    try:
        with _parent():
            return ""
    except TpmError as error:
        return str(error)


def _signature(tss: Any, tpm: Any, handle: Any, digest: bytes) -> bytes:
    scheme = tss.TPMT_SIG_SCHEME(scheme=tss.TPM2_ALG.ECDSA)
    scheme.details.any.hashAlg = tss.TPM2_ALG.SHA256
    # It was hashed outside the TPM; the key is not restricted to what the TPM has hashed itself.
    ticket = tss.TPMT_TK_HASHCHECK(tag=tss.TPM2_ST.HASHCHECK, hierarchy=tss.TPM2_RH.NULL)
    signed = tpm.sign(handle, tss.TPM2B_DIGEST(digest), scheme, ticket)
    # What is read lives in the memory of ``signed``, which is therefore held until then.
    r, s = (bytes(part) for part in (signed.signature.ecdsa.signatureR, signed.signature.ecdsa.signatureS))
    return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))


@contextmanager
def _parent() -> Iterator[tuple[Any, Any, Any]]:
    """The library, the TPM and the handle of our primary key in it. Raises ``TpmError``."""
    tss = _library()
    where = os.environ.get(TCTI) or f"device:{DEVICE}"
    if where == f"device:{DEVICE}" and not DEVICE.exists():
        raise TpmError(f"this machine has no TPM 2.0 ({DEVICE} is not there)")
    with _words(f"the TPM cannot be reached ({where})"):
        tpm = tss.ESAPI(where)
    try:
        with _words("the TPM's owner hierarchy cannot be used"):
            template = tss.TPM2B_PUBLIC.parse("ecc256:aes128cfb", objectAttributes=_attributes(tss, PARENT))
            parent, *_ = tpm.create_primary(tss.TPM2B_SENSITIVE_CREATE(), template)
        try:
            yield tss, tpm, parent
        finally:
            tpm.flush_context(parent)
    finally:
        tpm.close()


def _library() -> Any:
    try:
        return importlib.import_module("tpm2_pytss")
    except (ImportError, OSError) as error:  # OSError: its half in C is there, and libtss2 is not
        raise TpmError(MISSING) from error


def _attributes(tss: Any, names: tuple[str, ...]) -> Any:
    together = 0
    for name in names:
        together |= getattr(tss.TPMA_OBJECT, ATTRIBUTES[name])
    return tss.TPMA_OBJECT(together)


@contextmanager
def _words(what: str) -> Iterator[None]:
    """Errors of the library, which are numbers to most people, as ``what`` with the library's words behind it."""
    failures: tuple[type[Exception], ...] = (_library().TSS2_Exception, RuntimeError, ValueError)
    try:
        yield
    except failures as error:
        raise TpmError(f"{what}: {error}") from error
