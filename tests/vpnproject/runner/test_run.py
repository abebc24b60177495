"""What takes tunnels down: a wish, and no failure."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from vpnproject.runner import __main__ as runner
from vpnproject.runner import checks, start
from vpnproject.runner.console import Progress, RunError


class StandIn:
    """A start that gets as far as ``raises`` lets it."""

    raises: BaseException
    untouched = found_tunnels = False
    ended = 0
    watch: object = None

    def __init__(self, *_: object) -> None:
        StandIn.ended = 0

    def begin(self) -> None:
        raise StandIn.raises

    def end(self) -> None:
        StandIn.ended += 1


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Stopping ignores further ones."""
    before = {number: signal.getsignal(number) for number in runner.STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run(monkeypatch: pytest.MonkeyPatch, raises: BaseException, untouched: bool, found: bool) -> tuple[int, str]:
    monkeypatch.setattr(start, "Start", StandIn)
    monkeypatch.setattr(StandIn, "raises", raises, raising=False)
    monkeypatch.setattr(StandIn, "untouched", untouched)
    monkeypatch.setattr(StandIn, "found_tunnels", found)
    out = io.StringIO()
    code = runner.run(checks.Wanted(Path("/p"), Path("/v"), None, None), Progress(out))
    return code, out.getvalue()


FAILURES = [RunError("web does not answer"), OSError(28, "No space left on device")]


@pytest.mark.parametrize("error", FAILURES)
@pytest.mark.parametrize(("untouched", "found", "said"), [(True, True, "go on"), (False, True, "tunnels above all")])
def test_a_start_that_fails_leaves_what_an_earlier_one_left(
    monkeypatch: pytest.MonkeyPatch, error: Exception, untouched: bool, found: bool, said: str
) -> None:
    code, out = run(monkeypatch, error, untouched, found)
    assert (code, StandIn.ended) == (1, 0)
    assert said in out
    assert str(error) in out


@pytest.mark.parametrize("error", FAILURES)
def test_a_first_start_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    assert run(monkeypatch, error, False, False)[0] == 1
    assert StandIn.ended == 1


def test_a_fault_of_ours_leaves_tunnels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError):
        run(monkeypatch, KeyError("x"), False, True)
    assert StandIn.ended == 0


@pytest.mark.parametrize("found", [True, False])
def test_a_wish_takes_all_down(monkeypatch: pytest.MonkeyPatch, found: bool) -> None:
    code, out = run(monkeypatch, runner.Stopped(), found, found)
    assert (code, StandIn.ended) == (0, 1)
    assert "Stopped." in out
