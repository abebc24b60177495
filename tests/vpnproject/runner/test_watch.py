"""What bin/run does while the server runs, when something dies."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from vpnproject.runner.certificate import Pair, ensure_certificate
from vpnproject.runner.console import Progress, RunError
from vpnproject.runner.supervise import State
from vpnproject.runner.watch import MOST_DEATHS, Watch


class StandIn:
    """A supervisor that shows the states it is given, and remembers what it was asked for."""

    process = None

    def __init__(self) -> None:
        self.shown: list[State] | OSError = []
        self.started: list[str] = []
        self.starts = self.reloads = 0

    def states(self) -> list[State]:
        if isinstance(self.shown, OSError):
            raise self.shown
        return self.shown

    def start_program(self, name: str) -> None:
        self.started.append(name)

    def start(self) -> None:
        self.starts += 1

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


@pytest.fixture
def watch(supervisor: Any, out: io.StringIO, pair: Pair) -> Watch:
    return Watch(supervisor, "no-such-instance", Progress(out), pair, clock=lambda: 100.0)


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


def test_what_supervisor_gave_up_is_tried_again_and_said_once(
    watch: Watch, supervisor: StandIn, out: io.StringIO
) -> None:
    supervisor.shown = [State("vpn:web", "FATAL", 0, "Exited too quickly")]
    watch.look()
    watch.look()
    assert supervisor.started == ["vpn:web", "vpn:web"]
    assert out.getvalue().count("web does not stay up (Exited too quickly)") == 1


def test_a_supervisor_that_does_not_answer_is_asked_again_later(watch: Watch, supervisor: StandIn) -> None:
    supervisor.shown = ConnectionRefusedError()
    watch.look()
    supervisor.shown = [State("redis", "EXITED", 0, "")]
    watch.look()
    assert supervisor.started == ["redis"]


def test_a_dead_supervisor_is_replaced_but_not_for_ever(watch: Watch, supervisor: StandIn) -> None:
    with pytest.raises(RunError, match="again and again"):
        watch.forever()
    assert supervisor.starts == MOST_DEATHS


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
