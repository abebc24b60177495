"""The client's name servers, by the real systemd-resolved of Debian."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

from tests.host.laptops import BUS, LAN_SERVER, TUNNEL, TUNNEL_SERVER, Laptop, debian, laptop, static
from tests.lab import HANGING, PYTHON, Namespace, ended_afterwards, until

__all__ = ["debian", "laptop"]


class Names:
    """A DNS server that knows one address for everything, and remembers what it was asked."""

    def __init__(self, where: Namespace, address: str, answer: str) -> None:
        self.asked: list[str] = []
        self._answer = socket.inet_aton(answer)
        self._socket = where.socket(address, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(HANGING)

    def _serve(self) -> None:
        while True:
            try:
                query, sender = self._socket.recvfrom(4096)
                if not query:
                    return
                end = query.index(b"\0", 12) + 5
                self._socket.sendto(self._reply(query, end), sender)
            except OSError:
                return

    def _reply(self, query: bytes, end: int) -> bytes:
        labels, at = [], 12
        while length := query[at]:
            labels.append(query[at + 1 : at + 1 + length].decode())
            at += length + 1
        self.asked.append(".".join(labels))
        kind = int.from_bytes(query[end - 4 : end - 2])
        found = kind == 1
        header = query[:2] + struct.pack("!HHHHH", 0x8180, 1, found, 0, 0)
        record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + self._answer if found else b""
        return header + query[12:end] + record


@pytest.fixture
def resolved(laptop: Laptop, debian: Path) -> Iterator[Laptop]:
    """systemd-resolved runs on the laptop, on a bus of its own, and asks the LAN's server."""
    laptop.lay(debian / "systemd-resolved")
    laptop.sh(
        "echo 'systemd-resolve:x:991:991::/:/usr/sbin/nologin' >> /etc/passwd;"
        "echo 'systemd-resolve:x:991:' >> /etc/group; mkdir -p /run/systemd/resolve;"
        "chown 991:991 /run/systemd/resolve; ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf;"
        "sed -i 's/^hosts:.*/hosts: files dns/' /etc/nsswitch.conf;"
        "printf '[Resolve]\\nLLMNR=no\\nMulticastDNS=no\\nFallbackDNS=\\n' > /etc/systemd/resolved.conf"
    )
    bus = laptop.directory / "bus.conf"
    bus.write_text(BUS)
    log = laptop.directory / "log"
    with contextlib.ExitStack() as stack:
        for command in (
            ["dbus-daemon", f"--config-file={bus}", "--nofork", "--nopidfile"],
            ["/lib/systemd/systemd-resolved"],
        ):
            process = laptop.machine.start(*command, log=log)
            stack.enter_context(ended_afterwards(process))
            ready = "/run/dbus/system_bus_socket" if "dbus" in command[0] else "/run/systemd/resolve/stub-resolv.conf"
            until(partial(laptop.has, ready))
        until(lambda: laptop.machine.run("resolvectl", "dns", "eth0", LAN_SERVER, check=False).returncode == 0)
        laptop.sh("resolvectl default-route eth0 yes")
        yield laptop


def about(laptop: Laptop, interface: str) -> dict[str, str]:
    """What resolvectl shows of an interface, the parts that we set."""
    shown = {}
    for what in ("dns", "domain", "default-route"):
        line = laptop.machine.run("resolvectl", what, interface).stdout.strip()
        shown[what] = line.partition(":")[2].strip()
    return shown


