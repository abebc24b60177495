"""What is true of userspace WireGuard alone: the life and death of its processes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from servers.hostnet.wireguard import keys, uapi, userspace
from servers.hostnet.wireguard.base import Backend, WireGuardError
from servers.hostnet.wireguard.userspace import Userspace
from tests.host.wgfixtures import interface, ip, make_peers, new_name, new_namespace
from tests.lab import HANGING, NEVER, until

pytestmark = pytest.mark.host


@pytest.fixture
def backend() -> Iterator[Backend]:
    with new_namespace():
        yield Userspace()


@pytest.fixture
def name(backend: Backend) -> Iterator[str]:
    with interface(backend) as made:
        yield made


def test_tunnels_outlive_the_process_that_made_them(backend: Backend) -> None:
    """Killed with its whole process group, as a supervisor or Ctrl-C would."""
    name, private = new_name(), keys.make_private()
    program = (
        "import os, signal\n"
        "from servers.hostnet.wireguard.userspace import Userspace\n"
        f"Userspace().create({name!r})\n"
        f"Userspace().set({name!r}, private_key=bytes.fromhex({private.hex()!r}))\n"
        "os.killpg(0, signal.SIGKILL)\n"
    )
    try:
        ended = subprocess.run([sys.executable, "-c", program], start_new_session=True, timeout=HANGING, check=False)
        assert ended.returncode == -signal.SIGKILL
        assert backend.list() == [name]
        backend.create(name)
        assert backend.get(name).public_key == keys.public_of(private)
    finally:
        backend.delete(name)


def test_the_process_gets_nothing_of_our_environment_or_files(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOST_REDIS_URL", "redis://:password@example.test")
    with (tmp_path / "open file").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        with interface(backend) as name:
            process = Path(f"/proc/{_process_of(name)}")
            assert b"password" not in (process / "environ").read_bytes()
            held = []
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(FileNotFoundError):  # open for a moment only
                    held.append(os.readlink(descriptor))
    assert "/dev/net/tun" in held
    assert file.name not in held


def test_a_killed_process_is_noticed_and_its_interface_made_again(backend: Backend, name: str) -> None:
    backend.set(name, private_key=keys.make_private(), peers=make_peers(3))
    _kill(name)
    assert uapi.socket_path(name).exists()
    assert backend.list() == []
    with pytest.raises(WireGuardError, match=f"{name}: no such interface"):
        backend.get(name)

    backend.create(name)
    assert backend.list() == [name]
    assert backend.get(name).peers == {}


def test_deleting_cleans_the_socket_of_a_killed_process(backend: Backend, name: str) -> None:
    _kill(name)
    backend.delete(name)
    assert not uapi.socket_path(name).exists()


def test_an_interface_whose_link_was_removed_is_made_again(backend: Backend, name: str) -> None:
    ip("link", "del", name)
    backend.create(name)
    assert backend.list() == [name]
    assert backend.get(name).peers == {}


def test_an_interface_of_another_namespace_is_not_ours(
    backend: Backend, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(userspace, "LEFT_WITHIN", NEVER)
    with new_namespace():
        assert backend.list() == []
        backend.delete(name)
        with pytest.raises(WireGuardError, match=f"{name}: .*another network namespace"):
            backend.create(name)
    assert backend.list() == [name]


def test_a_process_that_hangs_is_an_error_in_time(backend: Backend, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uapi, "SILENCE", NEVER)
    process = _process_of(name)
    os.kill(process, signal.SIGSTOP)
    # Its threads stop one after the other, and one may still give an answer.
    until(lambda: all(_state(task) == "T" for task in Path(f"/proc/{process}/task").iterdir()))
    try:
        for call in (backend.get, backend.set, backend.delete):
            with pytest.raises(WireGuardError, match=f"{name}: .*no answer in time"):
                call(name)
    finally:
        os.kill(process, signal.SIGCONT)
    monkeypatch.undo()
    assert backend.get(name).peers == {}


def test_a_link_of_another_kind_in_the_way_is_an_error_in_words(backend: Backend) -> None:
    name = new_name()
    ip("link", "add", name, "type", "veth")
    with pytest.raises(WireGuardError, match=f"{name}: wireguard-go did not start: .+"):
        backend.create(name)
    assert backend.list() == []


def test_a_machine_without_the_program_is_told_so(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    name = new_name()
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(WireGuardError, match=f"{name}: wireguard-go is not installed"):
        backend.create(name)


def test_reading_ten_thousand_peers_again_and_again_takes_little_memory(backend: Backend, name: str) -> None:
    backend.set(name, private_key=keys.make_private(), peers=make_peers(10_000))
    program = (
        "import resource\n"
        "from servers.hostnet.wireguard.userspace import Userspace\n"
        f"for _ in range(10): assert len(Userspace().get({name!r}).peers) == 10_000\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
    )
    # Begun by a shell: a process starts with the peak that its parent had when it forked.
    command = ["sh", "-c", '"$0" -c "$1"; exit $?', sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGING, check=True)
    assert int(done.stdout) < 80  # MiB; 45 were seen


@contextmanager
def _pidfd(process: int) -> Iterator[int]:
    descriptor = os.pidfd_open(process)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def _process_of(name: str) -> int:
    """The process that carries the interface."""
    wanted = f"{userspace.PROGRAM}\0{name}\0".encode()
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal() and _command_line(directory) == wanted:
            return int(directory.name)
    raise AssertionError(f"no process carries {name}")


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _kill(name: str) -> None:
    process = _process_of(name)
    with _pidfd(process) as descriptor:
        os.kill(process, signal.SIGKILL)
        assert select.select([descriptor], [], [], HANGING)[0], "it did not die"
