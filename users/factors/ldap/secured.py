"""An encrypted way to a directory's server, and its end in this process that libldap can speak plainly at.

TLS is Python's and not libldap's: that one waits for a silent server's handshake without end where it was built with
GnuTLS, as Debian's is, and says of no certificate what is wrong with it.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
import time
from urllib.parse import urlsplit

from core import trusted

PORTS = {"ldap": 389, "ldaps": 636}
CHUNK = 65536
# RFC 4511, 4.14: message 1, an extended request for StartTLS; and what every answer begins with that grants it.
STARTTLS = bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.1466.20037"
LONGEST_ANSWER = 4096
SUCCESS = bytes.fromhex("0a0100")


class Down(Exception):
    """The server cannot be asked. ``code`` says why, as one of the factor's."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def connect(server: str, ca: str, ends: float) -> ssl.SSLSocket:
    """``server``: "ldaps://…", or "ldap://…", which is asked to encrypt before anything is said. ``ca``: PEM; empty:
    who is trusted by this machine. ``ends``: on the monotonic clock. Raise ``Down``."""
    where = urlsplit(server)
    host, port = where.hostname or "", where.port or PORTS[where.scheme]
    try:
        sock = socket.create_connection((host, port), _left(ends))
    except OSError:
        raise Down("unavailable") from None
    try:
        sock.setblocking(False)
        if where.scheme == "ldap":
            _ask_for_tls(sock, ends)
        return _handshake(sock, host, ca, ends)
    except ssl.SSLCertVerificationError:
        raise Down("bad_certificate") from None
    except OSError:
        raise Down("unavailable") from None
    finally:
        sock.close()  # of no effect where TLS has taken it over


def _ask_for_tls(sock: socket.socket, ends: float) -> None:
    sock.sendall(STARTTLS)
    answer = b""
    while len(answer) < 2 or len(answer) < 2 + answer[1]:
        _wait(sock, selectors.EVENT_READ, ends)
        read = sock.recv(LONGEST_ANSWER)
        if not read:
            raise Down("unavailable")
        answer += read
        if answer[0] != 0x30 or (len(answer) > 1 and answer[1] >= 0x80):
            raise Down("no_starttls")
    # The whole answer and not a byte more: what was put behind it by who cannot encrypt must not count afterwards.
    granted = answer[2:5] == b"\2\1\1" and answer[5] == 0x78 and answer[7:10] == SUCCESS
    if not granted or len(answer) != 2 + answer[1]:
        raise Down("no_starttls")


def _handshake(sock: socket.socket, host: str, ca: str, ends: float) -> ssl.SSLSocket:
    tls = trusted.context(ca, strict=False).wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    try:
        while True:
            try:
                tls.do_handshake()
                return tls
            except ssl.SSLWantReadError:
                _wait(tls, selectors.EVENT_READ, ends)
            except ssl.SSLWantWriteError:
                _wait(tls, selectors.EVENT_WRITE, ends)
    except BaseException:
        tls.close()
        raise


def plain_end(tls: ssl.SSLSocket, ends: float) -> socket.socket:
    """A socket whose other end is the server's. It is at its end when the server's is, or ``ends`` has come."""
    ours, theirs = socket.socketpair()
    threading.Thread(target=_pump, args=(theirs, tls, ends), daemon=True).start()
    return ours


def _pump(plain: socket.socket, tls: ssl.SSLSocket, ends: float) -> None:
    with plain, tls, selectors.DefaultSelector() as selector:
        selector.register(plain, selectors.EVENT_READ)
        selector.register(tls, selectors.EVENT_READ)
        try:
            while ready := selector.select(_left(ends)):
                for key, _ in ready:
                    if not (_from_tls(tls, plain, ends) if key.fileobj is tls else _to_tls(plain, tls, ends)):
                        return
        except (OSError, Down):
            return  # whoever reads or writes the other end is told by its end


def _from_tls(tls: ssl.SSLSocket, plain: socket.socket, ends: float) -> bool:
    """Whether there may be more."""
    try:
        data = tls.recv(CHUNK)
    except ssl.SSLWantReadError:
        return True  # of TLS itself, a session ticket for one
    plain.settimeout(_left(ends))
    plain.sendall(data)
    return bool(data)


def _to_tls(plain: socket.socket, tls: ssl.SSLSocket, ends: float) -> bool:
    data = memoryview(plain.recv(CHUNK))
    more = bool(data)
    while data:
        try:
            data = data[tls.send(data) :]
        except ssl.SSLWantWriteError:
            _wait(tls, selectors.EVENT_WRITE, ends)
        except ssl.SSLWantReadError:
            _wait(tls, selectors.EVENT_READ, ends)
    return more


def _wait(sock: socket.socket, event: int, ends: float) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, event)
        if not selector.select(_left(ends)):
            raise Down("unavailable")


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise Down("unavailable")
    return left
