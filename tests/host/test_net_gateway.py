"""Pings on a host that is not gateway web's: to the first node that answers, and a 503 at once where none does. Real
packets through a real tunnel, the real host worker and nginx."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from servers.hostnet.gateway.proxy import HOMES
from servers.hostnet.state import Gateway
from tests.host.conftest import HOST_ID, WEB_PORT, World
from tests.lab import HANGING, NEVER, PYTHON, Machine, ended_afterwards, until

pytestmark = pytest.mark.host

PORT = 9790
# Answers with its name and what it was told of the client. A path that names its status gets that.
NODE = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_PUT(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        said = {"node": sys.argv[1], "from": self.client_address[0], "body": body, **dict(self.headers)}
        answer = json.dumps(said).encode()
        status = int(self.path.rpartition("/")[2]) if self.path.startswith("/key/status/") else 200
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    do_GET = do_PUT
    def log_message(self, *_):
        pass
ThreadingHTTPServer((sys.argv[2], int(sys.argv[3])), Handler).serve_forever()
"""


@dataclass
class Node:
    """A machine with a gateway web. The lab's internet stands for the mesh."""

    machine: Machine
    name: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def gateway(self) -> Gateway:
        return Gateway(self.machine.address, PORT)

    def start(self, closing: contextlib.ExitStack) -> None:
        self.process = self.machine.start(PYTHON, "-c", NODE, self.name, self.machine.address, str(PORT))
        closing.enter_context(ended_afterwards(self.process))
        until(lambda: self.machine.ask_tcp(self.machine.address, PORT, b"GET /key/ HTTP/1.0\r\n\r\n"))

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(HANGING)

    def cut(self, cut: bool) -> None:
        """As when its machine loses power or its link: what is sent to it vanishes."""
        self.machine.ip("link", "set", self.machine.interface, "down" if cut else "up")


@dataclass
class Scene:
    world: World
    client: Machine
    first: Node
    second: Node

    def send(self, *gateways: Gateway) -> None:
        state = dataclasses.replace(self.world.state(), gateways=gateways)
        self.world.version += 1
        self.world.control.send(dataclasses.replace(state, version=self.world.version))
        self.world.control.report("applied", version=self.world.version)

    def ask(self, path: str = "/key/wg/x", timeout: float = HANGING) -> tuple[int, dict[str, str]]:
        """Status and answer of a ping; 0 where nothing came."""
        request = (
            f"PUT {path} HTTP/1.1\r\nHost: 10.9.0.1:9790\r\nX-Host-Client: 1.2.3.4\r\nX-Host-Gateway: 1.2.3.4\r\n"
            "Connection: close\r\nContent-Length: 4\r\n\r\nping"
        )
        answer = self.client.ask_tcp("10.9.0.1", WEB_PORT, request.encode(), timeout=timeout)
        if not answer:
            return 0, {}
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)

    def node(self) -> str:
        return self.ask()[1].get("node", "")


@pytest.fixture(scope="module")
def scene(world: World) -> Iterator[Scene]:
    with contextlib.ExitStack() as closing:
        client = world.lab.add_client()
        world.connect(client, "one", "a1", "10.9.0.11", routes=["10.9.0.0/24"])
        nodes = [Node(world.lab.add_client(), name) for name in ("first", "second")]
        for node in nodes:
            node.start(closing)
        yield Scene(world, client, *nodes)
        Scene(world, client, *nodes).send()


@pytest.fixture(autouse=True)
def both(scene: Scene) -> Iterator[None]:
    """Both nodes answer, and the first is asked."""
    with contextlib.ExitStack() as closing:
        for node in (scene.first, scene.second):
            node.cut(False)
            if node.process is None or node.process.poll() is not None:
                node.start(closing)
        scene.send(scene.first.gateway, scene.second.gateway)
        until(lambda: scene.node() == "first", every=0.2)
        yield


def test_a_ping_reaches_gateway_web_on_another_machine_with_its_clients_address(scene: Scene) -> None:
    status, said = scene.ask()
    assert (status, said["node"], said["body"], said["Host"]) == (200, "first", "ping", "10.9.0.1:9790")
    # What a client claims by these names is overwritten.
    assert (said["X-Host-Client"], said["X-Host-Gateway"]) == ("10.9.0.11", "10.9.0.1")
    assert said["from"] == scene.world.host.address


@pytest.mark.parametrize("status", [401, 404, 500])
def test_what_gateway_web_decided_is_the_clients_answer(scene: Scene, status: int) -> None:
    assert scene.ask(f"/key/status/{status}")[0] == status
    assert scene.node() == "first"


