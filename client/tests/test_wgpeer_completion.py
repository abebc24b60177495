"""Completion by the shell: commands and profiles, in each of the three shells."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from wgpeer.importer import parse_all
from wgpeer.store import Store
from wgpeer_fakes import HANGING, profile_text

COMMAND = Path(sys.executable).with_name("wgpeer")
# How the script of each shell asks, for the words typed so far.
ASKING = {
    "bash": lambda words: {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)},
    "zsh": lambda words: {"_TYPER_COMPLETE_ARGS": words},
    "fish": lambda words: {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    store = Store.open(tmp_path / "d")
    for name, server in (("acme", "a" * 24), ("acorn", "b" * 24), ("other", "c" * 24)):
        store.add(name, parse_all({name: profile_text(server_id=server)})[name])
    return store.root


def completed(shell: str, words: str, **environment: str) -> str:
    asked = {"_WGPEER_COMPLETE": f"complete_{shell}", **ASKING[shell](words), **environment}
    done = subprocess.run(
        [COMMAND], capture_output=True, text=True, timeout=HANGING, check=False, env={**os.environ, **asked}
    )
    return done.stdout


@pytest.mark.parametrize(
    ("shell", "command"),
    [
        *(("bash", command) for command in ("up", "down", "status", "logs", "remove", "service remove")),
        *((shell, "service install") for shell in ASKING),
    ],
)
def test_profiles_are_completed_wherever_one_is_named(directory: Path, shell: str, command: str) -> None:
    shown = completed(shell, f"wgpeer {command} ac", WGPEER_DIR=str(directory))
    assert "acme" in shown
    assert "acorn" in shown
    assert "other" not in shown


@pytest.mark.parametrize("shell", ASKING)
def test_profiles_are_those_of_the_directory_on_the_line(directory: Path, shell: str) -> None:
    assert "acme" in completed(shell, f"wgpeer --dir {directory} up ac")
    assert "acme" not in completed(shell, f"wgpeer --dir {directory.parent} up ac")


@pytest.mark.parametrize("shell", ASKING)
def test_commands_are_completed(shell: str) -> None:
    shown = completed(shell, "wgpeer sta")
    assert "status" in shown
    assert "remove" not in shown


def test_in_a_real_bash(directory: Path) -> None:
    shell = (
        'eval "$(_WGPEER_COMPLETE=source_bash wgpeer)"; '
        'COMP_WORDS=(wgpeer up ac); COMP_CWORD=2; _wgpeer_completion wgpeer; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PATH": f"{COMMAND.parent}:{os.environ['PATH']}", "WGPEER_DIR": str(directory)}
    done = subprocess.run(
        ["bash", "-ec", shell], capture_output=True, text=True, timeout=HANGING, check=True, env=environment
    )
    assert done.stdout.split() == ["acme", "acorn"]
