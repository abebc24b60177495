"""What the person at the terminal sees of a step, and of a start whose host does not work."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest

from tests.lab import until
from vpnproject.runner import __main__ as runner
from vpnproject.runner import checks
from vpnproject.runner.console import EVERY, EVERY_ON_A_TERMINAL, Progress, RunError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nobody_waits_for_twenty_seconds_without_a_word() -> None:
    assert EVERY_ON_A_TERMINAL <= EVERY < 20


def test_a_step_that_goes_on_says_so_in_lines_where_there_is_no_terminal() -> None:
    out, now = io.StringIO(), [100.0]
    progress = Progress(out, lambda: now[0], every=0.01)
    with progress.step("Web answers"):
        now[0] = 112.0
        until(lambda: "12 s\n" in out.getvalue(), every=0.01)
    lines = out.getvalue().splitlines()
    assert all(re.fullmatch(r"  \.\.   Web answers +\d+ s", line) for line in lines[:-1])
    assert re.fullmatch(r"  ok   Web answers +12\.00 s", lines[-1])


def test_on_a_terminal_it_is_one_line_that_changes() -> None:
    out, now = Terminal(), [100.0]
    progress = Progress(out, lambda: now[0], every=0.01)
    with progress.step("Web answers"):
        now[0] = 112.0
        until(lambda: "12 s\r" in out.getvalue(), every=0.01)
    assert out.getvalue().count("\n") == 1
    assert re.search(r"\r\x1b\[K  ok   Web answers +12\.00 s\n$", out.getvalue())


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()])
def test_after_a_step_nothing_is_said_of_it_any_more(out: io.StringIO) -> None:
    progress = Progress(out, time.monotonic, every=0.001)
    with pytest.raises(RunError), progress.step("Web answers"):
        raise RunError("no")
    said = out.getvalue()
    assert said.endswith("  !!   Web answers: not done\n")
    progress.plain("next")
    assert out.getvalue() == said + ("\x1b[K" if out.isatty() else "") + "next\n"


def test_up_is_said_only_where_the_host_works() -> None:
    wanted = checks.Wanted(Path("/p"), Path("/v"), None, None)
    out = io.StringIO()
    runner.say_outcome("", wanted, Progress(out))
    assert re.search(r"Up after \d", out.getvalue())
    out = io.StringIO()
    runner.say_outcome("wgs1: no /dev/net/tun", wanted, Progress(out))
    assert "Up" not in out.getvalue()
    assert "wgs1: no /dev/net/tun" in out.getvalue()
    assert "bin/run --check" in out.getvalue()
    assert "Ctrl-C stops everything" in out.getvalue()
