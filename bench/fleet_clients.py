"""Simulated clients: of each only what it says to the server, at the times at which ``wgpeer`` would say it.

What costs a client time (RSA signature, sealed box) is made beforehand. Of a connect the HMAC is made at the moment of
sending, since its nonce is new each time. Each client has an address of its own, as in earnest, where the front counts
them. How they ping is in ``bench.fleet_pings``.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import multiprocessing
import random
import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from django.db import connections
from wgpeer import constants

from bench.load import Target, WrongAnswer
from tests.protocol_client import ClientRequest, Identity, open_answer, sign_headers

INTERVAL = 10.0  # seconds between two pings of a client
# Of ip(7): the port is chosen when it connects, for this target alone. Python has no name for it.
IP_BIND_ADDRESS_NO_PORT = 24
MOST_ROUNDS = 50  # who comes to nothing in so many is lost


@dataclass(frozen=True, slots=True)
class Ready:
    """A request, and ``wire``, its bytes."""

    request: ClientRequest
    wire: bytes

    @classmethod
    def of(cls, request: ClientRequest) -> Ready:
        return cls(request, request.wire())


@dataclass(slots=True, eq=False)
class Client:
    """``key`` is its connection's. ``pings`` are signed for that; ``ask`` is to bring a connection with ``next_key``,
    for which ``next_pings`` are signed."""

    number: int
    identity: Identity
    key: str = ""
    pings: list[Ready] = field(default_factory=list)
    ask: ClientRequest | None = None
    next_key: str = ""
    next_pings: list[Ready] = field(default_factory=list)

    @property
    def source(self) -> str:
        return f"127.{16 + (self.number >> 16)}.{self.number >> 8 & 255}.{self.number & 255}"

    def connected(self) -> None:
        self.key, self.pings = self.next_key, self.next_pings
        self.ask, self.next_key, self.next_pings = None, "", []


@dataclass(frozen=True, slots=True)
class Answer:
    """``status`` 0: none came. ``raw`` is all of it. ``retry_after`` in seconds, 0 where it does not say."""

    status: int = 0
    retry_after: float = 0.0
    raw: bytes = b""

    @classmethod
    def of(cls, raw: bytes) -> Answer:
        head, _, rest = raw.partition(b"\r\n\r\n")
        line, *headers = head.split(b"\r\n")
        words = line.split()
        if len(words) < 2 or not rest:  # the connection was ended before
            return cls()
        # Not the standard library's, which takes as long for these few lines as the server for the whole request.
        said = {name.lower(): value for name, _, value in (each.partition(b":") for each in headers)}
        return cls(int(words[1]), float(said.get(b"retry-after", b"0")), raw)

    def opened(self, client: Client, request: ClientRequest) -> dict[str, object]:
        """What is in a sealed answer to ``request``."""
        response = http.client.HTTPResponse(_Received(self.raw))  # type: ignore[arg-type]  # all that it asks of a socket
        response.begin()
        return open_answer(json.loads(response.read()), client.identity, request.box_private_key)


class _Received:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._raw)


def socket_of(client: Client) -> socket.socket:
    """Not connected; nothing that is asked of it waits."""
    made = socket.socket()
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    made.bind((client.source, 0))
    return made


class _Exchange(asyncio.Protocol):
    """Sends a request, and takes what comes until the other side has ended the connection."""

    def __init__(self, request: bytes, ended: asyncio.Future[bytes]) -> None:
        self._request = request
        self._ended = ended
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(bytes(self._received))


async def ask(target: Target, client: Client, request: ClientRequest, connect: float, within: float) -> Answer:
    """``connect``: seconds for TCP and TLS; ``within``: for all."""
    request.headers = sign_headers(client.identity, request.method, request.path, request.body, int(time.time()))
    ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    try:
        async with asyncio.timeout(within):
            async with asyncio.timeout(connect):
                transport = await _connected(target, client, _Exchange(request.wire(), ended))
            try:
                return Answer.of(await ended)
            finally:
                transport.abort()
    except (OSError, TimeoutError):
        return Answer()


async def _connected(target: Target, client: Client, exchange: _Exchange) -> asyncio.WriteTransport:
    """``exchange`` goes on over a connection of the client's."""
    loop, plain = asyncio.get_running_loop(), socket_of(client)
    try:
        await loop.sock_connect(plain, ("127.0.0.1", target.port))
    except BaseException:
        plain.close()
        raise
    name = "127.0.0.1" if target.tls else None
    transport, _ = await loop.create_connection(lambda: exchange, sock=plain, ssl=target.tls, server_hostname=name)
    return transport


# Connecting


@dataclass(frozen=True, slots=True)
class Back:
    """A client is connected: when, by the clock of ``time.monotonic``."""

    number: int
    at: float


@dataclass(slots=True)
class Told:
    """What a process of ``Connecting`` says at its end. ``answers``: how many of each status, 0 for none in time."""

    answers: Counter[int]
    processor: float  # seconds
    lost: int


class Connecting:
    """Clients that connect, in a process of their own, from ``go`` on: all at once, or ``most`` at any time. As
    ``wgpeer`` does, they come again after a while where they were not answered or told to."""

    def __init__(self, web: Target, clients: Sequence[Client], most: int = 0) -> None:
        self.told = Told(Counter(), 0.0, 0)
        connections.close_all()  # a child must not share the database with us
        context = multiprocessing.get_context("fork")
        # The child's end is the child's alone: should it die, reading ends.
        self._heard, self._said = context.Pipe(duplex=False)
        self._go = context.Event()
        self._process = context.Process(target=self._run, args=(web, clients, most), daemon=True)
        self._process.start()
        self._said.close()

    def go(self) -> Iterator[Back]:
        """Each as it is connected; ``told`` is complete at the end. Raise ``WrongAnswer`` if not all of them were."""
        self._go.set()
        try:
            while isinstance(said := self._heard.recv(), Back):
                yield said
        except EOFError:
            raise WrongAnswer("those who connect have ended") from None
        self.told = said
        self._process.join()
        if said.lost:
            raise WrongAnswer(f"{said.lost} clients were not connected: {dict(said.answers)}")

    def _run(self, web: Target, clients: Sequence[Client], most: int) -> None:
        self._go.wait()
        began = _processor()
        asyncio.run(self._all(web, clients, most))
        self.told.processor = _processor() - began
        self._said.send(self.told)

    async def _all(self, web: Target, clients: Sequence[Client], most: int) -> None:
        turn = asyncio.Semaphore(most or len(clients))
        await asyncio.gather(*(self._connect(web, client, turn) for client in clients))

    async def _connect(self, web: Target, client: Client, turn: asyncio.Semaphore) -> None:
        assert client.ask is not None
        async with turn:
            for _ in range(MOST_ROUNDS):
                answer = await ask(web, client, client.ask, constants.CONNECT_TIMEOUT, constants.RESPONSE_TIMEOUT)
                self.told.answers[answer.status] += 1
                if answer.status == 200 and answer.opened(client, client.ask)["allow"]:
                    self._said.send(Back(client.number, time.monotonic()))
                    return
                await asyncio.sleep(pause_after(answer))
        self.told.lost += 1


def pause_after(answer: Answer) -> float:
    """Seconds until ``wgpeer`` asks again a server that has one address."""
    asked = answer.retry_after or constants.BACK_OFF.get(answer.status, 0.0)
    usual = constants.ROUND_PAUSE * (1 + constants.ROUND_JITTER * (random.random() - 0.5))
    return max(asked * (1 + constants.ASKED_JITTER * random.random()), usual)


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
