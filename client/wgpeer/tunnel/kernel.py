"""WireGuard in the kernel, by netlink."""

from __future__ import annotations

import base64
from typing import Any

from pyroute2 import IPRoute, WireGuard
from pyroute2.netlink.exceptions import NetlinkError

from wgpeer.tunnel.backend import BackendError, InterfaceConfig


class KernelBackend:
    """See ``Backend``."""

    name = "kernel"

    def create(self, interface: str) -> None:
        """Add a link of the kind wireguard."""
        try:
            with IPRoute() as route:
                route.link("add", ifname=interface, kind="wireguard")
        except NetlinkError as error:
            raise BackendError(f"the kernel cannot make the WireGuard interface {interface}: {error}") from error

    def configure(self, interface: str, config: InterfaceConfig) -> None:
        """Remove all peers, then set key, mark and peer at once."""
        peer_public_key = _b64(config.peer_public_key)
        peer = {
            "public_key": peer_public_key,
            "endpoint_addr": config.endpoint_address,
            "endpoint_port": config.endpoint_port,
            "allowed_ips": list(config.allowed_ips),
            "replace_allowed_ips": True,
        }
        try:
            with WireGuard() as device:
                for old in _peers(device, interface):
                    device.set(interface, peer={"public_key": old["public_key"], "remove": True})
                device.set(interface, private_key=_b64(config.private_key), fwmark=config.fwmark, peer=peer)
        except (NetlinkError, OSError) as error:
            raise BackendError(f"the kernel refused the configuration of {interface}: {error}") from error

    def last_handshake(self, interface: str) -> int:
        """See ``Backend``."""
        try:
            with WireGuard() as device:
                return max((peer["handshake"] for peer in _peers(device, interface)), default=0)
        except (NetlinkError, OSError) as error:
            raise BackendError(f"the kernel does not show {interface}: {error}") from error


def _peers(device: Any, interface: str) -> list[dict[str, Any]]:
    """Public key and last handshake of each peer; a device may come in several messages."""
    peers = []
    for message in device.info(interface):
        for peer in message.get_attr("WGDEVICE_A_PEERS") or []:
            key = peer.get_attr("WGPEER_A_PUBLIC_KEY")
            time = peer.get_attr("WGPEER_A_LAST_HANDSHAKE_TIME") or {}
            text = key.decode() if isinstance(key, bytes) else str(key)
            peers.append({"public_key": text, "handshake": int(time.get("tv_sec", 0))})
    return peers


def _b64(key: bytes) -> str:
    return base64.b64encode(key).decode()
