"""What bin/run says when its host does not work, and a password that was forgotten; on the real product."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.host.test_run_whole import Installation, installation, lab, sign_in
from tests.lab import until
from vpnproject.runner.checks import kernel_has_wireguard
from vpnproject.runner.mounts import HOMES

__all__ = ["installation", "lab"]
pytestmark = pytest.mark.host


@pytest.mark.skipif(kernel_has_wireguard(), reason="the host would work")
@pytest.mark.long
def test_a_host_that_cannot_start_is_not_up(installation: Installation) -> None:
    installation.start(before=("env", "HOSTNET_BACKEND=kernel"))
    installation.started()
    said = installation.said()
    assert "the VPN is not" in said
    assert not re.search(r"\bUp after\b", said)
    assert re.search(r"this machine's host says: \S", said)
    assert re.search("this machine's host says: .*kernel", said)  # the cause, and not only that there is one
    assert "This host has put up its tunnels: not done" in said
    assert "bin/run --check" in said
    assert installation.get("/admin/login/")[0] == 200  # where it can be looked at and put right
    installation.stop()
    installation.assert_nothing_left()


@pytest.mark.long
def test_a_forgotten_password(installation: Installation) -> None:
    assert "There is no server" in new_password(installation, code=1)
    installation.start()
    installation.started()
    first = installation.printed(r"one-time password (\w+)")
    second = password_of(new_password(installation))
    assert sign_in(installation, second)
    assert not sign_in(installation, first)
    assert "there are: admin" in new_password(installation, "carol", code=1)
    assert "sets up a new second factor" in reset_second_factor(installation)
    assert "there are: admin" in reset_second_factor(installation, "carol", code=1)
    # It was no process that a program had left behind, and took nothing of the running server with it.
    assert until(lambda: installation.program("web"))
    assert installation.get("/admin/login/")[0] == 200
    installation.stop()

    third = password_of(new_password(installation, "admin"))
    assert not (HOMES / installation.instance()).exists()
    installation.start()
    installation.started()
    assert sign_in(installation, third)
    installation.stop()
    installation.assert_nothing_left()


def new_password(installation: Installation, *name: str, code: int = 0) -> str:
    done = run_beside(installation, "--new-password", *name)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def reset_second_factor(installation: Installation, *name: str, code: int = 0) -> str:
    """What it says."""
    done = run_beside(installation, "--reset-second-factor", *name)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def run_beside(installation: Installation, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Another bin/run of the same installation."""
    checkout = installation.checkout
    paths = f"PYTHONPATH={checkout / 'vpnproject'}:{checkout}"
    python = str(checkout / ".venv" / "bin" / "python")
    command = ["env", "-C", str(checkout), paths, python, "-m", "runner", "--var", str(installation.var), *arguments]
    return installation.machine.run(*command, check=False)


def password_of(said: str) -> str:
    found = re.search(r"one-time password (\w+)", said)
    assert found, said
    return found[1]
