"""The machine's side of a connection, in this process: real WireGuard in a namespace, on the backend that is there."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from nacl.public import PrivateKey
from pyroute2 import netns
from wgpeer.constants import RULE_PRIORITY, TABLE_BASE
from wgpeer.envelope import b64
from wgpeer.responses import Configuration, read_configuration
from wgpeer.store import read_json, write_file
from wgpeer.tunnel import link, linux
from wgpeer.tunnel.contract import TunnelError
from wgpeer.tunnel.linux import LinuxTunnel
from wgpeer.tunnel.recovery import BOOT_ID, clean_up
from wgpeer_fakes import CONFIGURATION, HANGING

pytestmark = pytest.mark.host
PORT = 51822
HANDSHAKE_INITIATION = b"\x01"  # the first byte of WireGuard's packet that begins a handshake


def sh(*command: str, text: str = "", check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGING, check=False, input=text)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[str, str, str]]:
    """A client's and a host's namespace on one link; the names of both, and of the host's interface."""
    mark = secrets.token_hex(2)
    client, host, interface = f"wmc{mark}", f"wmh{mark}", f"wmt{mark}"
    with ExitStack() as stack:
        for name in (client, host):
            sh("ip", "netns", "add", name)
            stack.callback(sh, "ip", "netns", "del", name, check=False)
            sh("ip", "-n", name, "link", "set", "lo", "up")
        sh("ip", "link", "add", "a" + mark, "netns", client, "type", "veth", "peer", "name", "b" + mark, "netns", host)
        for name, device, address in ((client, "a" + mark, "198.18.5.2/24"), (host, "b" + mark, "198.18.5.1/24")):
            sh("ip", "-n", name, "addr", "add", address, "dev", device)
            sh("ip", "-n", name, "link", "set", device, "up")
        if not kernel_has_wireguard(host, interface):
            sh("ip", "netns", "exec", host, "wireguard-go", interface)
        stack.callback(sh, "ip", "-n", host, "link", "del", interface, check=False)
        sh("ip", "-n", host, "addr", "add", "10.9.0.1/24", "dev", interface)
        sh("ip", "-n", host, "link", "set", interface, "up")
        # Whatever a test leaves goes, also when it fails: a process would keep its namespace alive for ever.
        stack.callback(inside, client, partial(clean_up, tmp_path / "recovery.json"))
        yield client, host, interface


def kernel_has_wireguard(namespace: str, interface: str) -> bool:
    command = ["ip", "-n", namespace, "link", "add", interface, "type", "wireguard"]
    return subprocess.run(command, capture_output=True, timeout=HANGING, check=False).returncode == 0


def inside(namespace: str, work: Callable[[], Any]) -> Any:
    """Run ``work`` on a thread in the namespace, and hand on what it gives or raises."""
    result: list[Any] = []

    def run() -> None:
        netns.setns(namespace)
        try:
            result.append((work(), None))
        except Exception as error:  # handed on to the test's thread
            result.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(HANGING)
    value, error = result[0]
    if error:
        raise error
    return value


def host_key(host: str, interface: str) -> str:
    private = sh("wg", "genkey").strip()
    command = ["ip", "netns", "exec", host, "wg"]
    sh(*command, "set", interface, "listen-port", str(PORT), "private-key", "/proc/self/fd/0", text=private)
    return sh(*command, "show", interface, "public-key").strip()


def let_in(host: str, interface: str, key: PrivateKey, address: str) -> None:
    command = ["ip", "netns", "exec", host, "wg", "set", interface, "peer", b64(bytes(key.public_key))]
    sh(*command, "allowed-ips", f"{address}/32")


def configuration(public_key: str, address: str) -> Configuration:
    changes = {"hostname": "198.18.5.1", "port": PORT, "public_key": public_key, "address": f"{address}/24"}
    return read_configuration(CONFIGURATION | changes)


