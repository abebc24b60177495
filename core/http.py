"""The one door for requests to servers of others (sign-in services, webhooks).

What is behind it is never ours to trust: a request is bounded in time and size, follows no redirect, uses no proxy of
the environment, verifies certificates, and goes to exactly the address that was checked. Addresses inside (private
ones and those of this machine, the mesh, a cloud's metadata) are asked only where an administrator named that host.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from . import trusted
from .letting_go import let_go_of_database

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

AGENT = "vpn"
# Lookups that may wait for a resolver at the same time; it has no time limit of its own, so each has a thread.
MAX_LOOKUPS = 64
# Of those that a name has.
MAX_ADDRESSES = 8
# Networks in which an IPv6 address stands for an IPv4 address, which is its last four bytes.
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
COMPATIBLE = ipaddress.IPv6Network("::/96")

_lookups = threading.BoundedSemaphore(MAX_LOOKUPS)


class NoAnswer(Exception):
    """Nothing usable came back, or nothing was asked. The argument says why, in words for administrators: with the
    host's name, and never with a path, a header or what was sent, as secrets may be in these."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``connect`` and ``total`` are seconds: for connecting to one address, and for the whole request. ``size``: bytes
    of the answer's body."""

    connect: float = 5.0
    total: float = 10.0
    size: int = 1 << 20


USUAL = Limits()


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer, whatever its status. ``headers``: by names in lower case; ``host``: who gave it."""

    host: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """Raise ``NoAnswer`` where the body is no JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise NoAnswer(f"{self.host} sends what is no JSON.") from None


@dataclass(frozen=True, slots=True)
class _Target:
    host: str
    port: int
    secure: bool
    path: str = field(repr=False)


def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    named: frozenset[str] = frozenset(),
    ca: str = "",
    limits: Limits = USUAL,
) -> Answer:
    """Ask ``url``. ``named``: hosts that an administrator named; only these may have an address inside, or be asked
    without TLS. ``ca``: certificates in PEM that are trusted in the place of the system's. Raise ``NoAnswer``."""
    deadline = time.monotonic() + limits.total
    let_go_of_database()
    target = _parse(url)
    by_name = target.host in {each.lower() for each in named}
    if not (target.secure or by_name):
        raise NoAnswer(f"{target.host} is not asked without TLS.")
    context = _tls(target, ca) if target.secure else None
    addresses = _lookup(target, deadline)
    if not by_name and (inside := [each for each in addresses if is_inside(each)]):
        raise NoAnswer(f"{target.host} has the address {inside[0]}, which is not one of the internet.")
    with _connected(target, addresses, limits, deadline) as connection, _cut_off(connection, target, deadline):
        return _exchange(target, connection, context, method, {"User-Agent": AGENT, **(headers or {})}, body, limits)


def host_of(url: str) -> str:
    """The host that ``url`` names, as ``named`` wants it; empty where it is no address that can be asked."""
    try:
        return _parse(url).host
    except NoAnswer:
        return ""


def is_inside(address: Address) -> bool:
    """Whether it is not one of the internet, or stands for one that is not."""
    address = _meant(address)
    special = address.is_multicast or address.is_reserved or getattr(address, "is_site_local", False)
    return special or not address.is_global


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, which is where a router takes it; else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64 or (address in COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)


def _parse(url: str) -> _Target:
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise NoAnswer("That is no address of a server.") from None
    usable = parts.scheme in ("https", "http") and host and parts.username is None and parts.password is None
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise NoAnswer("That is no address of a server.")
    secure = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Target(host, port or (443 if secure else 80), secure, path)


def _tls(target: _Target, ca: str) -> ssl.SSLContext:
    try:
        return trusted.context(ca)
    except (ssl.SSLError, ValueError):
        raise NoAnswer(f"The certificates to verify {target.host} with cannot be read.") from None


def _lookup(target: _Target, deadline: float) -> list[Address]:
    answer: queue.SimpleQueue[list[Address]] = queue.SimpleQueue()

    def look() -> None:
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            answer.put([ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found])
        except (OSError, UnicodeError, ValueError):
            answer.put([])
        finally:
            _lookups.release()

    if not _lookups.acquire(timeout=max(0.0, deadline - time.monotonic())):
        raise NoAnswer(f"{target.host} cannot be looked up: too many lookups wait for an answer.")
    threading.Thread(target=look, daemon=True).start()
    try:
        addresses = answer.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise NoAnswer(f"{target.host} cannot be looked up: no resolver answers.") from None
    if not addresses:
        raise NoAnswer(f"{target.host} has no address.")
    return list(dict.fromkeys(addresses))[:MAX_ADDRESSES]


@contextmanager
def _connected(target: _Target, addresses: list[Address], limits: Limits, deadline: float) -> Iterator[socket.socket]:
    """Connected to the first of ``addresses`` that answers: to the address itself, as another lookup could say
    something else than what was checked."""
    for address in addresses:
        left = min(limits.connect, deadline - time.monotonic())
        if left <= 0:
            break
        try:
            connection = socket.create_connection((str(address), target.port), timeout=left)
        except OSError:
            continue
        with closing(connection):
            yield connection
        return
    raise NoAnswer(f"{target.host} cannot be reached.")


@contextmanager
def _cut_off(connection: socket.socket, target: _Target, deadline: float) -> Iterator[None]:
    """Shut the connection at the deadline, wherever the request is then: who sends a byte now and then would never
    let a time limit of the socket's run out."""
    late = threading.Event()
    # The socket may be handed over to TLS; this one stays ours, and shutting it shuts both.
    own = connection.dup()

    def shut() -> None:
        late.set()
        with suppress(OSError):  # the other side was faster
            own.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), shut)
    timer.daemon = True
    timer.start()
    slow = NoAnswer(f"{target.host} does not answer in time.")
    try:
        yield
        if late.is_set():
            raise slow  # what ends with the connection may have been cut
    except ssl.SSLCertVerificationError as error:
        raise NoAnswer(f"The certificate of {target.host} cannot be trusted: {error.verify_message}.") from None
    except (OSError, http.client.HTTPException):
        raise (slow if late.is_set() else NoAnswer(f"{target.host} breaks off, or does not speak HTTP.")) from None
    except NoAnswer as error:
        raise (slow if late.is_set() else error) from None
    finally:
        timer.cancel()
        own.close()


def _exchange(
    target: _Target,
    connection: socket.socket,
    context: ssl.SSLContext | None,
    method: str,
    headers: Mapping[str, str],
    body: bytes,
    limits: Limits,
) -> Answer:
    connection.settimeout(limits.total)
    if context:
        connection = context.wrap_socket(connection, server_hostname=target.host)
    standard = http.client.HTTPSConnection if target.secure else http.client.HTTPConnection
    with closing(connection), closing(standard(target.host, target.port)) as talk:
        talk.sock = connection
        try:
            talk.request(method, target.path, body=body or None, headers={**headers, "Connection": "close"})
        except ValueError:  # a line break, say; the text of the error would show the value
            raise NoAnswer(f"What {target.host} is to be asked cannot be sent.") from None
        response = talk.getresponse()
        text = _read(response, target, limits.size)
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(target.host, response.status, named, text)


def _read(response: http.client.HTTPResponse, target: _Target, most: int) -> bytes:
    body = b""
    while piece := response.read1(65536):
        body += piece
        if len(body) > most:
            raise NoAnswer(f"{target.host} sends too much.")
    if response.length:
        raise NoAnswer(f"{target.host} breaks off its answer.")
    return body
