"""Whether Redis, web and gateway web answer."""

from __future__ import annotations

import http.client
import socket
import ssl
from pathlib import Path

TIMEOUT = 5.0


def redis_answers(path: Path, password: str = "") -> bool:
    """Whether Redis on this socket is up and has read its file."""
    login = f"AUTH default {password}\r\n" if password else ""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(str(path))
            connection.sendall(f"{login}PING\r\n".encode())
            with connection.makefile("rb") as answers:
                return [answers.readline(64) for _ in range(2 if login else 1)][-1].startswith(b"+PONG")
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
