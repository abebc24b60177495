"""The client's name servers, by the real systemd-resolved, openresolv and resolvconf of Debian.

The three cannot be installed side by side, and none of them may touch this machine: each is unpacked, not installed,
and laid over /usr and /etc in the mount namespace of the test's own machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

from tests.lab import HANGING, PYTHON, Namespace, ended_afterwards, until

LAN_SERVER, TUNNEL_SERVER = "192.0.2.53", "10.9.0.1"

# Builds the tunnel as the client does, then dies without a word when told to "crash".
DRIVER = """
import base64, json, os, sys
from pathlib import Path
from nacl.public import PrivateKey
from wgpeer.responses import read_configuration
from wgpeer.tunnel.linux import LinuxTunnel
from wgpeer.tunnel.recovery import clean_up

what, lease = sys.argv[1], Path(sys.argv[2])
if what == "sweep":
    clean_up(lease)
    sys.exit()
tunnel = LinuxTunnel(lease, lambda name: [name], lambda words: None, lambda seconds: None, "userspace")
where = {
    "address": "10.9.0.5/24", "hostname": "192.0.2.1", "port": 51820, "gateway": "10.9.0.1", "web_port": 9790,
    "public_key": base64.b64encode(bytes(PrivateKey.generate().public_key)).decode(),
    "routes": [{"network": "10.9.0.0/24"}],
}
for changes in json.loads(sys.argv[3]):
    tunnel.up(read_configuration(where | changes), PrivateKey.generate(), use_dns=True, use_default_route=True)
print(json.dumps([tunnel.dns, tunnel.interface]), flush=True)
if what == "crash":
    os._exit(9)
