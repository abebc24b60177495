"""From the client's start until the gateway answers through the tunnel, on a server that is up.

Seconds, because what it guards against is a time of WireGuard's own: a handshake that is lost, or begun before the
host knows the peer, is repeated after 5 s.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure, spread
from bench.installation import say
from bench.load import WrongAnswer
from bench.run import Run
from tests.lab import Lab, until
from tests.stack import WgPeer

ROUNDS = 15
ANSWER = 0.1  # seconds for one ping; it is asked again until one is answered


def measure(directory: Path) -> Iterator[Figure]:
    with Lab() as lab:
        machine = lab.add_host()
        run = Run(machine, directory / "run")
        run.start()
        client = WgPeer(lab.add_client(), directory)
        client.add(_found(r"Import link\s+(\S+)", run.said()))
        gateway = _found(r"inet ([0-9.]+)/", machine.ip("-4", "addr", "show", "dev", "wgs1"))
        _connect(client, gateway)  # the first one allots the address
        took = [_connect(client, gateway) for _ in range(ROUNDS)]
        run.stop()
    note = f"s, of {ROUNDS}: {spread(took)}"
    yield Figure("reconnect", statistics.median(took), "s", 3.0, at_most=True, note=note)
    yield Figure("reconnect_longest", max(took), "s", 5.0, at_most=True)


def _connect(client: WgPeer, gateway: str) -> float:
    """Start the client, wait until the gateway answers, and end it; the seconds from one to the other."""
    began = time.perf_counter()
    client.up()
    until(lambda: client.machine.pings(gateway, ANSWER))
    took = time.perf_counter() - began
    client.end()
    say(f"reconnect: {took:.2f} s")
    return took


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise WrongAnswer(f"no {pattern} in: {text}")
    return found[1]
