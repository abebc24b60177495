"""Network namespaces with two VPN hosts and a client: WireGuard on both sides (the kernel's where it has it, else
wireguard-go), the command itself, and a small server that checks all three proofs. Needs root."""

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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import wgpeer_fakes
from pyroute2 import netns
from wgpeer.store import is_locked
from wgpeer.transport import HttpResponse
from wgpeer_fakes import (
    CONFIGURATION,
    HANGING,
    OpenedRequest,
    allow,
    make_http_server,
    open_request,
    pong,
    profile_text,
    status,
)

API_PORT, WEB_PORT, WG_PORT = 8443, 9790, 51821
LONG = 2 * HANGING  # for a command that itself waits for so long
WGPEER = [sys.executable, "-P", "-m", "wgpeer"]


def sh(*command: str, check: bool = True, text: str = "") -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGING, check=False, input=text)
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
    thread.join(HANGING)
    assert result, f"nothing came out of {name}"
    return result[0]


def until(what: Callable[[], Any]) -> Any:
    """Wait for something, and give it. The limit is there for what never comes, not for what comes late."""
    deadline = time.monotonic() + HANGING
    while not (value := what()):
        assert time.monotonic() < deadline, "it did not happen"
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
    sync: bytes = b"{}"
    seen: list[tuple[str, OpenedRequest]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"198.18.{self.number}.1"

    def answer(self, method: str, path: str, headers: dict[str, str], raw: bytes) -> HttpResponse:
        opened = open_request(self.address, method, path.split("?")[0], headers, raw)
        self.seen.append((opened.kind, opened))
        if opened.kind == "sync":
            return HttpResponse(200, self.sync)
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
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, env=environment, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def up(self) -> subprocess.CompletedProcess[str]:
        return self.wgpeer("up", "office", "--wait", str(HANGING))

    def run(self, *command: str, check: bool = True) -> str:
        return sh("ip", "netns", "exec", self.client, *command, check=check)

    def status(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.wgpeer("status", "office", "--json", check=False).stdout)
        return value

    def saved(self) -> dict[str, Any]:
        """As ``status``, but without starting a process."""
        value: dict[str, Any] = json.loads((self.tmp / "peer/run/office.status.json").read_text())
        return value

    def ping(self, address: str) -> None:
        """One packet to an address, and its reply. Only a packet that is lost fails, not one that is late."""
        self.run("ping", "-c1", f"-W{HANGING:.0f}", address)

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_locked(self.tmp / "peer/run/office.lock"))

    def leftovers(self) -> str:
        """Everything of ours that a clean machine does not have."""
        links = [line for line in self.run("ip", "-o", "link").splitlines() if "wgp" in line]
        rules = [line for family in "46" for line in self.run("ip", f"-{family}", "rule").splitlines()]
        odd = [line for line in rules if line.split(":")[0] not in ("0", "32766", "32767")]
        tables = self.run("ip", "route", "show", "table", "all").splitlines()
        guards = [line for line in self.run("nft", "list", "tables").splitlines() if "wgpeer" in line]
        return "\n".join(links + odd + guards + [line for line in tables if "table 77" in line])


def make_in_kernel(host: Host) -> bool:
    command = ["ip", "-n", host.name, "link", "add", host.interface, "type", "wireguard"]
    return subprocess.run(command, capture_output=True, timeout=HANGING, check=False).returncode == 0


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
        host.changes, host.on_ping, host.on_connect, host.sync = {}, pong, None, b"{}"
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


OUT4, OUT6 = "203.0.113.7", "2001:db8:99::7"  # somewhere on the internet


EVERYTHING: dict[str, Any] = {
    "address6": "fd09::5/64",
    "routes": [{"network": "10.9.0.0/24"}, {"network": "0.0.0.0/0"}],
    "routes6": [{"network": "fd09::/64"}, {"network": "::/0"}],
}


class Server6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


@pytest.fixture
def dual(net: Net, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Net]:
    """Both hosts have IPv6 as well, and their API answers there; the client's way out is by the first."""
    with ExitStack() as stack:
        for host in net.hosts:
            near, far = (f"v{net.client[3:]}{host.number}{side}" for side in "ab")
            for where, part, device in ((net.client, 2, near), (host.name, 1, far)):
                address = ["addr", "replace", f"2001:db8:{host.number}::{part}/64", "dev", device, "nodad"]
                sh("ip", "-n", where, *address)
            sh("ip", "-n", host.name, "addr", "replace", f"{OUT6}/128", "dev", "lo")
            make: Callable[[], ThreadingHTTPServer] = lambda h=host: make_http_server(  # type: ignore[misc]  # noqa: E731
                h.answer, (address6(h), API_PORT), certificate
            )
            with monkeypatch.context() as patch:
                patch.setattr(wgpeer_fakes, "ThreadingHTTPServer", Server6)
                server = in_namespace(host.name, make)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        sh("ip", "-n", net.client, "-6", "route", "replace", "default", "via", address6(net.hosts[0]))
        yield net
        net.wgpeer("down", check=False)


def address6(host: Host) -> str:
    return f"2001:db8:{host.number}::1"


@contextmanager
def reconnect(net: Net) -> Iterator[None]:
    """What is done within ends the connection; afterwards there is a new one."""
    before = net.saved()["reconnects"]
    yield
    until(lambda: net.saved()["reconnects"] > before and net.saved()["state"] == "connected")


@contextmanager
def repaired(net: Net) -> Iterator[None]:
    """What is done within is put back."""
    before = net.saved()["repairs"]
    yield
    until(lambda: net.saved()["repairs"] > before and net.saved()["state"] == "connected")


def cut(host: Host, *, off: bool) -> None:
    """Let a host vanish from the network, and come back."""
    table = ["nft", "delete", "table", "inet", "away"]
    if off:
        rule = "add table inet away; add chain inet away in { type filter hook input priority 0; policy drop; }"
        table = ["nft", rule]
    sh("ip", "netns", "exec", host.name, *table)
