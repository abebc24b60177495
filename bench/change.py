"""What one change costs on a host that is full, against the same on one that is nearly empty: a peer among 10,000, a
forwarded port among 1,000, a name among 10,000. All of it as the host worker does it, on a real interface, a real
nftables table and a real unbound."""

from __future__ import annotations

import dataclasses
import itertools
import socket
import statistics
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure, spread
from bench.installation import Installation, say
from bench.load import WrongAnswer
from servers.hostnet.dns import unbound
from servers.hostnet.dns.resolvers import Resolvers
from servers.hostnet.firewall.table import Firewall
from servers.hostnet.netlink import conntrack
from servers.hostnet.netlink.links import Links
from servers.hostnet.reconcile.apply import Applier
from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.state import AddPeer, Dns, Forward, HostState, Interface, Peer, RemovePeers, Route
from servers.hostnet.wireguard.choose import choose
from tests.protocol_client import new_wg_key

FEW = 10
ROUNDS, CHANGES = 4, 25  # the few and the many take turns, so that a machine that slows down slows both
SERVER, INTERFACE, GATEWAY = "server", "wgs1", "10.9.0.1"
ZONE = Dns("vpn", ("192.0.2.53",), "", ())
WITHIN = 30.0


@dataclass(frozen=True, slots=True)
class Question:
    """``many``: how many of them there are already. ``equip`` gives a peer, by its number, what it is about; ``done``
    waits until one is there, if it is not once the host has answered."""

    name: str
    many: int
    equip: Callable[[Peer, int], Peer]
    dns: Dns | None = None
    done: Callable[[Peer], None] = lambda peer: None


def measure(directory: Path) -> Iterator[Figure]:
    Installation(directory)
    for path in (unbound.CONFIGURATIONS.parent, unbound.SOCKETS.parent):  # what we put there nobody else sees
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", path], check=True)
    ratios: dict[str, float] = {}
    notes = []
    for question in QUESTIONS:
        few, many = _measure(question, directory)
        ratios[question.name] = statistics.median(many) / statistics.median(few)
        ms = [spread([1000 * seconds for seconds in found]) for found in (many, few)]
        notes.append(f"{question.name} {ratios[question.name]:.2f}")
        say(f"change: {question.name}: {ms[0]} ms among {question.many:,}, {ms[1]} ms among {FEW}")
    worst = max(ratios, key=lambda name: ratios[name])
    note = f"the worst: {worst}; {', '.join(notes)}; {choose('auto').name}"
    yield Figure("change_10k_to_10", ratios[worst], "ratio", 2, at_most=True, note=note)


def _measure(question: Question, directory: Path) -> tuple[list[float], list[float]]:
    """Seconds of each change among the few, and among the many."""
    numbers = itertools.count(question.many + 2)
    peers = [_peer(number, question) for number in range(2, question.many + 2)]
    found: dict[int, list[float]] = {FEW: [], question.many: []}
    for turn in range(ROUNDS):
        for count, seconds in found.items():
            host = Host(directory / f"keys-{turn}-{count}", question, peers[:count])
            seconds += host.changes([_peer(next(numbers), question) for _ in range(CHANGES)])
            host.close()
    return found[FEW], found[question.many]


def _peer(number: int, question: Question) -> Peer:
    address = f"10.9.{number >> 8}.{number & 255}/32"
    return question.equip(Peer(f"connection{number}", number, new_wg_key(), (address,)), number)


class Host:
    """The host side of a worker with these peers."""

    def __init__(self, key_dir: Path, question: Question, peers: list[Peer]) -> None:
        self._question = question
        self._backend = choose("auto")
        self._resolvers = Resolvers()
        self._applier = Applier(
            Desired("boot"), self._backend, Links(), key_dir, conntrack.flush, [Firewall(), self._resolvers]
        )
        routes = (Route("192.0.2.0/24", True),)
        addresses = (f"{GATEWAY}/16",)
        interface = Interface(INTERFACE, SERVER, 51820, addresses, 0, True, 360, routes, tuple(peers), dns=question.dns)
        report = self._applier.full(HostState("bench", 1_000, "boot", 9790, (interface,)))
        if report is None or report.conditions:
            raise WrongAnswer(f"the apply failed: {report}")
        question.done(peers[-1])

    def changes(self, peers: list[Peer]) -> list[float]:
        """Seconds of each addition. Each peer goes again, so that there are always as many."""
        seconds = []
        for peer in peers:
            peer = dataclasses.replace(peer, version=100_000 + peer.version)
            began = time.perf_counter()
            report = self._applier.changes([AddPeer(SERVER, peer)])
            self._question.done(peer)
            seconds.append(time.perf_counter() - began)
            if report.answers != [""]:
                raise WrongAnswer(f"the change failed: {report}")
            self._applier.changes([RemovePeers(peer.version, (peer.connection,))])
        if peers[-1].public_key in self._backend.get(INTERFACE).peers:
            raise WrongAnswer("a peer that was removed is still there")
        return seconds

    def close(self) -> None:
        self._applier.full(HostState("bench", 1_000_000, "boot", 9790, ()))
        self._resolvers.stop()
        Firewall().remove()


# What a peer is equipped with, and when it is there


def _plain(peer: Peer, number: int) -> Peer:
    return peer


def _with_forward(peer: Peer, number: int) -> Peer:
    return dataclasses.replace(peer, forwards=(Forward("tcp", 2_000 + number, 2_000 + number, 80),))


def _with_name(peer: Peer, number: int) -> Peer:
    return dataclasses.replace(peer, names=(f"laptop.user{number}.acme.vpn",))


def _is_resolved(peer: Peer) -> None:
    """Ask until the name has the peer's address."""
    (name,), (address,) = peer.names, peer.allowed_ips
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 1, 1)
    desired = socket.inet_aton(address.partition("/")[0])
    deadline = time.monotonic() + WITHIN
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.2)
        while time.monotonic() < deadline:
            try:
                asking.connect((GATEWAY, 53))
                asking.send(question)
                if asking.recv(512).endswith(desired):
                    return
            except OSError:  # unbound is not there yet
                time.sleep(0.01)
    raise WrongAnswer(f"{name} is not known")


QUESTIONS = (
    Question("peer", 10_000, _plain),
    Question("forward", 1_000, _with_forward),
    Question("name", 10_000, _with_name, ZONE, _is_resolved),
)
