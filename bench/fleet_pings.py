"""The pings of simulated clients: what they say, when, and what they are told.

What a client computes is made beforehand, its whole ping included, since the server remembers nothing of one; and
nothing here is as comfortable as asyncio, which takes three times as long: they share the machine with the server.
"""

from __future__ import annotations

import heapq
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from queue import SimpleQueue

from wgpeer import constants

from bench.fleet_clients import INTERVAL, Answer, Client, Ready, socket_of
from bench.load import Target, WrongAnswer


@dataclass(frozen=True, slots=True)
class Ping:
    """One try of a ping: when it began by ``time.monotonic``, and for how many seconds it went on."""

    client: Client
    ready: Ready
    at: float
    seconds: float
    answer: Answer

    def counted(self) -> bool:
        """Whether the server says that the connection is there."""
        return self.answer.status == 200 and self.answer.opened(self.client, self.ready.request)["status"] is True


@dataclass(slots=True, eq=False)
class _Try:
    """``sent``: all of it. ``at``: when it began."""

    ready: Ready
    socket: socket.socket
    at: float
    sent: bool = False
    received: bytearray = field(default_factory=bytearray)


@dataclass(slots=True, eq=False)
class _Pinger:
    """A client from when it is connected until it is dropped. ``failed``: tries since the last answered ping."""

    client: Client
    pings: Sequence[Ready]
    due: float
    number: int = 0
    failed: int = 0
    dropped: bool = False
    now: _Try | None = None


class Pinging:
    """Clients that ping at their rate, in a thread. Who runs out of signed pings sends the last one again."""

    def __init__(self, gateway: Target) -> None:
        self._address = ("127.0.0.1", gateway.port)
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._orders: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._pingers: dict[int, _Pinger] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = count()
        self._ended = False
        self.pings: list[Ping] = []
        self.lost: list[Client] = []
        self._heard: dict[int, float] = {}  # when each sent the last ping that was answered
        self.processor = 0.0  # seconds that the thread has computed; known at its end
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(self, client: Client, first: float = 0.0) -> None:
        """From ``first`` seconds on."""
        self._order(partial(self._add, _Pinger(client, client.pings, time.monotonic() + first)))

    def drop(self, clients: Iterable[Client]) -> None:
        for client in clients:
            self._order(partial(self._drop, client.number))

    def heard(self, clients: Sequence[Client], since: float) -> bool:
        """Whether each has had a ping answered that it sent after ``since``. Raise ``WrongAnswer`` if some gave up."""
        if self.lost:
            raise WrongAnswer(f"{len(self.lost)} clients gave up pinging")
        return all(self._heard.get(client.number, 0.0) > since for client in clients)

    def stop(self) -> None:
        self._order(self._end)
        self._thread.join()

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.put(order)
        os.eventfd_write(self._wake, 1)

    # The thread

    def _run(self) -> None:
        while not self._ended:
            while self._due and self._due[0][0] <= time.monotonic():
                heapq.heappop(self._due)[2]()
            left = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            for found, _ in self._selector.select(left):
                if found.fd == self._wake:
                    self._obey()
                else:
                    self._go_on(*found.data)
        self._selector.close()
        os.close(self._wake)
        self.processor = time.thread_time()

    def _obey(self) -> None:
        os.eventfd_read(self._wake)
        while not self._orders.empty():
            self._orders.get()()

    def _end(self) -> None:
        for number in list(self._pingers):
            self._drop(number)
        self._ended = True

    def _at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when, next(self._count), action))

    def _add(self, pinger: _Pinger) -> None:
        self._pingers[pinger.client.number] = pinger
        self._at(pinger.due, partial(self._begin, pinger))

    def _drop(self, number: int) -> None:
        pinger = self._pingers.pop(number)
        pinger.dropped = True
        if pinger.now:
            self._close(pinger, pinger.now)

    def _begin(self, pinger: _Pinger) -> None:
        if pinger.dropped:
            return
        ready = pinger.pings[min(pinger.number, len(pinger.pings) - 1)]
        pinger.now = this = _Try(ready, socket_of(pinger.client), time.monotonic())
        self._selector.register(this.socket, selectors.EVENT_WRITE, (pinger, this))
        self._at(this.at + constants.PING_CONNECTS[-1], partial(self._give_up, pinger, this, sent=False))
        self._at(this.at + constants.PING_RESPONSE_TIMEOUT, partial(self._give_up, pinger, this, sent=True))
        this.socket.connect_ex(self._address)
        self._go_on(pinger, this)  # on this machine it is connected at once, nearly always

    def _give_up(self, pinger: _Pinger, this: _Try, *, sent: bool) -> None:
        if pinger.now is this and (sent or not this.sent):
            self._answered(pinger, this, Answer())

    def _go_on(self, pinger: _Pinger, this: _Try) -> None:
        """As far as it goes without waiting."""
        if pinger.now is not this:  # given up, or dropped, a moment ago
            return
        try:
            if not this.sent:
                this.socket.sendall(this.ready.wire)  # far less than a socket takes
                this.sent = True
                self._selector.modify(this.socket, selectors.EVENT_READ, (pinger, this))
                return
            piece = this.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            self._answered(pinger, this, Answer())
            return
        this.received += piece
        if not piece:
            self._answered(pinger, this, Answer.of(bytes(this.received)))

    def _answered(self, pinger: _Pinger, this: _Try, answer: Answer) -> None:
        now = time.monotonic()
        self._close(pinger, this)
        self.pings.append(Ping(pinger.client, this.ready, this.at, now - this.at, answer))
        if answer.status == 200:
            self._heard[pinger.client.number] = this.at
            pinger.due, pinger.number, pinger.failed = pinger.due + INTERVAL, pinger.number + 1, 0
        else:
            pinger.due, pinger.failed = now + constants.PING_RETRY_PAUSE, pinger.failed + 1
        if pinger.failed > constants.PING_RETRIES:
            self.lost.append(pinger.client)
        else:
            self._at(pinger.due, partial(self._begin, pinger))

    def _close(self, pinger: _Pinger, this: _Try) -> None:
        pinger.now = None
        self._selector.unregister(this.socket)
        this.socket.close()
