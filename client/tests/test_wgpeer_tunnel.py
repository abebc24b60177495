"""The real thing: network namespaces, WireGuard on both sides (the kernel's where it has it, else wireguard-go), the
command itself, and a small server that checks all three proofs. Needs root."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import netns
from wgpeer.store import is_locked
from wgpeer.transport import HttpResponse
from wgpeer_fakes import (
    CONFIGURATION,
    OpenedRequest,
    allow,
    make_http_server,
    open_request,
    pong,
    profile_text,
    refuse,
    status,
)

pytestmark = pytest.mark.host

API_PORT, WEB_PORT, WG_PORT = 8443, 9790, 51821
WGPEER = [sys.executable, "-P", "-m", "wgpeer"]


def sh(*command: str, check: bool = True, text: str = "") -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, input=text)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def in_namespace(name: str, work: Callable[[], Any]) -> Any:
    """Run ``work`` on a thread that is in the namespace; a socket stays where it was made."""
    result: list[Any] = []

    def run() -> None:
        netns.setns(name)
        result.append(work())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert result, f"nothing came out of {name}"
    return result[0]


def until(what: Callable[[], Any], seconds: float = 10.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


@dataclass
class Host:
    """A VPN host in a namespace: wireguard-go, an API by HTTPS and the gateway's web by HTTP."""

    number: int
    name: str
    interface: str
    public_key: str = ""
    changes: dict[str, Any] = field(default_factory=dict)
    on_ping: Callable[[OpenedRequest], HttpResponse] = pong
    on_connect: Callable[[OpenedRequest], HttpResponse] | None = None
    seen: list[tuple[str, OpenedRequest]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"198.18.{self.number}.1"

    def answer(self, method: str, path: str, headers: dict[str, str], raw: bytes) -> HttpResponse:
        opened = open_request(self.address, method, path.split("?")[0], headers, raw)
        self.seen.append((opened.kind, opened))
        if opened.kind == "sync":
            return HttpResponse(200, b"{}")
        if opened.kind == "ping":
            return self.on_ping(opened)
        if self.on_connect:
            return self.on_connect(opened)
        key = opened.plaintext["wg_public_key"]
        self.wg("set", self.interface, "peer", key, "allowed-ips", "10.9.0.5/32,fd09::5/128")
        mine = {"hostname": self.address, "port": WG_PORT, "public_key": self.public_key, "ping_interval": 5}
        return allow(opened, **(CONFIGURATION | {"web_port": WEB_PORT} | mine | self.changes))

    def wg(self, *arguments: str, text: str = "") -> str:
        return sh("ip", "netns", "exec", self.name, "wg", *arguments, text=text)

    def of(self, kind: str) -> list[OpenedRequest]:
        return [opened for seen, opened in self.seen if seen == kind]


@dataclass
class Net:
    """Two hosts and a client, each host on a link of its own to the client."""

    tmp: Path
    client: str
    hosts: list[Host]

    def wgpeer(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = ["ip", "netns", "exec", self.client, *WGPEER, "--dir", str(self.tmp / "peer"), *arguments]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("WGPEER")}
        done = subprocess.run(command, capture_output=True, text=True, timeout=40, env=environment, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def run(self, *command: str, check: bool = True) -> str:
        return sh("ip", "netns", "exec", self.client, *command, check=check)

    def status(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.wgpeer("status", "office", "--json", check=False).stdout)
        return value

    def saved(self) -> dict[str, Any]:
        """As ``status``, but without starting a process."""
        value: dict[str, Any] = json.loads((self.tmp / "peer/run/office.status.json").read_text())
        return value

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_locked(self.tmp / "peer/run/office.lock"))

    def leftovers(self) -> str:
        """Everything of ours that a clean machine does not have."""
        links = [line for line in self.run("ip", "-o", "link").splitlines() if "wgp" in line]
        rules = [line for family in "46" for line in self.run("ip", f"-{family}", "rule").splitlines()]
        odd = [line for line in rules if line.split(":")[0] not in ("0", "32766", "32767")]
        tables = self.run("ip", "route", "show", "table", "all").splitlines()
        return "\n".join(links + odd + [line for line in tables if "table 77" in line])


def make_in_kernel(host: Host) -> bool:
    command = ["ip", "-n", host.name, "link", "add", host.interface, "type", "wireguard"]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


def make_host(net_name: str, number: int, tls: tuple[Path, Path], client: str, stack: ExitStack) -> Host:
    host = Host(number, f"{net_name}h{number}", f"wgt{net_name[3:]}{number}")
    sh("ip", "netns", "add", host.name)
    stack.callback(sh, "ip", "netns", "del", host.name, check=False)
    near, far = f"v{net_name[3:]}{number}a", f"v{net_name[3:]}{number}b"
    sh("ip", "link", "add", near, "netns", client, "type", "veth", "peer", "name", far, "netns", host.name)
    sh("ip", "-n", client, "addr", "add", f"198.18.{number}.2/24", "dev", near)
    sh("ip", "-n", client, "link", "set", near, "up")
    for address, device in ((f"{host.address}/24", far), ("203.0.113.7/32", "lo"), ("203.0.113.77/32", "lo")):
        sh("ip", "-n", host.name, "addr", "add", address, "dev", device)
    for device in (far, "lo"):
        sh("ip", "-n", host.name, "link", "set", device, "up")
    if not make_in_kernel(host):
        sh("ip", "netns", "exec", host.name, "wireguard-go", host.interface)
    stack.callback(sh, "ip", "-n", host.name, "link", "del", host.interface, check=False)
    key = sh("wg", "genkey").strip()
    host.wg("set", host.interface, "listen-port", str(WG_PORT), "private-key", "/proc/self/fd/0", text=key)
    host.public_key = host.wg("show", host.interface, "public-key").strip()
    sh("ip", "-n", host.name, "addr", "add", "10.9.0.1/24", "dev", host.interface)
    sh("ip", "-n", host.name, "addr", "add", "fd09::1/64", "dev", host.interface, "nodad")
    sh("ip", "-n", host.name, "link", "set", host.interface, "up")
    for address, port, certificate in ((host.address, API_PORT, tls), ("10.9.0.1", WEB_PORT, None)):
        make: Callable[[], ThreadingHTTPServer] = lambda a=address, p=port, c=certificate: make_http_server(  # type: ignore[misc]  # noqa: E731
            host.answer, (a, p), c
        )
        server = in_namespace(host.name, make)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return host


@pytest.fixture(scope="module")
def namespaces(certificate: tuple[Path, Path]) -> Iterator[tuple[str, list[Host]]]:
    name = f"wgn{secrets.token_hex(2)}"
    with ExitStack() as stack:
        sh("ip", "netns", "add", name)
        stack.callback(sh, "ip", "netns", "del", name, check=False)
        sh("ip", "-n", name, "link", "set", "lo", "up")
        yield name, [make_host(name, number, certificate, name, stack) for number in (1, 2)]


@pytest.fixture
def net(tmp_path: Path, namespaces: tuple[str, list[Host]]) -> Iterator[Net]:
    name, hosts = namespaces
    for host in hosts:
        host.changes, host.on_ping, host.on_connect = {}, pong, None
        host.seen.clear()
        sh("ip", "-n", name, "link", "set", f"v{name[3:]}{host.number}a", "up")
    sh("ip", "-n", name, "route", "replace", "default", "via", hosts[0].address)
    net = Net(tmp_path, name, hosts)
    urls = [f"https://{host.address}:{API_PORT}" for host in hosts]
    (tmp_path / "office.ovpn").write_text(profile_text(sync_hosts=urls))
    net.wgpeer("add", str(tmp_path / "office.ovpn"))
    try:
        yield net
    finally:
        net.wgpeer("down", check=False)
        print(net.wgpeer("logs", "office", check=False).stdout)  # pytest shows it when the test has failed


def only(net: Net, index: int) -> Host:
    """Make the other host refuse connects, so that the random order does not matter."""
    for host in net.hosts:
        host.on_connect = status(503)
    net.hosts[index].on_connect = None
    return net.hosts[index]


def test_up_traffic_status_down(net: Net) -> None:
    host = only(net, 0)
    host.changes = {"address6": "fd09::5/64", "routes6": [{"network": "fd09::/64"}], "dns_servers": ["10.9.0.1"]}
    shown = net.wgpeer("up", "office")
    assert "connected" in shown.stdout
    assert "not set" in shown.stderr  # neither resolvectl nor resolvconf works in here
    seen = net.status()
    assert seen["state"] == "connected"
    assert seen["address"] == "10.9.0.5/24, fd09::5/64"
    assert seen["gateway"] == "10.9.0.1"
    assert seen["host"] == f"https://{host.address}:{API_PORT}"
    assert seen["endpoint"] == f"{host.address}:{WG_PORT}"
    assert seen["public_key"] == host.of("wg")[-1].plaintext["wg_public_key"]
    assert seen["last_ping"] >= seen["since"] > 0
    assert seen["backend"] in ("kernel", "userspace")
    net.run("ping", "-c1", "-W3", "10.9.0.1")
    net.run("ping", "-6", "-c1", "-W3", "fd09::1")
    assert "mtu 1400" in net.run("ip", "link", "show", seen["interface"])
    for path in (net.tmp / "peer").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    again = net.wgpeer("up", "office")
    assert "up already" in again.stdout
    net.wgpeer("down")
    assert net.leftovers() == ""
    assert net.status()["state"] == "down"
    assert net.wgpeer("down", check=False).returncode == 5


def test_everything_through_the_tunnel_but_the_server_itself(net: Net) -> None:
    host = only(net, 0)
    # The third network holds the host's own address: a tunnel must never swallow its own packets.
    inside = [{"network": "10.9.0.0/24"}, {"network": "0.0.0.0/0"}, {"network": "198.18.0.0/15"}]
    host.changes = {"routes": [*inside, {"network": "203.0.113.77/32", "net_gateway": True}]}
    # The first ping is refused: it reconnects from inside the tunnel, so the API must be reachable around it.
    answers: list[Callable[[OpenedRequest], HttpResponse]] = [pong, status(404)]
    host.on_ping = lambda opened: answers.pop()(opened) if len(answers) > 1 else pong(opened)
    net.wgpeer("up", "office")
    interface, keys = net.saved()["interface"], [request.plaintext["wg_public_key"] for request in host.of("wg")]
    assert len(set(keys)) == len(keys) == 2
    assert net.saved()["public_key"] == keys[-1]
    assert net.saved()["reconnects"] == 1
    net.run("ping", "-c1", "-W3", "203.0.113.7")
    assert f"dev {interface}" in net.run("ip", "route", "get", "203.0.113.7")
    assert interface not in net.run("ip", "route", "get", "203.0.113.77")
    assert interface not in net.run("ip", "route", "get", host.address)  # the LAN of this machine stays its own
    assert f"dev {interface}" in net.run("ip", "route", "get", "198.19.9.9")
    assert interface not in net.run("ip", "route", "get", "198.19.9.9", "mark", "0x77677077")
    net.wgpeer("down")
    assert net.leftovers() == ""


def test_a_host_dies_and_the_other_takes_over(net: Net) -> None:
    first = only(net, 0)
    net.wgpeer("up", "office")
    net.hosts[1].on_connect = None
    near = f"v{net.client[3:]}1a"
    net.run("ip", "link", "set", near, "down")
    died = time.monotonic()
    until(lambda: net.hosts[1].of("ping"), 15)
    assert time.monotonic() - died < 5 + 3 + 4  # the ping interval of this lab, the silence, and the machine's slowness
    until(lambda: net.saved()["state"] == "connected")
    net.run("ping", "-c1", "-W3", "10.9.0.1")
    seen = net.saved()
    assert seen["endpoint"] == f"{net.hosts[1].address}:{WG_PORT}"
    assert seen["reconnects"] == 1
    assert seen["public_key"] != first.of("wg")[-1].plaintext["wg_public_key"]


def test_what_a_crash_leaves_is_swept_at_the_next_start(net: Net) -> None:
    only(net, 0)
    net.wgpeer("up", "office")
    before = net.saved()
    net.kill(before["pid"])
    assert net.status()["state"] == "failed"
    assert before["interface"] in net.leftovers()
    net.wgpeer("up", "office")
    after = net.saved()
    assert after["state"] == "connected"
    assert net.leftovers().count("state UNKNOWN") == 1, "one interface, the new one"
    net.kill(after["pid"])
    assert net.wgpeer("down", check=False).returncode == 5
    assert net.leftovers() == ""


def test_a_refusal_ends_it_in_words_and_with_its_own_exit_code(net: Net) -> None:
    net.hosts[0].on_connect = net.hosts[1].on_connect = lambda opened: refuse(opened, "Not permitted here")
    for more in ([], ["--foreground"]):
        done = net.wgpeer("up", "office", *more, check=False)
        assert done.returncode == 3
        assert "Not permitted here" in done.stderr
    assert net.status()["state"] == "refused"
    assert net.leftovers() == ""
    assert "Not permitted here" in net.wgpeer("logs", "office").stdout


def test_foreground_ends_cleanly_on_a_signal_even_while_a_host_is_silent(net: Net) -> None:
    """SIGTERM must end a request that waits, as well."""
    silent = in_namespace(net.hosts[0].name, lambda: socket.create_server((net.hosts[0].address, 8444)))
    with silent:
        (net.tmp / "slow.ovpn").write_text(
            profile_text(sync_hosts=[f"https://{net.hosts[0].address}:8444"], server_id="0123456789")
        )
        net.wgpeer("add", str(net.tmp / "slow.ovpn"))
        command = ["ip", "netns", "exec", net.client, *WGPEER, "--dir", str(net.tmp / "peer")]
        process = subprocess.Popen(
            [*command, "up", "slow", "--foreground"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            silent.settimeout(10)
            connection, _ = silent.accept()
            with connection:
                started = time.monotonic()
                process.send_signal(signal.SIGTERM)
                assert process.wait(5) == 0
                assert time.monotonic() - started < 2
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(5)
    assert net.leftovers() == ""
