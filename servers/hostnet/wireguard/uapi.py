"""The text protocol of userspace WireGuard: ``set=1`` and ``get=1`` over a unix socket, one line for each field."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from .base import Device, ObservedPeer, PeerChange, WireGuardError
from .fields import allowed_ip, endpoint_bytes, endpoint_text, key_bytes, key_text
from .keys import public_of

SOCKETS = Path("/var/run/wireguard")  # built into wireguard-go and wg
# The longest silence to bear, in seconds. 10,000 new peers cost wireguard-go about a second of one core (a
# Diffie-Hellman for each), and it answers only when all are in; a machine may be slow and busy.
SILENCE = 60.0
# The errno that wireguard-go gives for what it cannot name.
_UNKNOWN_ERROR = 55


def socket_path(interface: str) -> Path:
    return SOCKETS / f"{interface}.sock"


def connect(interface: str) -> socket.socket | None:
    """A connection to the process that carries ``interface``; None when there is none (no socket, or a dead one's)."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(SILENCE)
    try:
        connection.connect(str(socket_path(interface)))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise WireGuardError(f"{interface}: cannot reach its process: {_words(error)}") from None
    return connection


def request(connection: socket.socket, interface: str, text: bytes) -> Device:
    """Send one request and read its whole answer. ``WireGuardError``: a refusal, silence or a broken answer."""
    try:
        with connection.makefile("rb") as answer:
            # A refusal in the middle of a long request closes the socket on us; why is in the answer, if anywhere.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(text)
            return parse_answer(interface, (line.decode("ascii").rstrip("\n") for line in answer))
    except OSError as error:
        raise WireGuardError(f"{interface}: its process did not answer: {_words(error)}") from None
    except (ValueError, KeyError):
        # Not chained, not quoted: the line that cannot be read may be the one with the private key.
        raise WireGuardError(f"{interface}: its process gave an answer that cannot be read") from None


def set_request(
    private_key: bytes | None, port: int | None, peers: Iterable[PeerChange], mark: int | None = None
) -> bytes:
    """The text of a ``set``. Every value is rebuilt from checked bytes, so none can smuggle in a line of its own."""
    lines = ["set=1"]
    if private_key is not None:
        lines.append(f"private_key={private_key.hex()}")
    if port is not None:
        lines.append(f"listen_port={port:d}")
    if mark is not None:
        lines.append(f"fwmark={mark:d}")
    for peer in peers:
        lines.append(f"public_key={key_bytes(peer.public_key).hex()}")
        if peer.remove:
            # update_only first: otherwise a peer that is not there would be made in order to be removed.
            lines += ("update_only=true", "remove=true")
            continue
        lines.append("protocol_version=1")
        if peer.endpoint:
            lines.append(f"endpoint={endpoint_text(endpoint_bytes(peer.endpoint))}")
        if peer.keepalive:
            lines.append(f"persistent_keepalive_interval={peer.keepalive:d}")
        if not peer.add:
            lines.append("replace_allowed_ips=true")
        lines += [f"allowed_ip={allowed_ip(text)}" for text in peer.allowed_ips]
    return ("\n".join(lines) + "\n\n").encode("ascii")


def parse_answer(interface: str, lines: Iterator[str]) -> Device:
    """Read an answer up to the empty line that ends it. Raise ``WireGuardError`` where it reports an error."""
    public_key, port, mark, error = "", 0, 0, None
    found: dict[str, _Fields] = {}
    fields = _Fields()
    for line in lines:
        if not line:
            break
        name, _, value = line.partition("=")
        if name == "errno":
            error = int(value)
        elif name == "public_key":
            fields = found[key_text(bytes.fromhex(value))] = _Fields()
        elif name == "private_key":
            public_key = public_of(bytes.fromhex(value))
        elif name == "listen_port":
            port = int(value)
        elif name == "fwmark":
            mark = int(value)
        elif name == "allowed_ip":
            fields.allowed_ips.append(value)
        else:
            fields.values[name] = value
    if error is None:
        raise WireGuardError(f"{interface}: its process broke off in the middle of an answer")
    if error:
        message = "for a reason it cannot name" if abs(error) == _UNKNOWN_ERROR else os.strerror(abs(error)).lower()
        raise WireGuardError(f"{interface}: WireGuard refused: {message} (errno {error})")
    return Device(interface, public_key, port, {key: fields.seen(key) for key, fields in found.items()}, mark)


class _Fields:
    """What an answer has said so far about one peer."""

    __slots__ = ("allowed_ips", "values")

    def __init__(self) -> None:
        self.allowed_ips: list[str] = []
        self.values: dict[str, str] = {}

    def seen(self, public_key: str) -> ObservedPeer:
        value = self.values.get
        return ObservedPeer(
            public_key=public_key,
            allowed_ips=frozenset(self.allowed_ips),
            endpoint=value("endpoint", ""),
            last_handshake=int(value("last_handshake_time_sec", "0")),
            rx_bytes=int(value("rx_bytes", "0")),
            tx_bytes=int(value("tx_bytes", "0")),
        )


def _words(error: OSError) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else (error.strerror or str(error))
