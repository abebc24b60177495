"""Which WireGuard a host takes, and what it says when it can have none."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers.hostnet.wireguard import choose as module
from servers.hostnet.wireguard import kernel
from servers.hostnet.wireguard.base import WireGuardError
from servers.hostnet.wireguard.choose import choose


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine whose kernel has no WireGuard, with wireguard-go on its PATH and a TUN device; gives its directory."""
    program = tmp_path / "wireguard-go"
    program.touch(mode=0o755)
    (tmp_path / "tun").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "_TUN", tmp_path / "tun")
    monkeypatch.setattr(kernel, "available", lambda: False)
    return tmp_path


class RefusingKernel(kernel.Kernel):
    """A kernel that has WireGuard and does not let us make a link."""

    def create(self, interface: str) -> None:
        raise WireGuardError(f"{interface}: cannot be created: operation not permitted (errno 1)")


class ObligingKernel(kernel.Kernel):
    """A kernel that lets us; remembers which links there are."""

    def __init__(self) -> None:
        made.clear()

    def create(self, interface: str) -> None:
        made.append(interface)

    def delete(self, interface: str) -> None:
        made.remove(interface)


made: list[str] = []


def test_auto_takes_the_kernel_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "available", lambda: True)
    monkeypatch.setattr(kernel, "Kernel", ObligingKernel)
    assert choose("auto").name == "kernel"
    assert made == []


@pytest.mark.parametrize("available", [False, True])
def test_auto_takes_userspace_where_the_kernel_does_not_work(monkeypatch: pytest.MonkeyPatch, available: bool) -> None:
    monkeypatch.setattr(kernel, "available", lambda: available)
    monkeypatch.setattr(kernel, "Kernel", RefusingKernel)
    assert choose("auto").name == "userspace"


def test_the_kernel_is_not_even_asked_when_userspace_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> bool:
        raise AssertionError("asked")

    monkeypatch.setattr(kernel, "available", refuse)
    assert choose("userspace").name == "userspace"


def test_kernel_never_falls_back() -> None:
    with pytest.raises(WireGuardError, match="the kernel has no WireGuard"):
        choose("kernel")


def test_a_kernel_that_refuses_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "available", lambda: True)
    monkeypatch.setattr(kernel, "Kernel", RefusingKernel)
    with pytest.raises(WireGuardError, match="operation not permitted"):
        choose("kernel")


def test_when_neither_works_both_reasons_are_given(machine: Path) -> None:
    (machine / "wireguard-go").unlink()
    with pytest.raises(WireGuardError, match="the kernel has no WireGuard; wireguard-go is not installed"):
        choose("auto")


def test_a_machine_without_tun_is_told_so(machine: Path) -> None:
    (machine / "tun").unlink()
    with pytest.raises(WireGuardError, match=r"wireguard-go needs .*tun"):
        choose("userspace")


@pytest.mark.parametrize("setting", ["", "AUTO", "wireguard", "x" * 1000])
def test_another_setting_is_refused(setting: str) -> None:
    with pytest.raises(WireGuardError, match="must be auto, kernel or userspace") as raised:
        choose(setting)
    assert len(str(raised.value)) < 100
