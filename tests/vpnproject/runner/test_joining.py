"""``bin/run --join``: what is looked at before a token is used up. The joining itself is in
``tests/host/test_net_two_control_nodes.py``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from servers.hostnet.command import machine
from servers.hostnet.state.joining import Token
from vpnproject.runner import joining
from vpnproject.runner.__main__ import parse
from vpnproject.runner.console import Progress, RunError

TOKEN = Token.make(os.urandom(32)).text
NOWHERE = "127.0.0.1:9"  # where nobody listens


@pytest.fixture(autouse=True)
def new_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tunnels of other tests, or a host on this very machine, are no matter here."""
    monkeypatch.setattr(machine, "check_carries_nothing", lambda: None)
    monkeypatch.setattr(joining, "DIRECTORY", tmp_path / "vpn-host")


def refused(var: Path, *words: str, token_file: Path | None = None) -> str:
    before = sorted(var.rglob("*"))
    with pytest.raises(RunError) as caught:
        joining.join(var, list(words), token_file, Progress())
    assert sorted(var.rglob("*")) == before
    assert TOKEN not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["secret_key", "field_keys", "settings.env", "choices.json", "database/db.sqlite3"])
def test_machine_that_has_been_set_up_keeps_what_it_has(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    assert "has been set up already" in refused(tmp_path, NOWHERE, TOKEN)
    assert (tmp_path / name).read_text() == "mine"


def test_machine_that_is_a_host_has_to_leave_first(tmp_path: Path) -> None:
    (tmp_path / "vpn-host").mkdir()
    (tmp_path / "vpn-host" / "host.env").write_text("HOST_ID=abc\n")
    var = tmp_path / "var"
    var.mkdir()
    assert "bin/host leave comes first" in refused(var, NOWHERE, TOKEN)


def test_what_is_no_address_or_no_token_is_said(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    var = tmp_path / "var"
    var.mkdir()
    assert "is no address" in refused(var, "http://x/", TOKEN)
    assert "not a token" in refused(var, NOWHERE, "join1-short")
    assert "nothing else" in refused(var, NOWHERE, TOKEN, "more")
    assert "--token-file" in refused(var, NOWHERE)
    assert "--token-file" in refused(var, NOWHERE, TOKEN, token_file=file)
    assert "cannot be read" in refused(var, NOWHERE, token_file=tmp_path / "nothing")
    assert "cannot be asked" in refused(var, NOWHERE, token_file=file)


@pytest.mark.parametrize("words", [["--check", "--join", NOWHERE, TOKEN], ["--token-file", "x"]])
def test_options_that_make_no_sense_together_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse(words)
