"""Userspace WireGuard: one ``wireguard-go`` process for each interface, spoken to over its UAPI socket.

The processes belong to the machine, not to us: they live in sessions of their own, so that tunnels outlive our
worker. Their sockets are files, which all network namespaces of a machine share, while a link belongs to one: an
interface is ours only if its socket answers *and* its link is in our namespace.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterable

from . import uapi
from .base import Device, PeerChange, WireGuardError
from .fields import check_interface, check_settings, link_index

PROGRAM = "wireguard-go"
START_WITHIN = 10.0  # seconds; it takes about 0.05
END_WITHIN = 10.0  # seconds; with 10,000 peers it takes about 0.1
LEFT_WITHIN = 2.0  # seconds for a process whose link has gone already
_NOTHING = b"set=1\n\n"  # a request that changes nothing and is answered: proof of life


class Userspace:
    """A ``Backend`` over ``wireguard-go``."""

    name = "userspace"

    def list(self) -> list[str]:
        names = sorted(path.stem for path in uapi.SOCKETS.glob("*.sock"))
        return [name for name in names if link_index(name) and _answers(name)]

    def create(self, interface: str) -> None:
        check_interface(interface)
        connection = uapi.connect(interface)
        if connection is not None:
            with connection:
                if link_index(interface):
                    return
                # Its link is not here: either it is just ending, or it serves another namespace and is not ours.
                if not _ended(connection, LEFT_WITHIN):
                    raise WireGuardError(f"{interface}: the name is in use in another network namespace")
        # Nobody listens here any more: a socket file left by a killed process is litter.
        uapi.socket_path(interface).unlink(missing_ok=True)
        _start(interface)
        with _connected(interface) as connection:
            uapi.request(connection, interface, _NOTHING)

    def delete(self, interface: str) -> None:
        check_interface(interface)
        connection = uapi.connect(interface)
        if connection is None:
            uapi.socket_path(interface).unlink(missing_ok=True)
            return
        with connection:
            if not link_index(interface):
                return
            # Once it has answered us it holds this connection until it exits, so that the connection's end is its
            # own. Without this round trip we could be cut off earlier, while still in its listening queue.
            uapi.request(connection, interface, _NOTHING)
            uapi.socket_path(interface).unlink(missing_ok=True)  # which is how wireguard-go is told to end
            if not _ended(connection, END_WITHIN):
                raise WireGuardError(f"{interface}: its process did not end within {END_WITHIN:.0f} s")

    def get(self, interface: str) -> Device:
        check_interface(interface)
        with _connected(interface) as connection:
            return uapi.request(connection, interface, b"get=1\n\n")

    def set(
        self,
        interface: str,
        *,
        private_key: bytes | None = None,
        port: int | None = None,
        mark: int | None = None,
        peers: Iterable[PeerChange] = (),
    ) -> None:
        check_interface(interface)
        check_settings(interface, private_key, port)
        text = uapi.set_request(private_key, port, peers, mark)
        with _connected(interface) as connection:
            uapi.request(connection, interface, text)


def _connected(interface: str) -> socket.socket:
    connection = uapi.connect(interface)
    if connection is None:
        raise WireGuardError(f"{interface}: no such interface (no process answers on its socket)")
    return connection


def _answers(interface: str) -> bool:
    connection = uapi.connect(interface)
    if connection is None:
        return False
    connection.close()
    return True


def _ended(connection: socket.socket, within: float) -> bool:
    """Wait until the other side has gone, at most ``within`` seconds."""
    connection.settimeout(within)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def _start(interface: str) -> None:
    """Start the process; it returns when link and socket are there, and leaves a child that goes on."""
    try:
        started = subprocess.run(
            [PROGRAM, interface],
            # Only what it needs: our own environment holds the way to Redis, password included.
            env={"PATH": os.environ.get("PATH", os.defpath)},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a signal to our process group, Ctrl-C say, must not end the tunnels
            timeout=START_WITHIN,
            check=False,
        )
    except FileNotFoundError:
        raise WireGuardError(f"{interface}: {PROGRAM} is not installed") from None
    except subprocess.TimeoutExpired:
        raise WireGuardError(f"{interface}: {PROGRAM} did not start within {START_WITHIN:.0f} s") from None
    if started.returncode:
        said = started.stderr.decode(errors="replace").strip().splitlines()
        raise WireGuardError(f"{interface}: {PROGRAM} did not start: {said[-1] if said else 'it said nothing'}")