def test_made_changed_repaired_and_taken_away(pair: tuple[str, str, str], tmp_path: Path) -> None:
    client, host, interface = pair
    said: list[str] = []
    tunnel = LinuxTunnel(tmp_path / "recovery.json", lambda name: [name], said.append)

    def use(address: str, public_key: str) -> str:
        key = PrivateKey.generate()
        let_in(host, interface, key, address)
        tunnel.up(configuration(public_key, address), key, use_dns=True, use_default_route=True)
        sh("ping", "-c1", f"-W{HANGING:.0f}", "10.9.0.1")
        shown = sh("wg", "show", tunnel.interface, "dump").splitlines()
        assert len(shown) == 2, "exactly one peer"
        assert shown[0].split()[1] == b64(bytes(key.public_key))
        assert shown[0].split()[3] == "0x77677077"
        assert shown[1].split()[0] == public_key
        assert int(shown[1].split()[4]) > 0
        return sh("ip", "-o", "-4", "addr", "show", tunnel.interface)

    def work() -> None:
        first = use("10.9.0.5", host_key(host, interface))
        assert "10.9.0.5/24" in first
        index = link.interface_index(tunnel.interface)
        assert read_json(tunnel.recovery_file)["index"] == index
        second = use("10.9.0.6", host_key(host, interface))  # another key, another peer, another address
        assert "10.9.0.6/24" in second
        assert "10.9.0.5" not in second
        assert link.interface_index(tunnel.interface) == index, "the same interface, so nothing leaked meanwhile"
        sh("ip", "link", "del", tunnel.interface)  # somebody else did that
        assert "10.9.0.7/24" in use("10.9.0.7", host_key(host, interface))
        name = tunnel.interface
        tunnel.down()
        tunnel.down()
        assert link.interface_index(name) == 0
        assert "77" not in sh("ip", "rule").replace("32767", "").replace("32766", "")
        assert not tunnel.recovery_file.exists()

    inside(client, work)


def test_a_host_without_a_route_to_it_is_an_error_that_says_so(pair: tuple[str, str, str], tmp_path: Path) -> None:
    client, _, _ = pair
    tunnel = LinuxTunnel(tmp_path / "recovery.json", lambda _name: ["203.0.113.1"], lambda _line: None)
    where = configuration(b64(bytes(32)), "10.9.0.5")

    def work() -> None:
        with pytest.raises(TunnelError, match="no way"):
            tunnel.up(where, PrivateKey.generate(), use_dns=False, use_default_route=True)

    inside(client, work)


def test_the_first_endpoint_with_a_way_is_taken(pair: tuple[str, str, str], tmp_path: Path) -> None:
    client, host, interface = pair
    known = {"v4.example": ["203.0.113.1", "198.18.5.1"], "v6.example": ["2001:db8::1"]}
    tunnel = LinuxTunnel(tmp_path / "recovery.json", known.__getitem__, lambda _line: None)
    where = replace(configuration(host_key(host, interface), "10.9.0.5"), endpoints=("v6.example", "v4.example"))

    def work() -> str:
        try:
            return tunnel.up(where, PrivateKey.generate(), use_dns=False, use_default_route=True)
        finally:
            tunnel.down()

    assert inside(client, work) == f"198.18.5.1:{PORT}"