tunnel.down()
"""

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/>
<allow send_type="method_call"/><allow receive_type="method_call"/><allow send_type="signal"/>
<allow receive_type="signal"/><allow receive_type="method_return"/><allow receive_type="error"/>
<allow send_requested_reply="true" send_type="method_return"/>
<allow send_requested_reply="true" send_type="error"/></policy></busconfig>
"""


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three packages, each unpacked in a directory of its name, /sbin and the like within usr."""
    root = tmp_path_factory.mktemp("debian")
    names = ["openresolv", "resolvconf", "systemd-resolved"]
    command = ["apt-get", "-o", "APT::Sandbox::User=root", "download", *names]
    if subprocess.run(command, cwd=root, capture_output=True, timeout=HANGING, check=False).returncode:
        subprocess.run(["apt-get", "-q", "update"], capture_output=True, timeout=HANGING, check=True)
        subprocess.run(command, cwd=root, timeout=HANGING, check=True)
    for name in names:
        (package,) = root.glob(f"{name}_*.deb")
        (root / name / "usr").mkdir(parents=True)
        for directory in ("sbin", "lib"):
            (root / name / directory).symlink_to(f"usr/{directory}")
            (root / name / "usr" / directory).mkdir()
        # tar, not dpkg -x, follows the links: as on a machine whose /sbin is /usr/sbin
        archive = subprocess.run(
            ["dpkg", "--fsys-tarfile", package], capture_output=True, check=True, timeout=HANGING
        ).stdout
        subprocess.run(
            ["tar", "-x", "--keep-directory-symlink"], input=archive, cwd=root / name, check=True, timeout=HANGING
        )
        (root / name / "etc").mkdir(exist_ok=True)
    return root


@dataclass
class Laptop:
    """A machine of a user: ``eth0`` is in its LAN, ``far`` is everything else."""

    machine: Namespace
    far: Namespace
    directory: Path

    @classmethod
    def build(cls, directory: Path, stack: contextlib.ExitStack) -> Laptop:
        machine, far = Namespace("laptop"), Namespace("far")
        for namespace in (machine, far):
            stack.callback(namespace.close)
        machine.ip("link", "add", "eth0", "type", "veth", "peer", "name", "lan", "netns", str(far.pid))
        machine.ip("addr", "add", "192.0.2.10/24", "dev", "eth0")
        machine.ip("link", "set", "eth0", "up")
        far.ip("addr", "add", f"{LAN_SERVER}/24", "dev", "lan")
        far.ip("link", "set", "lan", "up")
        return cls(machine, far, directory)

    def lay(self, package: Path | None) -> None:
        """Lay a package over /usr and /etc, and give the machine a /run of its own."""
        usr = f"mount -t overlay overlay -o lowerdir={package}/usr:/usr /usr &&" if package else ""
        lower = f"{package}/etc:/etc" if package else "/etc"
        self.sh(
            "mount -t tmpfs tmpfs /run && mkdir -p /run/lay/up /run/lay/work /run/wireguard /run/dbus &&"
            f"{usr} mount -t overlay overlay -o lowerdir={lower},upperdir=/run/lay/up,workdir=/run/lay/work /etc"
        )

    def sh(self, script: str) -> str:
        return self.machine.run("sh", "-c", script).stdout

    def has(self, path: str) -> bool:
        return self.machine.run("test", "-e", path, check=False).returncode == 0

    @property
    def resolv_conf(self) -> str:
        return self.sh("cat /etc/resolv.conf")

    @property
    def lease(self) -> Path:
        return self.directory / "lease.json"

    def drive(self, what: str, *configurations: dict[str, Any]) -> tuple[str, str]:
        """What the client says of its name servers, and its interface."""
        command = [str(PYTHON), "-P", "-c", DRIVER, what, str(self.lease), json.dumps(configurations)]
        done = self.machine.run(*command, check=what != "crash")
        if what == "sweep":
            return "", ""
        assert done.returncode == (9 if what == "crash" else 0), done.stderr
        words, interface = json.loads(done.stdout)
        return words, interface

    def addresses(self, name: str) -> str:
        return self.machine.run("getent", "ahostsv4", name, check=False).stdout.partition(" ")[0]


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    with contextlib.ExitStack() as stack:
        yield Laptop.build(tmp_path, stack)


TUNNEL = {"dns_servers": [TUNNEL_SERVER], "search_domains": ["corp.example"]}


# --- openresolv -------------------------------------------------------------------------------------------------------


def static(laptop: Laptop) -> str:
    laptop.sh(f"rm -f /etc/resolv.conf; echo 'nameserver {LAN_SERVER}' > /etc/resolv.conf")
    return laptop.resolv_conf


def test_openresolv_has_only_the_tunnels_servers_and_then_the_old_ones(laptop: Laptop, debian: Path) -> None:
    laptop.lay(debian / "openresolv")
    static(laptop)
    laptop.sh(f"echo 'nameserver {LAN_SERVER}' | resolvconf -a eth0.dhclient")
    words, _ = laptop.drive("crash", TUNNEL)
    assert words == "10.9.0.1 for all names, also for short names in corp.example (by openresolv)"
    assert "nameserver 10.9.0.1" in laptop.resolv_conf
    assert "search corp.example" in laptop.resolv_conf
    assert LAN_SERVER not in laptop.resolv_conf
    laptop.sh(f"echo 'nameserver {LAN_SERVER}' | resolvconf -a eth0.dhclient")  # its lease is renewed meanwhile
    assert LAN_SERVER not in laptop.resolv_conf
    assert laptop.lease.stat().st_mode & 0o077 == 0
    laptop.drive("sweep")
    assert "10.9.0.1" not in laptop.resolv_conf
    assert f"nameserver {LAN_SERVER}" in laptop.resolv_conf
    assert not laptop.lease.exists()


def test_openresolv_gives_back_a_file_it_did_not_make(laptop: Laptop, debian: Path) -> None:
    laptop.lay(debian / "openresolv")
    before = static(laptop)
    # Twice, as with a reconnect: one removal must undo both; and then a server without any name servers.
    laptop.drive("up", TUNNEL, TUNNEL)
    assert laptop.resolv_conf == before
    words, _ = laptop.drive("crash", TUNNEL, {"dns_servers": []})
    assert words == ""
    assert laptop.resolv_conf == before
    laptop.drive("sweep")


def test_after_a_crash_and_a_boot_openresolvs_file_is_put_right(laptop: Laptop, debian: Path) -> None:
    laptop.lay(debian / "openresolv")
    before = static(laptop)
    _, interface = laptop.drive("crash", TUNNEL)
    laptop.machine.ip("link", "del", interface)
    laptop.sh("rm -r /run/resolvconf")  # as a boot does; the file in /etc stays as it was
    assert TUNNEL_SERVER in laptop.resolv_conf
    laptop.lease.write_text(json.dumps(json.loads(laptop.lease.read_text()) | {"boot": "another"}))
    laptop.drive("sweep")
    assert laptop.resolv_conf == before
    laptop.drive("crash", TUNNEL)
    laptop.lease.write_text(json.dumps(json.loads(laptop.lease.read_text()) | {"boot": "another"}))
    laptop.sh("rm -r /run/resolvconf && rm /etc/resolv.conf.bak && echo 'nameserver 192.0.2.99' > /etc/resolv.conf")
    laptop.drive("sweep")
    assert laptop.resolv_conf == "nameserver 192.0.2.99\n", "nothing of ours is in it, so it is not ours to change"


def test_what_openresolv_cannot_do_with_routing_domains_is_said(laptop: Laptop, debian: Path) -> None:
    laptop.lay(debian / "openresolv")
    static(laptop)
    words, _ = laptop.drive("up", TUNNEL | {"routing_domains": ["lab.example"]})
    assert "for all names, because openresolv cannot keep to those under lab.example, corp.example" in words


# --- resolvconf -------------------------------------------------------------------------------------------------------


def test_resolvconf_puts_the_tunnels_servers_first(laptop: Laptop, debian: Path) -> None:
    laptop.lay(debian / "resolvconf")
    laptop.sh("mkdir -p /run/resolvconf/interface && ln -sf /run/resolvconf/resolv.conf /etc/resolv.conf")
    laptop.sh(f"resolvconf --enable-updates; echo 'nameserver {LAN_SERVER}' | resolvconf -a eth0.dhclient")
    before = laptop.resolv_conf
    words, _ = laptop.drive("crash", TUNNEL)
    assert words == "10.9.0.1 for all names, also for short names in corp.example (by resolvconf)"
    listed = [line for line in laptop.resolv_conf.splitlines() if line.startswith("nameserver")]
    assert listed == [f"nameserver {TUNNEL_SERVER}", f"nameserver {LAN_SERVER}"]
    laptop.drive("sweep")
    assert laptop.resolv_conf == before


def test_resolvconf_that_nobody_reads_is_said_and_left_as_it_was(laptop: Laptop, debian: Path) -> None:
    laptop.lay(debian / "resolvconf")
    before = static(laptop)  # a file of the administrator's, not resolvconf's
    laptop.sh("mkdir -p /run/resolvconf/interface && resolvconf --enable-updates")
    words, _ = laptop.drive("crash", TUNNEL)
    assert words.startswith("not set: resolvconf has it, but /etc/resolv.conf does not show it")
    assert laptop.resolv_conf == before
    assert laptop.sh("resolvconf -i").strip() == ""
    laptop.drive("sweep")


# --- neither ----------------------------------------------------------------------------------------------------------


def test_without_any_manager_it_is_said_and_the_file_stays(laptop: Laptop) -> None:
    laptop.lay(None)
    before = static(laptop)
    words, _ = laptop.drive("up", TUNNEL)
    assert words.startswith("not set: no manager of name servers is here. To use 10.9.0.1, install")
    assert laptop.resolv_conf == before


# --- systemd-resolved -------------------------------------------------------------------------------------------------


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
