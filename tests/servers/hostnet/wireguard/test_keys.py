"""The host's private keys: made once, kept whole, read by nobody else."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from servers.hostnet.wireguard import keys
from servers.hostnet.wireguard.base import WireGuardError
from servers.hostnet.wireguard.fields import key_text
from tests.lab import HANGING


def test_public_key_is_the_one_of_rfc_7748() -> None:
    # Section 5.2: one iteration on the base point 9.
    public = bytes.fromhex("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079")
    assert keys.public_of(b"\x09" + bytes(31)) == key_text(public)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_private_key_of_another_length_has_no_public_key(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        keys.public_of(bytes(length))


def test_private_keys_are_clamped_and_differ() -> None:
    made = {keys.make_private() for _ in range(200)}
    assert len(made) == 200
    for key in made:
        assert len(key) == 32
        assert key[0] & 0b0000_0111 == 0
        assert key[31] & 0b1100_0000 == 0b0100_0000


def test_a_key_is_made_once_and_then_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "server1"
    key = keys.load_or_make(path)
    assert keys.load_or_make(path) == key
    assert path.read_text() == key_text(key) + "\n"
    assert _mode(path) == 0o600
    assert _mode(path.parent) == 0o700
    assert os.listdir(path.parent) == ["server1"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666, 0o700, 0o400])
def test_a_file_with_another_mode_is_made_private(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    key = keys.load_or_make(path)
    path.chmod(mode)
    assert keys.load_or_make(path) == key
    assert _mode(path) == 0o600


def test_the_umask_makes_no_difference(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keys.load_or_make(tmp_path / "key")
    finally:
        os.umask(before)
    assert _mode(tmp_path / "key") == 0o600


@pytest.mark.parametrize("cut", [0, 1, 20, 43])
def test_what_is_no_key_is_kept_and_not_shown(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "key"
    half = key_text(keys.make_private())[:cut]
    path.write_text(half)
    with pytest.raises(WireGuardError, match="does not hold a WireGuard key") as raised:
        keys.load_or_make(path)
    assert path.read_text() == half
    if cut > 1:
        assert half not in str(raised.value)
        assert raised.value.__suppress_context__


def test_a_symbolic_link_is_refused_and_what_it_names_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "target"
    keys.load_or_make(target)
    target.chmod(0o644)
    (tmp_path / "key").symlink_to(target)
    with pytest.raises(WireGuardError, match=str(tmp_path / "key")):
        keys.load_or_make(tmp_path / "key")
    assert _mode(target) == 0o644


def test_a_directory_and_a_pipe_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it must not wait for a writer either
    (tmp_path / "directory").mkdir()
    for name in ("pipe", "directory"):
        with pytest.raises(WireGuardError, match=name):
            keys.load_or_make(tmp_path / name)


def test_many_makers_end_with_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = set(pool.map(keys.load_or_make, [tmp_path / "key"] * 64))
    assert len(made) == 1
    assert os.listdir(tmp_path) == ["key"]


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_a_full_disk_leaves_no_file_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, step, fail)
        with pytest.raises(WireGuardError, match="No space left"):
            keys.load_or_make(tmp_path / "key")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("step", ["fsync", "link", "unlink"])
def test_a_crash_at_any_step_leaves_a_whole_key_or_none(tmp_path: Path, step: str) -> None:
    program = (
        "import os, pathlib, signal\n"
        "from servers.hostnet.wireguard import keys\n"
        f"os.{step} = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"keys.load_or_make(pathlib.Path({str(tmp_path / 'key')!r}))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], timeout=HANGING, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / "key").exists() == (step == "unlink")
    assert keys.load_or_make(tmp_path / "key") == keys.load_or_make(tmp_path / "key")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
