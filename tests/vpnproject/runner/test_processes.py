"""Our processes are known by their mark, and only they are ever ended."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import HANGING, until
from vpnproject.runner import processes, sysctls
from vpnproject.runner.processes import Process

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


@pytest.fixture
def instance() -> Iterator[str]:
    name = secrets.token_hex(8)
    yield name
    processes.end(processes.marked(name), name, grace=0)


def start(instance: str, code: str = "print('up', flush=True); import time; time.sleep(60)") -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={processes.MARK: instance})
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def test_only_processes_with_the_whole_mark_are_found(instance: str) -> None:
    mine, other = start(instance), start(instance + "0")
    try:
        assert [process.pid for process in processes.marked(instance)] == [mine.pid]
    finally:
        other.kill()
        other.wait(HANGING)


def test_a_grandchild_inherits_the_mark(instance: str) -> None:
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print('up', flush=True); p.wait()"
    parent = start(instance, code)
    # Right after it was started, the kernel may not show its environment yet.
    until(lambda: len(processes.marked(instance)) == 2)
    child = next(process for process in processes.marked(instance) if process.pid != parent.pid)
    assert child.parent == parent.pid
    assert child.command == ("sleep", "60")


def test_ending_asks_first_and_then_insists(instance: str) -> None:
    polite, stubborn = start(instance), start(instance, STUBBORN)
    assert processes.end(processes.marked(instance), instance, grace=0.3) == 2
    assert polite.wait(HANGING) == -15
    assert stubborn.wait(HANGING) == -9
    assert processes.marked(instance) == []


def test_a_process_that_took_over_a_remembered_id_is_spared(instance: str) -> None:
    innocent = start(instance + "-other")
    try:
        remembered = Process(innocent.pid, os.getpid(), 1, ("granian",))
        assert processes.end([remembered], instance, grace=0) == 0
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait(HANGING)


def test_an_ended_process_is_not_alive_though_nobody_collected_it(instance: str) -> None:
    process = start(instance)
    process.kill()
    until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    assert processes.marked(instance) == []
    assert processes.find(process.pid, instance) is None
    process.wait(HANGING)


def made(pid: int, parent: int, command: str = "python") -> Process:
    return Process(pid, parent, 0, (command,))


def test_strays_are_what_no_root_has_begun_and_no_tunnel() -> None:
    tree = [
        made(10, 1, "supervisord"),
        made(11, 10, "granian"),
        made(12, 11, "granian"),
        made(20, 1, "granian"),  # its main process was killed
        made(21, 20, "helper"),
        made(30, 1, "/usr/bin/wireguard-go"),
        made(41, 40, "loop"),
        made(40, 41, "loop"),
    ]
    assert [process.pid for process in processes.strays(tree, [10])] == [20, 21, 41, 40]
    assert [process.pid for process in processes.strays(tree[:3], [])] == [10, 11, 12]


@pytest.fixture
def sysctl_root(tmp_path: Path) -> Path:
    for name, value in (("ipv4/ip_forward", "0"), ("ipv6/conf/all/forwarding", "0"), ("ipv6/conf/eth0/accept_ra", "1")):
        path = tmp_path / "net" / name
        path.parent.mkdir(parents=True)
        path.write_text(f"{value}\n")
    return tmp_path / "net"


def test_forwarding_is_put_back_as_it_was(sysctl_root: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    assert not sysctls.remember(record, sysctl_root)
    (sysctl_root / "ipv4/ip_forward").write_text("1\n")
    (sysctl_root / "ipv6/conf/eth0/accept_ra").write_text("2\n")
    # A start after a kill finds forwarding on and must not take that for the machine's own wish.
    assert sysctls.remember(record, sysctl_root)
    changed = sysctls.put_back(record)
    assert len(changed) == 2
    assert "ip_forward is 0 again" in changed[0]
    assert (sysctl_root / "ipv4/ip_forward").read_text() == "0"
    assert (sysctl_root / "ipv6/conf/eth0/accept_ra").read_text() == "1"
    assert not record.exists()
    assert sysctls.put_back(record) == []


def test_a_record_of_before_a_reboot_is_not_put_back(sysctl_root: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    sysctls.remember(record, sysctl_root)
    record.write_text(record.read_text().replace(Path("/proc/sys/kernel/random/boot_id").read_text().strip(), "old"))
    (sysctl_root / "ipv4/ip_forward").write_text("1\n")
    assert sysctls.put_back(record) == []
    assert (sysctl_root / "ipv4/ip_forward").read_text() == "1\n"


def test_an_interface_that_is_gone_is_passed_over(sysctl_root: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    sysctls.remember(record, sysctl_root)
    (sysctl_root / "ipv6/conf/eth0/accept_ra").unlink()
    assert sysctls.put_back(record) == []
