"""Installing Debian packages starts no service, and leaves the machine's own policy as it was."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from tests.lab import HANGING

INSTALL = Path(__file__).resolve().parents[3] / "vpnproject" / "runner" / "install.sh"


def bash(script: str, policy: Path) -> subprocess.CompletedProcess[str]:
    """Run ``script`` with the functions of install.sh, on a policy file of this test's own."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"source {INSTALL}; policy={policy}; {script}"],
        capture_output=True,
        text=True,
        timeout=HANGING,
        check=False,
    )


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return tmp_path / "policy-rc.d"


def test_services_are_denied_while_installing_only(policy: Path) -> None:
    done = bash('deny_service_starts; "$policy" redis-server start || echo "denied $?"; restore_policy', policy)
    assert done.stdout == "denied 101\n", done.stderr
    assert not policy.exists()


def test_the_machines_own_policy_comes_back(policy: Path) -> None:
    policy.write_text("#!/bin/sh\nexit 104\n")
    policy.chmod(0o755)
    done = bash(
        'deny_service_starts; "$policy" x start || echo "$?"; restore_policy; "$policy" x start || echo "$?"', policy
    )
    assert done.stdout == "101\n104\n", done.stderr
    assert policy.read_text() == "#!/bin/sh\nexit 104\n"
    assert not policy.with_name("policy-rc.d.before-vpn").exists()


def test_a_killed_installer_denies_nothing_afterwards(policy: Path) -> None:
    policy.write_text("#!/bin/sh\nexit 104\n")
    policy.chmod(0o755)
    assert bash("deny_service_starts; kill -9 $$", policy).returncode == -9
    assert subprocess.run([policy, "ssh", "start"], check=False).returncode == 104
    # And the next one cleans up.
    bash("restore_policy", policy)
    assert policy.read_text() == "#!/bin/sh\nexit 104\n"


def test_without_a_policy_before_there_is_none_afterwards_even_when_killed(policy: Path) -> None:
    assert bash("deny_service_starts; kill -9 $$", policy).returncode == -9
    assert subprocess.run([policy, "ssh", "start"], check=False).returncode == 0
    bash("restore_policy", policy)
    assert not policy.exists()


