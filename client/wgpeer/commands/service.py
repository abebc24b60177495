"""A profile as a service of systemd, which connects it when the machine starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import typer
from rich.markup import escape

from wgpeer import daemon
from wgpeer.commands.app import SYSTEM_DIRECTORY, ProfileName, app, fail, need_root, open_store
from wgpeer.daemon import EXIT_FAILED
from wgpeer.display import err, out
from wgpeer.factors import FactorToken, required_secrets
from wgpeer.store import Store

UNIT = "wgpeer@.service"
UNITS = Path("/etc/systemd/system")
BOOTED = Path("/run/systemd/system")  # is there where systemd runs the machine (sd_booted)
HOMES = ("/home", "/root", "/run/user")
SYSTEMCTL = "systemctl"  # asked for only where systemd runs
PACKAGED = "/usr/local/bin/wgpeer"  # as the unit in the package has it

service = typer.Typer(help="Connect a profile when the machine starts.", no_args_is_help=True)
app.add_typer(service, name="service")


@service.command()
def install(context: typer.Context, profile: ProfileName = None) -> None:
    """Have systemd connect a profile now and at each start of the machine."""
    need_root("a service", "wgpeer service install")
    store = open_store(context)
    name = store.find(profile)
    if store.root != SYSTEM_DIRECTORY:
        fail(f"services read {SYSTEM_DIRECTORY}; add the profile there, without --dir", EXIT_FAILED)
    text = unit(_executable())
    _need_systemd()
    daemon.stop(store, name)  # from here on it is the service's
    path = UNITS / UNIT
    path.write_text(text)
    path.chmod(0o644)
    _systemctl("daemon-reload")
    _systemctl("enable", "--now", instance(name))
    out.print(
        f"{escape(name)} connects at each start of this machine; see: wgpeer status, journalctl -u {instance(name)}"
    )
    _warn_of_secrets(store, name)


@service.command()
def remove(context: typer.Context, profile: ProfileName = None) -> None:
    """Disconnect a profile, and no longer connect it at the start."""
    need_root("a service", "wgpeer service remove")
    name = open_store(context).find(profile)
    _need_systemd()
    _systemctl("disable", "--now", instance(name))
    out.print(f"{escape(name)} no longer connects at the start of this machine")


def unit(executable: Path) -> str:
    """The unit's file, for this very ``wgpeer``."""
    return (resources.files("wgpeer") / UNIT).read_text().replace(PACKAGED, str(executable))


def instance(name: str) -> str:
    """The unit of one profile. Names of profiles need no escaping: ``Store.add`` sees to that."""
    return f"wgpeer@{name}.service"


def _executable() -> Path:
    """The command that a service can run."""
    called = Path(sys.argv[0]).absolute()
    if called.name != "wgpeer" or not os.access(called, os.X_OK):
        called = Path(sys.executable).with_name("wgpeer")
    for path in (called.resolve(), Path(sys.prefix).resolve()):
        if any(path.is_relative_to(home) for home in HOMES):
            fail(f"{path} is in somebody's home, where services do not see it; install wgpeer into /opt", EXIT_FAILED)
    if any(character.isspace() or character in "%$\\\"'" for character in str(called)):
        fail(f"systemd cannot run a command at {called}; install wgpeer into /opt", EXIT_FAILED)
    return called


def _need_systemd() -> None:
    if not BOOTED.exists() or shutil.which(SYSTEMCTL) is None:
        fail("systemd does not run this machine; have yours run at its start: wgpeer up PROFILE", EXIT_FAILED)


def _systemctl(*words: str) -> None:
    done = subprocess.run([SYSTEMCTL, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        fail(f"systemctl {' '.join(words)} failed: {done.stderr.strip()}", EXIT_FAILED)


def _warn_of_secrets(store: Store, name: str) -> None:
    profile = store.load(name)
    mode = profile.header.get("password_mode")
    asked = required_secrets(mode if isinstance(mode, str) else None)
    if asked and not FactorToken.load(store.token_path(name), profile).is_valid(time.time()):
        err.print(
            f"[yellow]this profile asks for a {' and a '.join(asked)}, which nobody types at a start: it will not "
            f"connect by itself. One that stays the same can be given to the service: see the head of {UNITS / UNIT}"
            "[/yellow]",
            soft_wrap=True,
        )