def test_resolved_gets_search_and_routing_domains_apart(resolved: Laptop) -> None:
    apart = TUNNEL | {"routing_domains": ["lab.example", "10.in-addr.arpa"]}
    words, interface = resolved.drive("crash", apart)
    assert words == (
        "10.9.0.1 for names under lab.example, 10.in-addr.arpa, corp.example, also for short names in corp.example "
        "(by systemd-resolved)"
    )
    expected = "corp.example ~lab.example ~10.in-addr.arpa"
    assert about(resolved, interface) == {"dns": "10.9.0.1", "domain": expected, "default-route": "no"}
    # What a crash left is taken out at the next start, here without the interface's going.
    resolved.lease.rename(resolved.directory / "kept.json")
    held = json.loads((resolved.directory / "kept.json").read_text())
    assert held["dns"]["manager"] == "systemd-resolved"
    resolved.lease.write_text(json.dumps(held | {"interface": "wgp99"}))
    resolved.drive("sweep")
    assert about(resolved, interface)["dns"] == ""
    assert about(resolved, interface)["domain"] == ""
    (resolved.directory / "kept.json").rename(resolved.lease)
    resolved.drive("sweep")
    assert about(resolved, "eth0")["dns"] == LAN_SERVER


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"routes": [{"network": "0.0.0.0/0"}], "routing_domains": ["lab.example"]},
        {"routes6": [{"network": "::/0"}], "routing_domains": ["lab.example"]},
    ],
    ids=["no routing domains", "everything in IPv4", "everything in IPv6"],
)
def test_resolved_gets_all_names(resolved: Laptop, changes: dict[str, Any]) -> None:
    words, interface = resolved.drive("crash", TUNNEL | changes)
    assert words.startswith("10.9.0.1 for all names")
    shown = about(resolved, interface)
    assert "~." in shown["domain"].split()
    assert shown["default-route"] == "yes"
    resolved.drive("sweep")


def test_real_lookups_go_where_they_belong(resolved: Laptop) -> None:
    """By an interface that leads to a server as a tunnel would."""
    machine, far = resolved.machine, resolved.far
    machine.ip("link", "add", "wgp7", "type", "veth", "peer", "name", "inside", "netns", str(far.pid))
    machine.ip("addr", "add", "10.9.0.5/24", "dev", "wgp7")
    far.ip("addr", "add", f"{TUNNEL_SERVER}/24", "dev", "inside")
    for namespace, name in ((machine, "wgp7"), (far, "inside")):
        namespace.ip("link", "set", name, "up")
    script = (
        "import sys, json, socket\nfrom wgpeer.tunnel.dns import *\nchanges = []\n"
        "config = DnsConfig(('10.9.0.1',), ('corp.example',), tuple(json.loads(sys.argv[1])))\n"
        "print(apply('wgp7', socket.if_nametoindex('wgp7'), config, changes.append))\n"
        "if len(sys.argv) > 2: revert(changes[-1])\n"
    )

    def run(*domains: str, undo: bool = False) -> None:
        machine.run(PYTHON, "-P", "-c", script, json.dumps(domains), *(["undo"] if undo else []))

    with Names(far, LAN_SERVER, "203.0.113.1") as lan, Names(far, TUNNEL_SERVER, "203.0.113.2") as inside:
        assert resolved.addresses("db.lab.example") == "203.0.113.1"
        run("lab.example")
        assert resolved.addresses("db.lab.example") == "203.0.113.2"  # and not what was remembered from before
        assert resolved.addresses("www.example.net") == "203.0.113.1"
        assert resolved.addresses("wiki") == "203.0.113.2"
        assert "wiki.corp.example" in inside.asked
        assert not [name for name in inside.asked if name.endswith("example.net")]
        assert not [name for name in lan.asked if name.endswith("corp.example")]
        lan.asked.clear()
        run()  # all names
        assert resolved.addresses("www.example.net") == "203.0.113.2"
        assert resolved.addresses("other.example.net") == "203.0.113.2"
        assert lan.asked == []
        run(undo=True)
        assert resolved.addresses("db.lab.example") == "203.0.113.1"


def test_resolved_that_nobody_asks_is_said(resolved: Laptop) -> None:
    before = static(resolved)
    words, interface = resolved.drive("crash", TUNNEL)
    assert words.startswith("not set: /etc/resolv.conf does not lead to systemd-resolved; if it should, ln -sf")
    assert about(resolved, interface)["dns"] == ""
    assert resolved.resolv_conf == before
    resolved.drive("sweep")


def test_resolved_that_does_not_run_is_said(resolved: Laptop) -> None:
    for pid in resolved.machine.processes():
        with contextlib.suppress(OSError):
            if "resolved" in os.readlink(f"/proc/{pid}/exe"):
                os.kill(pid, signal.SIGKILL)
    words, _ = resolved.drive("crash", TUNNEL)
    assert words.startswith("not set: systemd-resolved does not take it (")
    resolved.drive("sweep")
