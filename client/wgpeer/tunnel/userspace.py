"""WireGuard in a process of its own: ``wireguard-go``, configured over its UAPI socket.

The format is WireGuard's cross-platform userspace interface (wireguard.com/xplatform).
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

from wgpeer.tunnel.backend import BackendError, InterfaceConfig

SOCKETS = Path("/var/run/wireguard")
PROGRAM = "wireguard-go"
START_TIMEOUT = 10.0
UAPI_TIMEOUT = 5.0


class UserspaceBackend:
    """See ``Backend``."""

    name = "userspace"

    def create(self, interface: str) -> None:
        """Start the process. It goes into the background when interface and socket are there, so waiting for the
        program is enough. It ends by itself when the interface is deleted."""
        if shutil.which(PROGRAM) is None:
            raise BackendError(f"neither the kernel's WireGuard nor {PROGRAM} is here; install wireguard-go")
        if socket_is_alive(interface):
            raise BackendError(f"{interface} is in use by another process")
        try:
            done = subprocess.run(
                [PROGRAM, interface],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=START_TIMEOUT,
                check=False,
                start_new_session=True,  # Ctrl-C on a terminal is for us alone: it must outlive our tidying up
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BackendError(f"{PROGRAM} {interface} does not start") from error
        if done.returncode != 0:
            raise BackendError(f"{PROGRAM} cannot make {interface}; is /dev/net/tun there, and are you root?")

    def configure(self, interface: str, config: InterfaceConfig) -> None:
        """One ``set`` that replaces all peers."""
        host = f"[{config.endpoint_address}]" if ":" in config.endpoint_address else config.endpoint_address
        lines = [
            "set=1",
            f"private_key={config.private_key.hex()}",
            f"fwmark={config.fwmark}",
            "replace_peers=true",
            f"public_key={config.peer_public_key.hex()}",
            f"endpoint={host}:{config.endpoint_port}",
            "replace_allowed_ips=true",
            *(f"allowed_ip={network}" for network in config.allowed_ips),
        ]
        _uapi_request(interface, lines)

    def last_handshake(self, interface: str) -> int:
        """See ``Backend``."""
        response = _uapi_request(interface, ["get=1"])
        return max((int(value) for key, value in response if key == "last_handshake_time_sec"), default=0)


def socket_is_alive(interface: str) -> bool:
    """Whether a process accepts connections for an interface of this name, in whatever network namespace."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(SOCKETS / f"{interface}.sock"))
    except OSError:
        return False
    return True


def _uapi_request(interface: str, lines: list[str]) -> list[tuple[str, str]]:
    """Send one request, and return the keys and values of its response. Raises ``BackendError``, which quotes nothing:
    the request holds the private key."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(UAPI_TIMEOUT)
            connection.connect(str(SOCKETS / f"{interface}.sock"))
            connection.sendall("\n".join([*lines, "", ""]).encode())
            raw = b""
            while not raw.endswith(b"\n\n"):
                piece = connection.recv(65536)
                if not piece:
                    break
                raw += piece
    except OSError as error:
        raise BackendError(f"the WireGuard process of {interface} does not answer") from error
    response = [(key, value) for key, _, value in (line.partition("=") for line in raw.decode().split("\n"))]
    if ("errno", "0") not in response:
        raise BackendError(f"the WireGuard process of {interface} refused its configuration")
    return response
