"""What bin/run does while the server runs, when something dies."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from core import disks
from vpnproject.runner import certificate, processes
from vpnproject.runner.certificate import Pair, ensure_certificate, fingerprint
from vpnproject.runner.console import Progress, RunError
from vpnproject.runner.following import Following
from vpnproject.runner.processes import Process
from vpnproject.runner.supervise import State
from vpnproject.runner.vigil import Vigil
from vpnproject.runner.watch import LONGEST_PAUSE, MOST_DEATHS, VALIDITY_EVERY, Watch, pause


class StandIn:
    """A supervisor that shows the states it is given, and remembers what it was asked for."""

    process: Process | None = None

    def __init__(self) -> None:
        self.killed: list[str] = []
        self.shown: list[State] | OSError = []
        self.started: list[str] = []
        self.starts = self.reloads = 0
        self.fault: Exception | None = None

    def states(self) -> list[State]:
        if isinstance(self.shown, OSError):
            raise self.shown
        return self.shown

    def alive(self) -> bool:
        return self.process is not None

    def kill_program(self, name: str) -> None:
        self.killed.append(name)

    def start_program(self, name: str) -> None:
        self.started.append(name)

    def start(self) -> None:
        self.starts += 1
        if self.fault is not None:
            raise self.fault

    def reload_front(self) -> None:
        self.reloads += 1


@pytest.fixture
def supervisor() -> StandIn:
    return StandIn()


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """A certificate that was there before the watch."""
    made = Pair(tmp_path / "certificate.pem", tmp_path / "key.pem")
    renew(made)
    assert made.renewed()
    return made


def renew(pair: Pair) -> None:
    pair.certificate.unlink(missing_ok=True)
    ensure_certificate(pair.certificate, pair.key, "192.0.2.1", datetime.now(UTC))


class Nobody(Vigil):
    """Finds that these hang."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def hanging(self, states: Sequence[State]) -> dict[str, float]:
        return self.found


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def vigil() -> Nobody:
    return Nobody()


@pytest.fixture
def watch(supervisor: Any, out: io.StringIO, pair: Pair, tmp_path: Path, vigil: Nobody, clock: Clock) -> Watch:
    return Watch(supervisor, "no-such-instance", Progress(out), pair, tmp_path, vigil, clock, clock.sleep)


def running(pid: int) -> list[State]:
    return [State("vpn:web", "RUNNING", pid, "pid 5, uptime 0:00:09")]


def test_nothing_is_said_while_nothing_happens(watch: Watch, supervisor: StandIn, out: io.StringIO) -> None:
    supervisor.shown = running(5)
    watch.look()
    watch.look()
    assert out.getvalue() == ""


def test_a_restart_is_said_once(watch: Watch, supervisor: StandIn, out: io.StringIO) -> None:
    for pid in (5, 6, 6):
        supervisor.shown = running(pid)
        watch.look()
    assert out.getvalue().count("web had ended and was started again") == 1


def test_what_supervisor_gave_up_is_tried_again_ever_more_slowly_and_said_once(
    watch: Watch, supervisor: StandIn, out: io.StringIO, clock: Clock
) -> None:
    tries: list[float] = []
    for _ in range(400):
        supervisor.shown = [State("vpn:web", "FATAL", 0, "Exited too quickly")]
        watch.look()
        if len(supervisor.started) > len(tries):
            tries.append(clock.now)
            supervisor.shown = [State("vpn:web", "STARTING", 9, "")]
            watch.look()
        clock.now += 1
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses[:5] == [5, 10, 20, 40, 60]
    assert set(pauses[5:]) == {LONGEST_PAUSE}
    assert out.getvalue().count("web does not stay up (Exited too quickly)") == 1

    supervisor.shown = running(10)
    watch.look()
    supervisor.shown = [State("vpn:web", "FATAL", 0, "Exited too quickly")]
    watch.look()
    assert len(supervisor.started) == len(tries) + 1
    assert out.getvalue().count("web does not stay up") == 2


