"""An authenticator in software, after WebAuthn Level 2, that can also do what none of them should."""

from __future__ import annotations

import hashlib
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

SITE, ORIGIN = "vpn.example.com", "https://vpn.example.com"
PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def raw(written: str) -> bytes:
    return urlsafe_b64decode(written + "=" * (-len(written) % 4))


@dataclass
class PasskeyMaker:
    """One passkey. ``step``: by how much its counter grows with each use; 0 for one without a counter."""

    step: int = 1
    counter: int = 0
    site: str = SITE
    origin: str = ORIGIN
    flags: int = PRESENT | VERIFIED
    credential_id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def create(self, options: dict[str, Any]) -> str:
        public = self.key.public_key().public_numbers()
        cose = {1: 2, 3: -7, -1: 1, -2: public.x.to_bytes(32, "big"), -3: public.y.to_bytes(32, "big")}
        attested = bytes(16) + len(self.credential_id).to_bytes(2, "big") + self.credential_id + cbor2.dumps(cose)
        data = self._data(ATTESTED) + attested
        made = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        return self._answer("webauthn.create", options, lambda client: {"attestationObject": text(made)})

    def get(self, options: dict[str, Any]) -> str:
        self.counter += self.step
        data = self._data(0)

        def sign(client: bytes) -> dict[str, str]:
            signed = self.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
            return {"authenticatorData": text(data), "signature": text(signed)}

        return self._answer("webauthn.get", options, sign)

    def _data(self, more: int) -> bytes:
        return (
            hashlib.sha256(self.site.encode()).digest() + bytes([self.flags | more]) + self.counter.to_bytes(4, "big")
        )

    def _answer(self, kind: str, options: dict[str, Any], rest: Any) -> str:
        client = json.dumps({"type": kind, "challenge": options["challenge"], "origin": self.origin}).encode()
        response = {"clientDataJSON": text(client), **rest(client)}
        names = {"id": text(self.credential_id), "rawId": text(self.credential_id), "type": "public-key"}
        return json.dumps({**names, "response": response, "clientExtensionResults": {}})
