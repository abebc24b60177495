"""bench/fleet with a handful of clients, and what it stands on."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wgpeer import constants

from bench import processors
from bench.fleet_clients import Answer, Client, Ready, pause_after
from bench.fleet_host import ManyPeers
from bench.fleet_pings import Pinging
from bench.fleet_rounds import late_ms, percentile
from bench.load import Target
from servers.hostnet.wireguard.base import PeerChange
from tests.lab import HANGING, PROJECT, PYTHON, until
from tests.protocol_client import VECTORS, Identity, make_request
from tests.servers.hostnet.fakes import FakeLinks

KEYS = ("a", "b", "c")
ADDRESSES = tuple(f"10.9.0.{number}/32" for number in range(2, 6))
CHANGES = st.builds(
    PeerChange,
    public_key=st.sampled_from(KEYS),
    allowed_ips=st.lists(st.sampled_from(ADDRESSES), unique=True, max_size=3).map(tuple),
    remove=st.booleans(),
    add=st.booleans(),
)


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces")
def test_a_small_fleet_is_measured_and_nobody_is_lost() -> None:
    command = [str(PYTHON), "-m", "bench", "--json", "--clients", "12", "fleet"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=5 * HANGING, check=False)
    assert done.returncode == 0, done.stderr
    figure = json.loads(done.stdout)
    assert (figure["name"], figure["bar"]) == ("storm_to_connect_rate", 1.5)
    assert figure["value"] > 0
    assert "clients are back after" in done.stderr


def test_a_number_of_clients_is_for_the_fleet_alone() -> None:
    command = [str(PYTHON), "-m", "bench", "--clients", "12", "ping"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=HANGING, check=False)
    assert done.returncode == 2
    assert "--clients is for fleet alone" in done.stderr


@given(st.lists(CHANGES, max_size=20))
def test_an_interface_in_memory_has_each_address_at_the_peer_that_was_given_it_last(changes: list[PeerChange]) -> None:
    backend = ManyPeers(FakeLinks())
    backend.create("wgs1")
    wanted: dict[str, set[str]] = {}
    for change in changes:
        backend.set("wgs1", peers=[change])
        mine = wanted.pop(change.public_key, set()) if change.add or change.remove else set()
        wanted.pop(change.public_key, None)
        if change.remove:
            continue
        for others in wanted.values():
            others -= {*change.allowed_ips}
        wanted[change.public_key] = mine | {*change.allowed_ips}
    found = {key: set(peer.allowed_ips) for key, peer in backend.get("wgs1").peers.items()}
    assert found == wanted


def test_a_client_waits_as_long_as_it_was_told_and_never_less_than_a_round() -> None:
    answer = Answer.of(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 60\r\n\r\n{}")
    assert (answer.status, answer.retry_after) == (503, 60.0)
    assert all(60 <= pause_after(answer) <= 90 for _ in range(100))
    assert all(3.5 <= pause_after(Answer()) <= 10.5 for _ in range(100))
    assert Answer.of(b"HTTP/1.1 503 Service Unavailable\r\nserver: x\r\nretry-after: 5\r\n\r\n{}").retry_after == 5.0
    for broken_off in (b"", b"HTTP/1.1", b"HTTP/1.1 503 Service Unavailable"):
        assert Answer.of(broken_off).status == 0


@pytest.fixture
def gateway() -> Iterator[tuple[Target, list[bytes]]]:
    """It answers whatever it gets by the words that are left; by nothing where there are none."""
    words: list[bytes] = []

    class Answering(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            if words:
                self.request.sendall(words.pop(0))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answering) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        yield Target(server.server_address[1]), words
        server.shutdown()
        serving.join()


def pinging_client(number: int = 1) -> Client:
    nobody = Identity("o", "u", "s", "token", "secret", VECTORS["server_box_public_key"])
    request = make_request(nobody, method="PUT")
    return Client(number, nobody, pings=[Ready.of(request)])


def test_a_client_that_gets_no_good_answer_pings_again_and_one_that_does_waits_for_its_interval(
    gateway: tuple[Target, list[bytes]],
) -> None:
    target, words = gateway
    words += [b"HTTP/1.1 503 Service Unavailable\r\n\r\n{}", b"HTTP/1.1 200 OK\r\n\r\n{}"]
    client, began = pinging_client(), time.monotonic()
    pinging = Pinging(target)
    pinging.add(client)
    until(lambda: pinging.heard([client], began))
    pinging.stop()
    first, second = pinging.pings[:2]
    assert (first.answer.status, second.answer.status) == (503, 200)
    assert second.at - first.at >= constants.PING_RETRY_PAUSE
    assert pinging.processor > 0


def test_a_client_that_is_dropped_pings_no_more_and_may_come_back(gateway: tuple[Target, list[bytes]]) -> None:
    target, words = gateway
    words += 4 * [b"HTTP/1.1 200 OK\r\n\r\n{}"]
    client, other, pinging = pinging_client(), pinging_client(2), Pinging(target)
    pinging.add(client, 2 * HANGING)
    pinging.drop([client])
    pinging.add(client)
    pinging.add(other)
    until(lambda: pinging.heard([client, other], 0.0))
    pinging.drop([client, other])
    pinging.stop()
    assert {ping.client.number for ping in pinging.pings} == {1, 2}


def test_where_nobody_listens_no_answer_came() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        pinging, client = Pinging(Target(unused.getsockname()[1])), pinging_client()
        pinging.add(client)
        until(lambda: pinging.pings)
        pinging.stop()
    assert {ping.answer.status for ping in pinging.pings} == {0}
    assert not pinging.heard([client], 0.0)


def test_a_storm_in_which_nobody_pinged_is_described_all_the_same() -> None:
    assert late_ms([[0.010, 0.012], []]) == "12 (12-12)"
    assert late_ms([[], []]) == "no"
    with pytest.raises(ValueError, match="nothing was measured"):
        percentile([])


def test_a_programs_processor_time_is_that_of_all_its_processes() -> None:
    # A shell whose child computes, and another program that does nothing.
    busy = subprocess.Popen(["sh", "-c", f"{PYTHON} -c 'while True: pass' & wait"], start_new_session=True)
    idle = subprocess.Popen(["sleep", "600"])
    try:
        roots = {"busy": busy.pid, "idle": idle.pid}
        found = until(partial(_computed, roots, "busy"))
        assert found["idle"] < found["busy"]
    finally:
        os.killpg(busy.pid, 9)
        idle.kill()
        busy.wait(HANGING)
        idle.wait(HANGING)


def test_a_program_waits_for_a_processor_while_another_one_has_it() -> None:
    # Two that compute on one processor, and another program that does nothing.
    one = {min(os.sched_getaffinity(0))}
    compute = f"{PYTHON} -c 'import os; os.sched_setaffinity(0, {one})\nwhile True: pass'"
    busy = subprocess.Popen(["sh", "-c", f"{compute} & {compute} & wait"], start_new_session=True)
    idle = subprocess.Popen(["sleep", "600"])
    try:
        roots = {"busy": busy.pid, "idle": idle.pid}
        found = until(lambda: _if_much(processors.waited_by_program(roots), "busy"))
        assert found["idle"] < found["busy"]
    finally:
        os.killpg(busy.pid, 9)
        idle.kill()
        busy.wait(HANGING)
        idle.wait(HANGING)


def _computed(roots: dict[str, int], name: str) -> dict[str, float]:
    """How much each has computed, once this one has computed much."""
    return _if_much(processors.seconds_by_program(roots), name)


def _if_much(seconds: dict[str, float], name: str) -> dict[str, float]:
    return seconds if seconds[name] >= 0.2 else {}