def test_other_paths_are_hung_up_on(scene: Scene) -> None:
    assert scene.ask("/admin/") == (0, {})


def test_nobody_but_tunnels_reaches_it(scene: Scene) -> None:
    request = b"PUT /key/x HTTP/1.0\r\n\r\n"
    stranger = scene.world.lab.internet
    for address in (scene.world.host.address, "10.9.0.1"):
        assert not stranger.ask_tcp(address, WEB_PORT, request, timeout=NEVER)


def test_a_node_that_died_is_left_at_once_for_the_next(scene: Scene) -> None:
    scene.first.kill()
    began = time.monotonic()
    assert scene.node() == "second"
    print(f"answered by the next node after {time.monotonic() - began:.2f} s")


def test_a_node_that_says_503_is_left_for_the_next(scene: Scene) -> None:
    assert scene.ask("/key/status/503")[0] == 503  # both were asked
    until(lambda: scene.node() == "first", every=0.2)


def test_a_node_that_vanished_is_left_within_three_seconds_and_then_nobody_waits(scene: Scene) -> None:
    scene.first.cut(True)
    began = time.monotonic()
    assert scene.node() == "second"
    waited = time.monotonic() - began
    began = time.monotonic()
    assert scene.node() == "second"
    print(f"answered by the next node after {waited:.2f} s, then after {time.monotonic() - began:.2f} s")


def test_where_no_node_answers_the_host_says_so_at_once(scene: Scene) -> None:
    scene.first.kill()
    scene.second.kill()
    began = time.monotonic()
    status, said = scene.ask()
    print(f"503 after {time.monotonic() - began:.2f} s")
    assert (status, said) == (503, {"error": "unavailable", "detail": "try again"})
    with contextlib.ExitStack() as closing:
        scene.first.start(closing)
        until(lambda: scene.node() == "first", every=0.2)


def test_where_all_have_vanished_only_the_first_to_ask_waits(scene: Scene) -> None:
    scene.first.cut(True)
    scene.second.cut(True)
    waits = []
    for _ in range(4):
        began = time.monotonic()
        assert scene.ask()[0] == 503
        waits.append(time.monotonic() - began)
    print("503 after " + ", ".join(f"{wait:.2f}" for wait in waits) + " s")


def home(scene: Scene) -> Path:
    """Where the host has its files, as its own mounts have it."""
    return Path(f"/proc/{scene.world.host.pid}/root") / (HOMES / HOST_ID).relative_to("/")


def nginx(scene: Scene) -> int:
    """The pid of the host's nginx, as it says itself; 0 where it does not."""
    with contextlib.suppress(FileNotFoundError):
        return int((home(scene) / "own" / "nginx.pid").read_text() or 0)
    return 0


def test_it_has_no_rights_at_all(scene: Scene) -> None:
    status = Path(f"/proc/{nginx(scene)}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split()[0] != "0"
    assert {fields[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0" * 16}
    assert (fields["NoNewPrivs"], fields["Groups"].strip()) == ("1", "")


def test_killed_it_is_started_again(scene: Scene) -> None:
    before = nginx(scene)
    os.kill(before, signal.SIGKILL)
    # Its own children serve on without it, and hold its port.
    until(lambda: nginx(scene) not in (0, before), every=0.2)
    assert scene.node() == "first"


def test_a_cleanup_ends_that_of_its_own_machine_alone(scene: Scene) -> None:
    before = nginx(scene)
    clean = (PYTHON, "-c", "from servers.hostnet.gateway import proxy; proxy.cleanup()")
    scene.world.host.run("nsenter", f"--net=/proc/{scene.client.pid}/ns/net", *clean)
    assert nginx(scene) == before
    assert scene.node() == "first"
    scene.world.host.run(*clean)
    # The worker lives, and puts it back.
    until(lambda: scene.node() == "first" and nginx(scene) not in (0, before), every=0.2)


def test_pings_go_on_while_the_worker_is_away_and_its_successor_takes_over(scene: Scene) -> None:
    before = nginx(scene)
    scene.world.kill_worker()
    assert scene.node() == "first"
    scene.world.launch()
    scene.world.boot = scene.world.control.report("hello")["boot"]
    scene.send(scene.second.gateway, scene.first.gateway)
    until(lambda: scene.node() == "second", every=0.2)
    assert nginx(scene) == before  # it read its file anew


def test_where_gateway_web_is_here_again_nothing_listens(scene: Scene) -> None:
    scene.send()
    until(lambda: scene.ask(timeout=NEVER) == (0, {}) and not home(scene).exists(), every=0.2)
