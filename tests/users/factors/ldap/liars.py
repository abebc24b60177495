"""What answers where a directory should: nothing at all, nothing once it is encrypted, or no encryption."""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
import threading
from typing import Self

from tests.lab import HANGING

from .slapd import Authority

# An extended response, RFC 4511: granted, and "protocol error".
GRANTED = bytes.fromhex("300c02010178070a010004000400")
REFUSED = bytes.fromhex("300c02010178070a010204000400")


class Listener:
    """Takes connections, sends ``says`` to each that has sent something, and keeps it open. ``authority``: signs the
    certificate with which it then encrypts, and says nothing more. ``seen``: all that came in the clear;
    ``taken``: how many connections."""

    def __init__(self, says: bytes = b"", authority: Authority | None = None) -> None:
        self._says, self._authority = says, authority
        self.seen: list[bytes] = []
        self._open: list[socket.socket] = []
        self.taken = 0

    @property
    def host(self) -> str:
        return f"localhost:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Else it would wait for the next one for ever.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(HANGING)
        for each in (*self._open, self._socket):
            each.close()

    def _serve(self) -> None:
        while True:
            try:
                taken = self._socket.accept()[0]
            except OSError:
                return
            self.taken += 1
            with contextlib.suppress(OSError):
                self._open.append(self._encrypted(taken) if self._authority else self._answered(taken))

    def _answered(self, taken: socket.socket) -> socket.socket:
        if self._says:
            self.seen.append(taken.recv(4096))
            taken.sendall(self._says)
        return taken

    def _encrypted(self, taken: socket.socket) -> socket.socket:
        assert self._authority is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate, key = self._authority.sign("localhost")
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate + key)
            file.flush()
            context.load_cert_chain(file.name)
        return context.wrap_socket(taken, server_side=True)
