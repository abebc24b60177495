"""TCP through a tunnel with all that a server can have, against a bare WireGuard tunnel of the same backend.

A client, this host and a LAN behind it, each a network namespace; iperf3 between the client and the LAN. Both tunnels
are there all the time and end at the same two programs or kernels. For a run of ours the host has our table as well,
and traffic goes the longest way through it: by a netmap, and masqueraded. For a bare one there is no table, and the
LAN has a route back. Runs alternate, uploads and downloads in turn.
"""

from __future__ import annotations

import base64
import json
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import Figure, spread
from bench.installation import say
from bench.load import WrongAnswer
from servers.hostnet.firewall.table import Firewall
from servers.hostnet.netlink import conntrack
from servers.hostnet.netlink.links import Links
from servers.hostnet.reconcile.apply import Applier
from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.reconcile.reported import FullReport
from servers.hostnet.state import Forward, HostState, Interface, Peer, Route
from servers.hostnet.wireguard.base import Backend, PeerChange
from servers.hostnet.wireguard.choose import choose
from tests.lab import KeyPair, Namespace, ended_afterwards, until
from tests.protocol_client import new_wg_key

PEERS = 1000
ROUNDS = 32  # many and short: how the kernel happens to place programs on cores is worth a tenth, and new in each run
SECONDS = 1  # of one run, after one that does not count
WEB_PORT = 9790
OURS, BARE = "wgs1", "bare1"
OURS_PORT, BARE_PORT = 51820, 51821
HOST = "198.51.100.1"
LAN, LAN_NETMAPPED = "10.50.0.2", "10.60.0.2"
BARE_CLIENT = "10.99.0.2"


@dataclass(frozen=True, slots=True)
class Way:
    """A tunnel of the client's: ``interface`` leads to ``target``."""

    interface: str
    target: str


def measure(directory: Path) -> Iterator[Figure]:
    backend = choose("auto")
    say(f"throughput: {PEERS:,} peers and as many forwarded ports, backend {backend.name}")
    client, lan = Namespace("client"), Namespace("lan")
    _wire(client, "eth0", "wan", HOST, "198.51.100.11")
    _wire(lan, "eth0", "lan", "10.50.0.1", LAN)
    lan.ip("route", "add", "10.99.0.0/24", "via", "10.50.0.1")
    keys = KeyPair.make()
    interface, host_key = _ours(backend, directory, keys)
    ours, bare = Way("ours", LAN_NETMAPPED), Way("bare", LAN)
    mtu = _link(OURS)["mtu"]
    tunnel = ["10.9.0.2/24", host_key, str(OURS_PORT), LAN_NETMAPPED]
    _client_tunnel(client, backend, ours.interface, keys, mtu, *tunnel)
    _bare(client, backend, mtu, bare.interface)
    rates = _rounds(client, lan, interface, ours, bare)
    client.close()
    lan.close()
    ratios = [one / other for one, other in zip(rates[ours], rates[bare], strict=True)]
    note = f"Gbit/s: ours {spread(rates[ours])}, bare {spread(rates[bare])}; {backend.name}"
    yield Figure("tunnel_to_bare", statistics.median(ratios), "ratio", 0.9, at_most=False, note=note)


def _rounds(client: Namespace, lan: Namespace, interface: Interface, ours: Way, bare: Way) -> dict[Way, list[float]]:
    """Gbit/s of each way and round."""
    rates: dict[Way, list[float]] = {ours: [], bare: []}
    firewall = Firewall()
    for number in range(ROUNDS):
        # Whoever comes first has the quieter machine, or the busier one: in turn.
        for way in (ours, bare) if number % 4 < 2 else (bare, ours):
            firewall.remove()
            if way is ours:
                firewall.apply(_state(interface))
            rates[way].append(_gigabits(client, lan, way, reverse=number % 2 == 1))
        say(
            f"throughput: round {number + 1} of {ROUNDS} ({'down' if number % 2 else 'up'}): "
            f"bare {rates[bare][-1]:.3f} Gbit/s, ours {rates[ours][-1]:.3f} Gbit/s"
        )
    return rates


def _wire(machine: Namespace, theirs: str, ours: str, our_address: str, their_address: str) -> None:
    _ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", str(machine.pid))
    _ip("addr", "add", f"{our_address}/24", "dev", ours)
    _ip("link", "set", ours, "up")
    machine.ip("addr", "add", f"{their_address}/24", "dev", theirs)
    machine.ip("link", "set", theirs, "up")


# Ours


