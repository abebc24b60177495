"""What a session asks of a tunnel on this machine. ``linux.py`` has the one for Linux; tests have one that does
nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nacl.public import PrivateKey

from wgpeer.responses import Configuration
from wgpeer.status import Health


class TunnelError(Exception):
    """The tunnel cannot be built. The message says why and what to do."""


class Tunnel(Protocol):
    """The tunnel on this machine. Everything is empty (``mtu``: 0) while it is down; ``dns`` and ``routes`` are for
    people."""

    @property
    def interface(self) -> str: ...

    @property
    def backend(self) -> str: ...

    @property
    def dns(self) -> str: ...

    @property
    def routes(self) -> str: ...

    @property
    def mtu(self) -> int: ...

    @property
    def health(self) -> Health: ...

    def up(self, configuration: Configuration, key: PrivateKey, *, use_dns: bool, use_default_route: bool) -> str:
        """Build the tunnel, or change the one that is up. Returns the endpoint as ADDRESS:PORT. Raises
        ``TunnelError``."""

    def replace(
        self,
        configuration: Configuration,
        key: PrivateKey,
        works: Callable[[str], bool],
        *,
        use_dns: bool,
        use_default_route: bool,
    ) -> str:
        """Build a tunnel beside the one that is up, and put it in its place once ``works`` says so, which gets its
        interface. Nothing that goes through is lost. Returns the endpoint. Raises ``TunnelError``, and what is up stays
        so."""

    def down(self) -> None:
        """Remove everything that ``up`` made. No error when there is nothing."""
