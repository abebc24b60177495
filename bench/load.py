"""Load over HTTP: requests that are ready as bytes, each on a connection of its own, as clients do it.

It shares the machine with the server it loads, so it does as little as it can: nothing is parsed but the status.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

TIMEOUT = 90.0  # seconds for one request


class WrongAnswer(Exception):
    """A request under load was not answered with 200: then its speed means nothing."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go; ``tls`` None is plain HTTP."""

    port: int
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one run: how long it took and each request's latency, in seconds."""

    seconds: float
    latencies: list[float]

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float:
        return sorted(self.latencies)[min(len(self.latencies) - 1, int(len(self.latencies) * percent / 100))]


def client_tls() -> ssl.SSLContext:
    """TLS as clients use it: the certificate is not verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def exchange(target: Target, request: bytes) -> bytes:
    """Send one request on a new connection and return the whole answer. It must ask for the connection's end."""
    with socket.create_connection(("127.0.0.1", target.port), TIMEOUT) as plain:
        if target.tls is None:
            return _talk(plain, request)
        with target.tls.wrap_socket(plain, suppress_ragged_eofs=True) as secure:
            return _talk(secure, request)


def _talk(connection: socket.socket, request: bytes) -> bytes:
    connection.sendall(request)
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def drive(target: Target, requests: Sequence[bytes], connections: int) -> Run:
    """Send all ``requests``, in order, with ``connections`` of them under way at any time."""
    remaining = iter(requests)
    taking = threading.Lock()
    latencies: list[float] = []
    wrong: list[bytes] = []
    threads = [
        threading.Thread(target=_send, args=(target, remaining, taking, latencies, wrong), daemon=True)
        for _ in range(connections)
    ]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if wrong or len(latencies) != len(requests):
        raise WrongAnswer(
            f"{len(requests) - len(latencies)} of {len(requests)}, for example {wrong[0][-200:] if wrong else None!r}"
        )
    return Run(seconds, latencies)


def _send(
    target: Target, remaining: Iterator[bytes], taking: threading.Lock, latencies: list[float], wrong: list[bytes]
) -> None:
    while not wrong:
        with taking:
            request = next(remaining, None)
        if request is None:
            return
        began = time.perf_counter()
        try:
            answer = exchange(target, request)
        except OSError as error:
            wrong.append(repr(error).encode())
            return
        if not answer.startswith(b"HTTP/1.1 200"):
            wrong.append(answer)
            return
        latencies.append(time.perf_counter() - began)