def _ours(backend: Backend, directory: Path, keys: KeyPair) -> tuple[Interface, str]:
    """Have a host worker's own code set up all of it; the interface as it is wanted, and the host's public key."""
    routes = (
        Route("10.60.0.0/24", True, "", "10.50.0.0/24"),
        *(Route(f"172.16.{number}.0/24", number % 2 == 0) for number in range(50)),
        *(Route(f"2001:db8:{number:x}::/64", number % 2 == 0) for number in range(50, 100)),
    )
    peers = tuple(_peer(number, keys.public if number == 0 else new_wg_key()) for number in range(PEERS))
    addresses = ("10.9.0.1/16", "fd01::1/64")
    interface = Interface(OURS, "server", OURS_PORT, addresses, 0, True, 360, routes, peers)
    applier = Applier(Desired("boot"), backend, Links(), directory / "keys", conntrack.flush, [Firewall()])
    report = applier.full(_state(interface))
    if not isinstance(report, FullReport) or report.conditions:
        raise WrongAnswer(f"the apply failed: {report}")
    return interface, report.keys["server"]


def _state(interface: Interface) -> HostState:
    return HostState("bench", 1, "boot", WEB_PORT, (interface,))


def _peer(number: int, public_key: str) -> Peer:
    """One with a forwarded port; every tenth has a network behind it."""
    host = number + 2
    addresses = (f"10.9.{host >> 8}.{host & 255}/32", f"fd01::{host:x}/128")
    networks = (f"10.70.{number // 10}.0/24", f"fd70:{number:x}::/64") if number % 10 == 5 else ()
    forwards = (Forward("tcp" if number % 2 else "udp", 20000 + number, 20000 + number, 80),)
    return Peer(f"connection{number}", 1, public_key, addresses, networks, (), forwards)


# Bare


def _bare(client: Namespace, backend: Backend, mtu: int, name: str) -> None:
    ours, theirs = KeyPair.make(), KeyPair.make()
    backend.create(BARE)
    peer = PeerChange(theirs.public, (f"{BARE_CLIENT}/32",))
    backend.set(BARE, private_key=base64.b64decode(ours.private), port=BARE_PORT, peers=[peer])
    _ip("addr", "add", "10.99.0.1/24", "dev", BARE)
    _ip("link", "set", BARE, "up", "mtu", str(mtu))
    _client_tunnel(client, backend, name, theirs, mtu, f"{BARE_CLIENT}/24", ours.public, str(BARE_PORT), LAN)


def _client_tunnel(
    client: Namespace,
    backend: Backend,
    name: str,
    keys: KeyPair,
    mtu: int,
    address: str,
    host_key: str,
    port: str,
    target: str,
) -> None:
    if backend.name == "kernel":
        client.ip("link", "add", name, "type", "wireguard")
    else:
        # With a log level of whatever program it would keep our pipe, and we would wait for its end.
        client.run("env", "--unset=LOG_LEVEL", "wireguard-go", name)
    client.run("wg", "set", name, "private-key", "/dev/stdin", text=keys.private)
    client.run("wg", "set", name, "peer", host_key, "endpoint", f"{HOST}:{port}", "allowed-ips", f"{target}/32")
    client.ip("addr", "add", address, "dev", name)
    client.ip("link", "set", name, "up", "mtu", str(mtu))
    client.ip("route", "add", f"{target}/32", "dev", name)


# Runs


def _gigabits(client: Namespace, lan: Namespace, way: Way, *, reverse: bool) -> float:
    """What one TCP stream carries, after the whole way was seen to work, and to be the tunnel's."""
    until(lambda: client.pings(way.target), timeout=15)
    received, sent = client.packets(way.interface)
    options = ["--json", "--client", way.target, "--time", str(SECONDS), "--omit", "1"]
    with _server(lan):
        done = client.run("iperf3", *options, *(["--reverse"] if reverse else []), check=False)
    said: dict[str, Any] = json.loads(done.stdout or "{}")
    if done.returncode or "error" in said:
        raise WrongAnswer(f"iperf3: {said.get('error', done.stderr)}")
    now_received, now_sent = client.packets(way.interface)
    if now_received - received < 1000 or now_sent - sent < 1000:
        raise WrongAnswer(f"the traffic to {way.target} did not go through {way.interface}")
    return float(said["end"]["sum_received"]["bits_per_second"]) / 1e9


@contextmanager
def _server(lan: Namespace) -> Iterator[None]:
    """One for each run: what is left of the last one's connections, across a changed table, must not hold it up."""
    command = lan.command("iperf3", "--server", "--forceflush")
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    with ended_afterwards(process), process.stdout as output:
        if not any(b"Server listening" in line for line in output):
            raise WrongAnswer("iperf3 does not start as a server")
        yield


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _link(name: str) -> dict[str, Any]:
    done = subprocess.run(["ip", "-json", "link", "show", name], check=True, capture_output=True)
    (link,) = json.loads(done.stdout)
    return dict(link)
