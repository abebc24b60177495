"""An administrator has forgotten their password, or lost their second factor: root on this machine helps them."""

from __future__ import annotations

import subprocess

from . import checks, files, mounts, privileges, programs
from .console import Progress, RunError
from .processes import MARK

WITHIN = 120.0


def renew(wanted: checks.Wanted, name: str, progress: Progress) -> None:
    """Show a new one-time password for ``name``. Works while the server runs, and while it does not."""
    password = _manage(wanted, "new_password", name)
    progress.good(f"Name {name}, one-time password {password} (shown only now)")
    progress.note("Whoever was signed in with the old one is signed out.")


def reset_second_factor(wanted: checks.Wanted, name: str, progress: Progress) -> None:
    """Take the second factor of ``name`` away; likewise."""
    _manage(wanted, "reset_second_factor", name)
    progress.good(f"{name} sets up a new second factor at the next sign-in, and is signed out everywhere.")
    progress.note("Until then the password alone opens that page: if others may know it, bin/run --new-password too.")


def _manage(wanted: checks.Wanted, command: str, name: str) -> str:
    if not (wanted.var / "instance").exists() or not (wanted.var / "settings.env").exists():
        raise RunError(f"There is no server in {wanted.var} yet: bin/run makes one, and shows its first password.")
    house = mounts.house(files.make_instance(wanted.var), wanted.project, wanted.var)
    in_use = house.home.exists()
    mounts.enter(house)
    try:
        return _ask(house, command, name)
    finally:
        if not in_use:
            mounts.leave(house)


def _ask(house: mounts.House, command: str, name: str) -> str:
    # Without the mark: a bin/run that is up would take it for a process that one of its programs left behind.
    environment = {key: value for key, value in programs.base_environment("").items() if key != MARK}
    done = subprocess.run(
        privileges.wrapped("setup", [str(house.code / ".venv/bin/python"), "manage.py", command, "--", name]),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=house.code,
        env={**environment, **programs.django_environment(house.var)},
        timeout=WITHIN,
        check=False,
    )
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["it ended without a word"]
        raise RunError(words[-1].removeprefix("CommandError: "))
    return done.stdout.strip()
