"""A full state of 10,000 peers: what the host worker does with it, against ``wg setconf`` of the same peers; and how
much memory a host worker with so many peers takes."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from celery import Celery
from django.conf import settings
from nacl.public import PrivateKey

from bench.figures import Figure, spread
from bench.installation import Installation, say
from bench.load import WrongAnswer
from core.redis_store import redis_client
from servers.hostnet.agent import decoding
from servers.hostnet.firewall.table import Firewall
from servers.hostnet.netlink import conntrack
from servers.hostnet.netlink.links import Links
from servers.hostnet.reconcile.apply import Applier
from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.reconcile.reported import FullReport
from servers.hostnet.state import HostState, Interface, Peer, Route, to_json
from servers.hostnet.state.redis_urls import broker_url
from servers.hostnet.wireguard.base import Backend
from servers.hostnet.wireguard.choose import choose
from tests.lab import until
from tests.protocol_client import b64, new_wg_key

PEERS = 10_000
ROUNDS = 5
HOST, SERVER, INTERFACE = "bench", "server", "wgs1"
MIB = 1024  # /proc tells memory in KiB
WITHIN = 60.0


def measure(directory: Path) -> Iterator[Figure]:
    here = Installation(directory)
    peers = tuple(
        Peer(f"connection{number}", 2, new_wg_key(), (f"10.9.{number >> 8}.{number & 255}/32",))
        for number in range(2, PEERS + 2)
    )
    backend = choose("auto")
    say(f"apply: {PEERS:,} peers, backend {backend.name}")
    file = directory / "wg.conf"
    file.write_text(configuration(peers))
    ratios, ours, theirs, again = [], [], [], []
    for number in range(ROUNDS):
        theirs.append(setconf(backend, file))
        first, second = _apply(backend, _message(peers, "boot", 3), directory / f"keys{number}")
        ours.append(first)
        again.append(second)
        ratios.append(first / theirs[-1])
        say(
            f"apply: round {number + 1} of {ROUNDS}: wg setconf {theirs[-1]:.2f} s, ours {first:.2f} s, "
            f"unchanged again {second:.2f} s"
        )
    note = f"s: ours {spread(ours)}, wg setconf {spread(theirs)}; unchanged again {spread(again)}; {backend.name}"
    yield Figure("apply_to_setconf", statistics.median(ratios), "ratio", 1.5, at_most=True, note=note)
    yield _memory(here, peers)


def configuration(peers: tuple[Peer, ...]) -> str:
    lines = ["[Interface]", f"PrivateKey = {b64(bytes(PrivateKey.generate()))}", "ListenPort = 51820"]
    for peer in peers:
        lines += ["[Peer]", f"PublicKey = {peer.public_key}", f"AllowedIPs = {', '.join(peer.allowed_ips)}"]
    return "\n".join(lines) + "\n"


def setconf(backend: Backend, file: Path) -> float:
    """``wg setconf`` on a fresh interface; making the interface does not count."""
    backend.create(INTERFACE)
    seconds = timed(lambda: subprocess.run(["wg", "setconf", INTERFACE, file], check=True))
    _must_have_all(backend)
    backend.delete(INTERFACE)
    return seconds


def _message(peers: tuple[Peer, ...], boot: str, version: int) -> str:
    """The full state as it is on the wire."""
    interface = Interface(
        INTERFACE, SERVER, 51820, ("10.9.0.1/16",), 0, True, 360, (Route("192.0.2.0/24", True),), peers
    )
    return json.dumps(to_json(HostState(HOST, version, boot, 9790, (interface,))))


def _apply(backend: Backend, text: str, key_dir: Path) -> tuple[float, float]:
    """All that a host worker does with a full state, from its text to the report; then the same state once more."""
    applier = Applier(Desired("boot"), backend, Links(), key_dir, conntrack.flush, [Firewall()])

    def full() -> None:
        state = decoding.read(decoding.FULL_STATE, json.loads(text), HOST)
        assert isinstance(state, HostState)
        report = applier.full(state)
        if not isinstance(report, FullReport) or report.conditions or report.drift:
            raise WrongAnswer(f"the apply failed: {report}")

    first = timed(full)
    _must_have_all(backend)
    second = timed(full)
    backend.delete(INTERFACE)
    Firewall().remove()
    return first, second


def _must_have_all(backend: Backend) -> None:
    if (count := len(backend.get(INTERFACE).peers)) != PEERS:
        raise WrongAnswer(f"{count} peers instead of {PEERS}")


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# A whole host worker


def _memory(here: Installation, peers: tuple[Peer, ...]) -> Figure:
    """A host worker with all the peers, sent to it twice: its largest and its present memory."""
    here.start_redis()
    worker = here.start(here.program("host"))
    app = Celery("bench", broker=broker_url(settings.REDIS_URL), set_as_current=False)
    boot = str(_report("hello")["boot"])
    for version in (3, 4):
        state = json.loads(_message(peers, boot, version))
        app.send_task(decoding.FULL_STATE, args=[state], queue=f"host.{HOST}", ignore_result=True)
        applied = _report("applied")
        if applied["version"] != version or applied["conditions"]:
            raise WrongAnswer(f"the host worker reports {applied}")
    most, now = (_memory_of(worker.pid, field) / MIB for field in ("VmHWM", "VmRSS"))
    say(f"apply: host worker: {most:.0f} MiB at most, {now:.0f} MiB afterwards")
    note = f"the most it ever had, with {PEERS:,} peers; afterwards {now:.0f} MiB"
    return Figure("host_worker_memory", most, "MiB", 150, at_most=True, note=note)


def _report(kind: str) -> dict[str, Any]:
    """The next report of this kind; others before it are dropped."""

    def next_report() -> dict[str, Any] | None:
        while text := redis_client().lpop(f"host.{HOST}:reports"):
            report: dict[str, Any] = json.loads(str(text))
            if report["kind"] == kind:
                return report
        return None

    found = until(next_report, WITHIN)
    assert found is not None
    return found


def _memory_of(pid: int, field: str) -> int:
    """KiB, as /proc tells."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))