def test_missing_packages_are_found(policy: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("bash\nno-such-package-here\ndpkg\n")
    done = bash(f"missing_packages {tmp_path / 'list'}", policy)
    assert (done.stdout, done.stderr) == ("no-such-package-here\n", "")
    (tmp_path / "list").write_text("bash\ndpkg\n")
    assert bash(f"missing_packages {tmp_path / 'list'}", policy).stdout == ""


def test_nothing_is_installed_when_nothing_is_missing(policy: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("bash\ndpkg\n")
    done = bash(f"apt-get() {{ echo called; }}; install_packages {tmp_path / 'list'}", policy)
    assert (done.returncode, done.stdout) == (0, "")
    assert not policy.exists()


def test_a_failing_apt_shows_its_words_and_restores_the_policy(policy: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("no-such-package-here\n")
    done = bash(f"apt-get() {{ echo 'E: no network'; return 100; }}; install_packages {tmp_path / 'list'}", policy)
    assert done.returncode == 1
    assert "E: no network" in done.stderr
    assert not policy.exists()


def test_only_services_of_packages_that_were_missing_are_disabled(policy: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("bash\nno-such-package-here\n")
    done = bash(
        f'apt-get() {{ :; }}; disable_services_of() {{ echo disabled "$@"; }}; install_packages {tmp_path / "list"}',
        policy,
    )
    assert "disabled no-such-package-here\n" in done.stdout


def test_a_service_that_cannot_be_disabled_does_not_end_the_installation(policy: Path, tmp_path: Path) -> None:
    (tmp_path / "iperf3").touch(mode=0o755)
    done = bash(
        f"init_scripts={tmp_path}; dpkg() {{ echo /lib/systemd/system/iperf3.service; }}; "
        'deb-systemd-helper() { return 1; }; update-rc.d() { echo "$*" >&3; return 1; }; '
        "exec 3>&1; disable_services_of iperf3; echo and on",
        policy,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("iperf3 disable\nand on\n", "", 0)


def test_what_fails_unexpectedly_is_named(policy: Path) -> None:
    done = bash("step() { cat /no/such/file; }; step; echo not reached", policy)
    assert (done.stdout, done.returncode) == ("", 1)
    assert "Stopped, since this failed: cat /no/such/file" in done.stderr


def test_the_environment_is_left_alone_while_requirements_do_not_change(policy: Path, tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("django\n")
    (tmp_path / "bin").mkdir()
    asked = tmp_path / "asked"
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\necho "python $*" >> {asked}\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    run = f"venv={tmp_path}; base_python() {{ echo {tmp_path}/bin/python; }}; make_venv run {requirements}"
    assert "Python packages installed" in bash(run, policy).stdout
    assert asked.read_text().count("pip install") == 1
    assert bash(run, policy).stdout == ""
    requirements.write_text("django\ncelery\n")
    bash(run, policy)
    assert asked.read_text().count("pip install") == 2


def test_an_environment_of_another_python_is_made_anew(policy: Path, tmp_path: Path) -> None:
    """As of one below /root, which the programs' users cannot run."""
    for name in ("own", "other"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/asked\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / "requirements.txt").touch()
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(tmp_path / "own")
    run = f"venv={tmp_path}/venv; base_python() {{ echo $chosen; }}; make_venv run {tmp_path}/requirements.txt"
    bash(f"chosen={tmp_path}/own; {run}", policy)
    assert "-m venv" not in (tmp_path / "asked").read_text()
    bash(f"chosen={tmp_path}/other; {run}", policy)
    assert f"other -m venv --clear {tmp_path}/venv" in (tmp_path / "asked").read_text()


def test_debians_python_comes_before_a_persons_own(policy: Path, tmp_path: Path) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\n")
    (tmp_path / "python3").chmod(0o755)
    assert bash(f"PATH={tmp_path}:$PATH; base_python", policy).stdout == "/usr/bin/python3\n"


def goes_on_until(mark: Path) -> str:
    """A step that says something and ends when ``mark`` is there."""
    return f"watched 'Something long' bash -c 'echo busy; until [[ -e {mark} ]]; do read -t 0.05 <> <(:); done; true'"


def test_a_step_shows_that_it_goes_on_and_how_long_it_took(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", f"source {INSTALL}; tick_every=0.1; {goes_on_until(mark)}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    assert re.fullmatch(r"  \.\.   Something long +\d+ s\n", first)
    mark.touch()
    rest = process.stdout.read()  # to the end: whatever shows that it goes on holds nobody's terminal
    assert process.wait(HANGING) == 0
    assert re.fullmatch(r"  ok   Something long +\d+\.\d\d s\n", rest.splitlines(keepends=True)[-1])
    assert "busy" not in first + rest


def test_on_a_terminal_it_is_one_line_that_changes(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", f"source {INSTALL}; tick_every=0.1; {goes_on_until(mark)}"],
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while b"busy" not in shown:
        shown += os.read(ours, 4096)
    mark.touch()
    assert process.wait(HANGING) == 0
    while b"ok" not in shown:
        shown += os.read(ours, 4096)
    os.close(ours)
    assert shown.count(b"\n") <= 1
    assert re.search(rb"\r\x1b\[K  \.\.   Something long +\d+ s  busy\r", shown)


def test_a_step_that_fails_shows_what_it_said(policy: Path) -> None:
    done = bash("watched 'Something' bash -c 'echo why it failed; exit 7' || echo then $?", policy)
    assert done.stdout == "then 7\n"
    assert done.stderr == "why it failed\n"


def test_nothing_is_shown_any_more_once_the_shell_is_gone(tmp_path: Path) -> None:
    """Killed in the middle of a step, as by kill -9: else lines would come for ever."""
    script = f"source {INSTALL}; tick_every=0.1; watched 'Something' bash -c 'kill -9 $PPID; exit'"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=HANGING, check=False)
    assert done.returncode == -9
