"""A client's machine with one of Debian's managers of name servers: systemd-resolved, openresolv or resolvconf.

The three cannot be installed side by side, and none of them may touch this machine: each is unpacked, not installed,
and laid over /usr and /etc in the mount namespace of the test's own machine.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab import HANGING, PYTHON, Namespace

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


def static(laptop: Laptop) -> str:
    laptop.sh(f"rm -f /etc/resolv.conf; echo 'nameserver {LAN_SERVER}' > /etc/resolv.conf")
    return laptop.resolv_conf
