"""HTTP as the protocol needs it: a new connection for each request, no redirects, bounded in time and size.

Certificates are not verified, by design of the protocol: each request and response proves itself. API requests carry
the socket mark that keeps them outside our tunnels; requests to the gateway are bound to the tunnel's interface.
"""

from __future__ import annotations

import errno
import queue
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import urllib3

from wgpeer.clock import SystemClock
from wgpeer.constants import (
    ALIVE_AFTER,
    ALIVE_EVERY,
    ALIVE_WITHIN,
    CONNECT_TIMEOUT,
    DNS_CACHE_TTL,
    MAX_ADDRESSES,
    MAX_LOOKUPS,
    MAX_RESPONSE,
    RESOLVE_TIMEOUT,
    RETRY_AFTER_MAX,
    SOCKET_MARK,
)
from wgpeer.envelope import SealedRequest

UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH}

SocketOptions = list[tuple[int, int, int | bytes]]


class NoResponse(Exception):
    """Nothing usable came back. ``silent``: nothing came at all within the time; else the other side refused the
    connection or broke it off, or there was no interface to ask by."""

    def __init__(self, reason: str, *, silent: bool = False) -> None:
        super().__init__(reason)
        self.silent = silent


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response whose body is complete. ``retry_after`` is seconds, 0 where the server gave none."""

    status: int
    body: bytes
    retry_after: float = 0.0


class Transport(Protocol):
    """Carries requests to API hosts, and through the tunnel to the gateway."""

    def send(
        self,
        base: str,
        request: SealedRequest,
        seconds: float,
        *,
        query: str = "",
        interface: str = "",
        connect: float = CONNECT_TIMEOUT,
    ) -> HttpResponse:
        """Send a request to ``base`` (``http(s)://host[:port]``), through the tunnel of ``interface`` or, when that is
        empty, outside all tunnels. ``seconds`` bounds the whole request, ``connect`` its connecting to one address.
        Raises ``NoResponse``."""


class Resolver(Protocol):
    """Keeps the addresses of API hosts."""

    def prefetch(self, hosts: Iterable[str]) -> None:
        """Look up names that will be needed when no resolver answers."""

    def avoid(self, hosts: Iterable[str]) -> None:
        """Names and addresses of a host that is dead: its addresses come last from now on, and no longer those that
        were avoided before."""

    def is_avoided(self, host: str) -> bool:
        """Whether a name or address is of nothing but that host."""


class HttpTransport:
    """The real transport. It tries the addresses of a host one after another."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self.resolver = ResolverCache(clock.boottime)

    def send(
        self,
        base: str,
        request: SealedRequest,
        seconds: float,
        *,
        query: str = "",
        interface: str = "",
        connect: float = CONNECT_TIMEOUT,
    ) -> HttpResponse:
        """See ``Transport``. Raises ``Stopped`` too, when a signal comes meanwhile."""
        target, options = Target.parse(base), _socket_options(interface)
        with self._clock.interruptible():
            deadline = time.monotonic() + seconds
            problem = NoResponse(f"{target.host} has no address", silent=True)
            for address in self.resolver.lookup(target.host):
                try:
                    return _request(target, address, request, query, options, deadline, connect)
                except NoResponse as error:
                    problem = error
            self.resolver.expire(target.host)
            raise problem


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, base: str) -> Target:
        """Of ``http(s)://host[:port]``."""
        parts = urlsplit(base)
        return cls(parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))

    @property
    def host_header(self) -> str:
        """The Host header: without the port where it is the scheme's own."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.scheme == "https" else 80
        return shown if self.port == usual else f"{shown}:{self.port}"


def _socket_options(interface: str) -> SocketOptions:
    """Bound to a tunnel's interface, or marked to stay outside every tunnel; and such that a machine that has gone is
    left long before one that thinks."""
    if interface:
        where: tuple[int, int, int | bytes] = (
            socket.SOL_SOCKET,
            socket.SO_BINDTODEVICE,
            interface.encode() + b"\0",
        )
    else:
        where = (socket.SOL_SOCKET, socket.SO_MARK, SOCKET_MARK)
    return [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, ALIVE_AFTER),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, ALIVE_EVERY),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * ALIVE_WITHIN),
        where,
    ]


def _request(
    target: Target,
    address: str,
    request: SealedRequest,
    query: str,
    options: SocketOptions,
    deadline: float,
    connect: float,
) -> HttpResponse:
    left = deadline - time.monotonic()
    host = target.host
    if left <= 0:
        raise NoResponse(f"{host} does not answer", silent=True)
    timeout = urllib3.Timeout(connect=min(connect, left), read=left)
    pool = _pool(target, address, options)
    path = request.path + (f"?{query}" if query else "")
    headers = {**request.headers, "Host": target.host_header, "Connection": "close"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
            response = pool.urlopen(
                request.method,
                path,
                body=request.body or None,
                headers=headers,
                timeout=timeout,
                retries=False,
                redirect=False,
                preload_content=False,
            )
        with response:  # so that the connection is closed, however much of the body was read
            body = read_bounded(response, MAX_RESPONSE, deadline, host)
        return HttpResponse(response.status, body, _retry_after(response.headers.get("Retry-After")))
    except (urllib3.exceptions.HTTPError, OSError) as error:
        if _is_missing_interface(error):
            raise NoResponse(f"{host} cannot be asked: the tunnel's interface is being made anew") from error
        refused = _refused(error)
        raise NoResponse(f"{host} {'turns us away' if refused else 'does not answer'}", silent=not refused) from error
    finally:
        pool.close()


def _pool(
    target: Target, address: str, options: SocketOptions
) -> urllib3.HTTPConnectionPool | urllib3.HTTPSConnectionPool:
    if target.scheme == "http":
        return urllib3.HTTPConnectionPool(address, target.port, socket_options=options)
    return urllib3.HTTPSConnectionPool(
        address,
        target.port,
        socket_options=options,
        cert_reqs="CERT_NONE",
        assert_hostname=False,
        server_hostname=None if target.host == address else target.host,
    )


def read_bounded(response: urllib3.BaseHTTPResponse, limit: int, deadline: float, host: str) -> bytes:
    """The body of a response, at most ``limit`` bytes, before ``deadline`` (of ``time.monotonic``). Raises
    ``NoResponse``.

    It is read in pieces: a server that sends one byte a second must not hold us longer than the deadline.
    """
    body = b""
    while piece := response.read1(65536):
        body += piece
        if len(body) > limit:
            raise NoResponse(f"{host} sends too much")
        if time.monotonic() > deadline:
            raise NoResponse(f"{host} answers too slowly", silent=True)
    return body


def _refused(error: BaseException) -> bool:
    """Whether a living host refused the connection, which is not the silence of a dead one."""
    signs = (ConnectionError, urllib3.exceptions.ProtocolError, urllib3.exceptions.SSLError)
    causes = list(_causes(error))
    # TCP gave up, or a router said that nobody is there.
    silent = any(isinstance(cause, TimeoutError) or getattr(cause, "errno", 0) in UNREACHABLE for cause in causes)
    return not silent and any(isinstance(cause, signs) for cause in causes)


def _is_missing_interface(error: BaseException) -> bool:
    """Whether there is no interface to bind to: a fault of this machine, which says nothing about the host."""
    return any(isinstance(cause, OSError) and cause.errno == errno.ENODEV for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _retry_after(value: str | None) -> float:
    return min(float(value), RETRY_AFTER_MAX) if value and value.isascii() and value.isdigit() else 0.0


class ResolverCache:
    """Addresses of host names, cached: when a tunnel dies, the resolver behind it dies too. ``now`` is a clock in
    seconds that never jumps."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._known: dict[str, tuple[float, list[str]]] = {}
        self._avoided: frozenset[str] = frozenset()

    def prefetch(self, hosts: Iterable[str]) -> None:
        """Look up names, all at the same time, while the machine's own resolver can still be asked."""
        names = list(dict.fromkeys(hosts))
        with ThreadPoolExecutor(max_workers=max(1, min(len(names), MAX_LOOKUPS))) as pool:
            list(pool.map(self.lookup, names))

    def lookup(self, host: str) -> list[str]:
        """The addresses of a name in the system's order of preference, empty when there are none.

        Addresses known before come last: a resolver inside the tunnel may give an address that only the tunnel
        reaches. Last of all come those of ``avoid``."""
        since, addresses = self._known.get(host, (0.0, []))
        if not addresses or self._now() - since >= DNS_CACHE_TTL:
            fresh = resolve(host, RESOLVE_TIMEOUT)
            addresses = list(dict.fromkeys([*fresh, *addresses]))[:MAX_ADDRESSES]
            if fresh:
                self._known[host] = (self._now(), addresses)
        return sorted(addresses, key=self._avoided.__contains__)

    def avoid(self, hosts: Iterable[str]) -> None:
        """See ``Resolver``."""
        self._avoided = frozenset(address for host in hosts for address in self._addresses(host))

    def is_avoided(self, host: str) -> bool:
        """See ``Resolver``."""
        return self._addresses(host) <= self._avoided

    def _addresses(self, host: str) -> set[str]:
        """Of a name, as far as it was looked up; an address is its own."""
        return set(self._known.get(host, (0.0, []))[1]) or {host}

    def expire(self, host: str) -> None:
        """None of the addresses answered: ask the resolver next time, and use these only if it is silent."""
        if host in self._known:
            self._known[host] = (float("-inf"), self._known[host][1])


def resolve(host: str, seconds: float) -> list[str]:
    """The addresses of a name, or none after ``seconds``. On a thread, because getaddrinfo takes no timeout."""
    found: queue.Queue[list[str]] = queue.Queue()

    def work() -> None:
        try:
            results = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            results = []
        found.put(list(dict.fromkeys(str(result[4][0]) for result in results)))

    threading.Thread(target=work, daemon=True).start()
    try:
        return found.get(timeout=seconds)
    except queue.Empty:
        return []
