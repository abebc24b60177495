"""Strangers who open connections and never finish what they began.

    python -m tests.strangers ADDRESS PORT COUNT SOURCES TLS

``COUNT`` connections to ``ADDRESS``, from ``SOURCES`` addresses of the loopback network in turn (0: from whatever
address the kernel takes), each of the kinds in ``KINDS`` in turn; ``TLS`` is 1 where the port speaks TLS. One that is
ended or refused is opened anew after a pause. "ready" is printed once each has been tried; it ends with its input."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.lab import HANGING, PYTHON, Namespace
from tests.stack import unverified

HEADERS = b"PUT /key/wg/o/u/s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n"
# What is sent after which nothing more comes, and whether after a handshake, where there is TLS.
KINDS = [
    (b"", False),
    (HEADERS + b'{"data"', True),
    (HEADERS[:40], True),
    (b"\x16\x03\x01\x02", False),  # a fifth of a ClientHello
    (HEADERS, True),
]
PAUSE = 2.0
AT_ONCE = 500  # the kernel's queue for connections that are not accepted yet is no part of the question


class Strangers:
    def __init__(self, address: str, port: int, sources: int, *, tls: bool) -> None:
        self._where = (address, port)
        self._sources = sources
        self._tls = unverified() if tls else None
        self._opening = asyncio.Semaphore(AT_ONCE)

    async def stay(self, number: int, tried: asyncio.Event) -> None:
        """Be one of them for ever."""
        sent, after_handshake = KINDS[number % len(KINDS)]
        source = (f"127.0.{1 + number % self._sources}.1", 0) if self._sources else None
        tls = self._tls if after_handshake else None
        while True:
            with contextlib.suppress(OSError):
                async with self._opening:
                    reader, writer = await self._begin(source, tls, sent, tried)
                await reader.read()
                writer.close()
            await asyncio.sleep(PAUSE)

    async def _begin(
        self, source: tuple[str, int] | None, tls: ssl.SSLContext | None, sent: bytes, tried: asyncio.Event
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            opening = asyncio.open_connection(*self._where, local_addr=source, ssl=tls)
            reader, writer = await asyncio.wait_for(opening, HANGING)
            writer.write(sent)
            return reader, writer
        finally:
            tried.set()


async def main(address: str, port: int, count: int, sources: int, *, tls: bool) -> None:
    strangers = Strangers(address, port, sources, tls=tls)
    tried = [asyncio.Event() for _ in range(count)]
    staying = [asyncio.create_task(strangers.stay(number, event)) for number, event in enumerate(tried)]
    for event in tried:
        await event.wait()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in staying:
        task.cancel()


class Here:
    """The network that we are in ourselves, for ``strangers``."""

    def command(self, *arguments: str | Path) -> list[str]:
        return [str(argument) for argument in arguments]


@contextlib.contextmanager
def strangers(
    where: Namespace | Here, address: str, port: int, count: int, *, sources: int = 0, tls: bool = False
) -> Iterator[None]:
    """They are there, on the machine ``where``, and stay until the end."""
    words = (address, str(port), str(count), str(sources), str(int(tls)))
    command = where.command("nice", PYTHON, "-m", "tests.strangers", *words)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield
        assert process.poll() is None, "the strangers went before the end"
    finally:
        process.kill()
        process.wait(HANGING)
        process.stdin.close()
        process.stdout.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), tls=sys.argv[5] == "1"))
