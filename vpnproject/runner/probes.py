"""Whether Redis, web and gateway web answer."""

from __future__ import annotations

import http.client
import socket
import ssl
from pathlib import Path

TIMEOUT = 5.0


def redis_answers(path: Path) -> bool:
    """Whether Redis on this socket is up and has read its file."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def web_answers(port: int) -> bool:
    """Whether the admin's sign-in page comes back over TLS."""
    # Our own certificate, on our own machine: only whether somebody answers is asked.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT, context=context)
    try:
        connection.request("GET", "/admin/login/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def gateway_answers(port: int) -> bool:
    """Whether gateway web speaks HTTP; a path that is none of its few must give 404."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 404
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
