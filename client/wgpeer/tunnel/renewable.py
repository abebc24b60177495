"""The tunnel of a session: one, and for a moment two, while a new key takes the place of the old one.

WireGuard has one key to an interface, and what comes for the old key can be opened as long as that is there. So the new
key has an interface of its own, and the old one goes when the host sends to the new one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nacl.public import PrivateKey
from pyroute2.netlink.exceptions import NetlinkError

from wgpeer.responses import Configuration
from wgpeer.status import Health
from wgpeer.tunnel import copies, recovery
from wgpeer.tunnel.backend import BackendError
from wgpeer.tunnel.contract import TunnelError
from wgpeer.tunnel.link import interface_number
from wgpeer.tunnel.linux import LinuxTunnel


class RenewableTunnel:
    """The ``Tunnel`` of ``session``. ``make`` makes one with a recovery file, ``path`` is that of the first. ``repair``
    runs on another thread than all else."""

    def __init__(self, make: Callable[[Path], LinuxTunnel], path: Path) -> None:
        self._make = make
        self._paths = recovery.both_of(path)
        self._now = make(path)
        self._next: LinuxTunnel | None = None
        self.on_change: Callable[[], None] = lambda: None
        self._now.on_change = self._changed

    def _changed(self) -> None:
        self.on_change()

    @property
    def interface(self) -> str:
        """Empty while the tunnel is down, like all the others."""
        return self._now.interface

    @property
    def backend(self) -> str:
        return self._now.backend

    @property
    def dns(self) -> str:
        return self._now.dns

    @property
    def routes(self) -> str:
        return self._now.routes

    @property
    def mtu(self) -> int:
        return self._now.mtu

    @property
    def health(self) -> Health:
        return self._now.health

    def up(self, configuration: Configuration, key: PrivateKey, *, use_dns: bool, use_default_route: bool) -> str:
        """See ``Tunnel`` of ``session``."""
        return self._now.up(configuration, key, use_dns=use_dns, use_default_route=use_default_route)

    def replace(
        self,
        configuration: Configuration,
        key: PrivateKey,
        works: Callable[[str], bool],
        *,
        use_dns: bool,
        use_default_route: bool,
    ) -> str:
        """See ``Tunnel`` of ``session``."""
        old = self._now
        first, second = self._paths
        new = self._next = self._make(second if old.recovery_file == first else first)
        new.beside, old.beside = old, new
        try:
            endpoint = new.up(configuration, key, use_dns=use_dns, use_default_route=use_default_route)
            if not works(new.interface):
                raise TunnelError("nothing comes through it")
        except BaseException:
            new.down()
            self._next = None
            if old.interface:
                copies.stop(interface_number(old.interface))
            _settle(old)
            raise
        new.on_change, self._now = self._changed, new
        old.down()
        self._next = None
        _settle(new)
        return endpoint

    def down(self) -> None:
        """See ``Tunnel`` of ``session``."""
        for each in (self._next, self._now):
            if each is not None:
                each.down()

    def repair(self) -> bool:
        """Put back what others have changed. False when that must be tried again."""
        return self._now.repair()


def _settle(tunnel: LinuxTunnel) -> None:
    try:
        tunnel.settle()
    except (BackendError, NetlinkError, OSError):
        tunnel.repair()  # which says so, and is tried again
