"""A client's WireGuard by others' programs."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.lab.namespaces import Namespace


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A WireGuard key pair in standard base64."""

    private: str
    public: str

    @classmethod
    def make(cls) -> KeyPair:
        key = X25519PrivateKey.generate()
        raw = (key.private_bytes_raw(), key.public_key().public_bytes_raw())
        return cls(*(base64.b64encode(half).decode() for half in raw))


class Tunnel:
    """A client's WireGuard interface, by ``wireguard-go`` and ``wg``; no part of the project is used for it.

    With ``WG_BACKEND=kernel`` in the environment it is the kernel's own, beside which ``wireguard-go`` refuses to run.
    """

    def __init__(
        self, where: Namespace, keys: KeyPair, addresses: Sequence[str], name: str = "wgp0", mtu: int = 1420
    ) -> None:
        self._where = where
        self.name = name
        self.keys = keys
        if os.environ.get("WG_BACKEND") == "kernel":
            where.ip("link", "add", name, "type", "wireguard")
        else:
            where.run("wireguard-go", name)
        where.run("wg", "set", name, "private-key", "/proc/self/fd/0", text=keys.private)
        for address in addresses:
            where.ip("addr", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
        where.ip("link", "set", name, "up", "mtu", str(mtu))

    def connect(self, public_key: str, endpoint: str, routes: Sequence[str]) -> None:
        """Send ``routes`` to the peer ``public_key`` at ``endpoint`` (``address:port``)."""
        allowed = ["allowed-ips", ",".join(routes)]
        self._where.run("wg", "set", self.name, "peer", public_key, "endpoint", endpoint, *allowed)
        for route in routes:
            self._where.ip("route", "replace", route, "dev", self.name)

    def handshake(self) -> int:
        """Unix seconds of the last handshake, 0 when there was none."""
        times = self._where.run("wg", "show", self.name, "latest-handshakes").stdout.split()
        return int(times[-1]) if times else 0