def test_what_hangs_is_killed_and_said_once(
    watch: Watch, supervisor: StandIn, vigil: Nobody, out: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vpnproject.runner.watch.LOOK_EVERY", 0)
    supervisor.process = Process(os.getpid(), 0, 0, ())
    supervisor.shown = running(5)
    vigil.found = {"vpn:web": 61.0}
    watch.turn()
    vigil.found = {}
    supervisor.shown = running(6)
    watch.turn()
    assert supervisor.killed == ["vpn:web"]
    assert out.getvalue() == "  !    web has shown no sign of life for 61 s; it is started anew.\n"


def test_a_supervisor_that_does_not_answer_is_asked_again_later(watch: Watch, supervisor: StandIn) -> None:
    supervisor.shown = ConnectionRefusedError()
    watch.look()
    supervisor.shown = [State("redis", "EXITED", 0, "")]
    watch.look()
    assert supervisor.started == ["redis"]


def test_a_supervisor_that_hangs_is_ended(
    watch: Watch, supervisor: StandIn, out: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Process] = []
    monkeypatch.setattr(processes, "end", lambda these, *_, **__: ended.extend(these))
    supervisor.process = Process(os.getpid(), 0, 0, ())
    for fault in (TimeoutError(), TimeoutError(), ConnectionRefusedError(), TimeoutError(), TimeoutError()):
        supervisor.shown = fault
        watch.look()
    assert ended == []
    watch.look()
    assert ended == [supervisor.process]
    assert out.getvalue().count("supervisor hangs") == 1


def test_a_dead_supervisor_is_replaced_for_ever_with_growing_pauses(
    watch: Watch, supervisor: StandIn, clock: Clock
) -> None:
    for _ in range(MOST_DEATHS + 8):
        watch.turn()
    assert supervisor.starts == MOST_DEATHS + 8
    assert clock.slept[: MOST_DEATHS + 5] == [0] * MOST_DEATHS + [5, 10, 20, 40, 60]
    assert max(clock.slept) == LONGEST_PAUSE
    assert pause(100_000) == LONGEST_PAUSE


@pytest.mark.parametrize(
    "fault", [RunError("supervisor did not start within 60 seconds."), OSError(28, "No space left"), KeyError("x")]
)
def test_nothing_that_fails_ends_the_watch_and_each_fault_is_said_once(
    watch: Watch, supervisor: StandIn, out: io.StringIO, fault: Exception
) -> None:
    supervisor.fault = fault
    for _ in range(5):
        watch.turn()
    assert supervisor.starts == 5
    assert out.getvalue().count("Tunnels stay as they are") == 1
    supervisor.fault = None
    watch.turn()
    supervisor.fault = fault
    watch.turn()
    assert out.getvalue().count("Tunnels stay as they are") == 2


class Full(io.StringIO):
    """A file on a disk that is full, for a while."""

    full = True

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_what_is_said_to_a_full_disk_is_lost_but_not_what_is_said_later() -> None:
    out = Full()
    progress = Progress(out)
    progress.warn("lost")
    out.full = False
    progress.warn("there")
    assert out.getvalue() == "  !    there\n"


def test_the_front_reads_a_renewed_certificate_once_both_halves_are_there(
    watch: Watch, supervisor: StandIn, out: io.StringIO, pair: Pair
) -> None:
    supervisor.shown = running(5)
    old = pair.key.read_bytes()
    renew(pair)
    new = pair.key.read_bytes()
    pair.key.write_bytes(old)
    watch.look()
    assert (supervisor.reloads, out.getvalue()) == (0, "")
    pair.key.write_bytes(new)
    watch.look()
    watch.look()
    assert supervisor.reloads == 1
    assert "The certificate was renewed" in out.getvalue()


def test_a_certificate_is_renewed_and_served_a_month_before_its_end(
    supervisor: Any, out: io.StringIO, pair: Pair, tmp_path: Path, vigil: Nobody, clock: Clock
) -> None:
    days = iter([0.0, 794.0, 796.0, 797.0])
    began = datetime.now(UTC)
    today = [began]
    watch = Watch(
        supervisor, "no-such-instance", Progress(out), pair, tmp_path, vigil, clock, clock.sleep, lambda: today[0]
    )
    old = fingerprint(pair.certificate)
    for expected in (0, 0, 1, 1):
        today[0] = began + timedelta(days=next(days))
        clock.now += VALIDITY_EVERY
        watch.look()
        watch.look()
        assert (supervisor.reloads, fingerprint(pair.certificate) != old) == (expected, bool(expected))
    assert out.getvalue().count("The certificate was renewed; new connections get it") == 1


def test_what_cannot_be_renewed_is_tried_again_and_its_end_is_said(
    supervisor: Any,
    out: io.StringIO,
    pair: Pair,
    tmp_path: Path,
    vigil: Nobody,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    today = [datetime.now(UTC) + timedelta(days=815)]
    watch = Watch(
        supervisor, "no-such-instance", Progress(out), pair, tmp_path, vigil, clock, clock.sleep, lambda: today[0]
    )
    with monkeypatch.context() as broken:
        broken.setattr(certificate, "write_private", full)
        for _ in range(3):
            clock.now += VALIDITY_EVERY
            watch.look()
    assert "The certificate could not be renewed (No space left on device)" in out.getvalue()
    assert out.getvalue().count("The certificate of this site ends on") == 1
    assert supervisor.reloads == 0
    clock.now += VALIDITY_EVERY
    watch.look()
    assert supervisor.reloads == 1


def test_a_front_that_could_not_be_told_of_a_certificate_is_told_later(
    watch: Watch, supervisor: StandIn, out: io.StringIO, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy() -> None:
        raise ConnectionRefusedError

    renew(pair)
    with monkeypatch.context() as away:
        away.setattr(supervisor, "reload_front", busy)
        watch.look()
        watch.look()
    assert out.getvalue().count("the front could not be told") == 1
    watch.look()
    watch.look()
    assert supervisor.reloads == 1


def test_a_disk_that_fails_is_said_once_and_that_it_recovered(
    watch: Watch, out: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[str] = []
    asked: list[Path] = []

    def answer(paths: list[Path]) -> list[str]:
        asked.extend(paths)
        return list(faults)

    monkeypatch.setattr(disks, "faults", answer)
    watch.look()
    assert out.getvalue() == ""
    assert {tmp_path, tmp_path / "redis", tmp_path / "log"} <= set(asked)
    for left in (3, 2):
        faults[:] = [f"The disk of /x is full ({left} MB left)."]
        watch.look()
    assert out.getvalue().count("The disk of /x is full. Tunnels go on") == 1
    faults.clear()
    watch.look()
    watch.look()
    assert out.getvalue().count("No more so: The disk of /x is full.") == 1


def test_the_front_is_told_of_another_network_of_the_mesh_until_it_has_heard(
    supervisor: Any,
    out: io.StringIO,
    pair: Pair,
    tmp_path: Path,
    vigil: Nobody,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[tuple[str, ...] | None] = [("fd00::/64",)]
    written: list[tuple[str, ...]] = []
    following = Following(lambda: said[0], written.append, ("fd00::/64",))
    watch = Watch(
        supervisor, "no-such-instance", Progress(out), pair, tmp_path, vigil, clock, clock.sleep, following=following
    )

    def busy(*_: object) -> None:
        raise ConnectionRefusedError

    watch.look()
    said[0] = None  # Redis is away, or has forgotten
    watch.look()
    assert (written, supervisor.reloads) == ([], 0)
    said[0] = ("10.77.0.0/24", "fd00::/64")
    with monkeypatch.context() as away:
        away.setattr(supervisor, "reload_front", busy)
        watch.look()
        watch.look()
    assert out.getvalue().count("the front could not be told") == 1
    watch.look()
    watch.look()
    assert supervisor.reloads == 1
    assert {*written} == {("10.77.0.0/24", "fd00::/64")}
    assert out.getvalue().count("The front was told") == 1


def test_a_disk_that_takes_nothing_leaves_the_front_as_it_is_and_is_tried_again(
    supervisor: Any, out: io.StringIO, pair: Pair, tmp_path: Path, vigil: Nobody, clock: Clock
) -> None:
    full = [True]

    def write(networks: tuple[str, ...]) -> None:
        if full[0]:
            raise OSError(28, "No space left on device")

    following = Following(lambda: ("10.77.0.0/24",), write, ())
    watch = Watch(
        supervisor, "no-such-instance", Progress(out), pair, tmp_path, vigil, clock, clock.sleep, following=following
    )
    watch.look()
    assert supervisor.reloads == 0
    full[0] = False
    watch.look()
    assert supervisor.reloads == 1