def test_a_lost_handshake_is_begun_again_after_a_second(
    pair: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host knows no such peer, and so answers none of six. By itself WireGuard never begins one within 5 s."""
    client, host, interface = pair
    triggered, seen, waited = list[str](), list[float](), list[float]()
    real = link.trigger_handshake

    def trigger(name: str, address: str) -> None:
        triggered.append(address)
        real(name, address)

    def tap() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        made.bind((f"b{interface[3:]}", 0x0800))
        made.settimeout(HANGING)
        return made

    def wait(seconds: float) -> None:
        waited.append(seconds)
        while len(seen) < len(triggered):
            packet = wire.recv(65536)
            if packet[9] == socket.IPPROTO_UDP and packet[28:29] == HANDSHAKE_INITIATION:  # behind IPv4 and UDP headers
                seen.append(time.monotonic())

    monkeypatch.setattr(link, "trigger_handshake", trigger)
    monkeypatch.setattr(linux, "HANDSHAKE_ATTEMPTS", 6)
    tunnel = LinuxTunnel(tmp_path / "recovery.json", lambda name: [name], lambda _line: None, wait)
    where = configuration(host_key(host, interface), "10.9.0.5")
    with inside(host, tap) as wire:
        inside(client, lambda: tunnel.up(where, PrivateKey.generate(), use_dns=False, use_default_route=True))
    assert triggered == ["10.9.0.1"] * 6
    assert sum(waited) == pytest.approx(6 * 1.0)
    assert min(later - earlier for earlier, later in pairwise(seen)) < 5


def test_an_interface_that_has_become_anothers_is_left_alone(pair: tuple[str, str, str], tmp_path: Path) -> None:
    client, host, interface = pair
    tunnel = LinuxTunnel(tmp_path / "recovery.json", lambda name: [name], lambda _line: None)

    def work() -> None:
        where = configuration(host_key(host, interface), "10.9.0.5")
        tunnel.up(where, PrivateKey.generate(), use_dns=False, use_default_route=True)
        name = tunnel.interface
        sh("ip", "link", "del", name)
        sh("ip", "link", "add", name, "type", "veth")  # another program has taken the name
        clean_up(tunnel.recovery_file)
        assert link.interface_index(name) > 0
        assert not tunnel.recovery_file.exists()

    inside(client, work)


def test_tables_of_a_lost_interface_go_with_the_recovery_file_but_not_those_of_a_link_that_has_its_name(
    pair: tuple[str, str, str], tmp_path: Path
) -> None:
    """As a crash leaves them, between losing a name and having its successor work."""
    held = {
        "interface": "wgp9",
        "index": 0,
        "lost_interfaces": ["wgp7", "wgp8", "eth0", 5],
        "boot": BOOT_ID.read_text().strip(),
    }
    write_file(tmp_path / "recovery.json", json.dumps(held))

    def work() -> None:
        sh("ip", "link", "add", "wgp8", "type", "veth")
        for number in (7, 8):
            table = str(TABLE_BASE + 2 * number + 1)
            sh("ip", "rule", "add", "pref", str(RULE_PRIORITY + 200 + number), "table", table)
            sh("ip", "route", "add", "unreachable", "default", "table", table)
        clean_up(tmp_path / "recovery.json")
        rules = sh("ip", "rule")
        assert f"lookup {TABLE_BASE + 15}" not in rules
        assert f"lookup {TABLE_BASE + 17}" in rules
        assert "unreachable" in sh("ip", "route", "show", "table", str(TABLE_BASE + 17))

    inside(pair[0], work)


def test_ipv6_that_is_switched_off_is_left_out(pair: tuple[str, str, str], tmp_path: Path) -> None:
    client, host, interface = pair
    tunnel = LinuxTunnel(tmp_path / "recovery.json", lambda name: [name], lambda _line: None)
    both = read_configuration(
        CONFIGURATION
        | {"hostname": "198.18.5.1", "address6": "fd09::5/64", "routes6": [{"network": "fd09::/64"}]}
        | {"public_key": host_key(host, interface), "port": PORT}
    )

    def work() -> None:
        for scope in ("all", "default"):
            sh("ip", "netns", "exec", client, "sysctl", "-qw", f"net.ipv6.conf.{scope}.disable_ipv6=1")
        tunnel.up(both, PrivateKey.generate(), use_dns=False, use_default_route=True)
        assert "10.9.0.5/24" in sh("ip", "-o", "addr", "show", tunnel.interface)
        assert "fd09" not in sh("ip", "-o", "addr", "show", tunnel.interface)
        tunnel.down()

    inside(client, work)
