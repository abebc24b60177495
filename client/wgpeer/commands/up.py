"""A profile goes up and down."""

from __future__ import annotations

import getpass
import os
import sys
import time
from typing import Annotated

import typer
from rich.markup import escape

from wgpeer import daemon, display
from wgpeer import status as s
from wgpeer.commands.app import ProfileName, app, fail, need_root, open_store
from wgpeer.daemon import EXIT_FAILED, EXIT_MISSING, EXIT_PENDING, EXIT_REFUSED, Choices
from wgpeer.display import err, out
from wgpeer.factors import PASSCODE, PASSWORD, PIN, FactorToken, join_password
from wgpeer.profile import Profile
from wgpeer.status import Status
from wgpeer.store import Store
from wgpeer.text import printable
from wgpeer.tunnel.interface import BACKENDS


def _known_backend(value: str) -> str:
    if value not in BACKENDS:
        raise typer.BadParameter(f"there is no {value}; choose one of: {', '.join(BACKENDS)}")
    return value


@app.command()
def up(
    context: typer.Context,
    profile: ProfileName = None,
    pin: Annotated[str | None, typer.Option(envvar="WGPEER_PIN", help="PIN; asked for if needed.")] = None,
    otp: Annotated[str | None, typer.Option(envvar="WGPEER_OTP", help="One-time code; asked for if needed.")] = None,
    password: Annotated[str | None, typer.Option(envvar="WGPEER_PASSWORD", help="Password; asked for.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read all secrets, joined as the server wants them, from stdin.")
    ] = False,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay, for a service manager.")] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the connection before leaving it alone.")] = 60.0,
    backend: Annotated[
        str, typer.Option(envvar="WGPEER_BACKEND", help=f"{', '.join(BACKENDS)}.", callback=_known_backend)
    ] = "auto",
    device_name: Annotated[
        str, typer.Option(envvar="WGPEER_DEVICE_NAME", help="What the server shows this device as. Default: host name.")
    ] = "",
) -> None:
    """Connect, and stay connected in the background."""
    need_root("a tunnel", "wgpeer up")
    store = open_store(context)
    name = store.find(profile)
    loaded = store.load(name)
    if daemon.is_up(store, name):
        out.print(f"{escape(name)} is up already; see: wgpeer status")
        return
    if message := printable(loaded.text("pre_connect_msg"), 2000):
        (err if foreground else out).print(escape(message), soft_wrap=True)
    given = {PIN: pin, PASSCODE: otp, PASSWORD: password}
    joined = sys.stdin.read(4096).rstrip("\n") if password_stdin else _secrets(store, name, loaded, given)
    choices = Choices(backend, device_name)
    if foreground:
        os.chdir("/")
        sys.exit(daemon.run(store, name, joined, choices))
    code, last = _up_in_background(store, name, joined, choices, wait)
    if code == EXIT_REFUSED and not password_stdin and _asks_for_more(store, name, loaded):
        err.print(f"[yellow]the server refused ({escape(last.last_error)}) and asks for other secrets now[/yellow]")
        again = _secrets(store, name, store.load(name), {} if sys.stdin.isatty() else given)
        code, last = _up_in_background(store, name, again, choices, wait) if again != joined else (code, last)
    _report(code, last)


def _asks_for_more(store: Store, name: str, before: Profile) -> bool:
    """Whether a sync after the refusal brought another ``password_mode``."""
    return store.load(name).header.get("password_mode") != before.header.get("password_mode")


def _secrets(store: Store, name: str, profile: Profile, given: dict[str, str | None]) -> str:
    """The password of this connect. Nothing is asked while the factor token stands for it."""
    mode = profile.header.get("password_mode")
    if FactorToken.load(store.token_path(name), profile).is_valid(time.time()) and not any(given.values()):
        return ""
    ask = (lambda what: getpass.getpass(f"{what}: ")) if sys.stdin.isatty() else None
    return join_password(mode if isinstance(mode, str) else None, given, ask)


def _up_in_background(
    store: Store, name: str, password: str, choices: Choices, seconds: float
) -> tuple[int | None, Status]:
    """The exit code (None: it goes on) and the last status."""
    process = daemon.start(store, name, password, choices)
    last, shown = Status(profile=name), ""
    try:
        with err.status(f"connecting {escape(name)}") as spinner:
            for last in daemon.watch(store, name, process, seconds):
                spinner.update(display.progress(last))
                if last.state == s.SIGNING_IN and last.sign_in_url not in ("", shown):
                    display.ask_to_sign_in(last)
                    shown = last.sign_in_url
    except KeyboardInterrupt:
        daemon.stop(store, name)
        fail("given up", EXIT_FAILED)
    return process.poll(), last


def _report(code: int | None, last: Status) -> None:
    if last.state == s.CONNECTED:
        out.print(f"[green]connected[/green]: {escape(last.address)} on {last.interface}, by {escape(last.host)}")
        display.note_dns(last)
    elif code is None:
        fail(
            f"not connected yet ({last.last_error or last.state}); it goes on trying in the background. "
            "See: wgpeer status, wgpeer logs; end it with: wgpeer down",
            EXIT_PENDING,
        )
    else:
        fail(display.failure_text(last), code or EXIT_FAILED)


@app.command()
def down(context: typer.Context, profile: ProfileName = None) -> None:
    """Disconnect: the tunnel, its routes and its name servers go."""
    need_root("taking a tunnel down", "wgpeer down")
    store = open_store(context)
    names = [store.find(profile)] if profile else [name for name in store.names() if daemon.is_up(store, name)]
    stopped = [name for name in names if daemon.stop(store, name)]
    if not stopped:
        for name in store.names():
            daemon.clean_up_if_down(store, name)
        fail("nothing is up", EXIT_MISSING)
    for name in stopped:
        out.print(f"{escape(name)} is down")
