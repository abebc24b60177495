"""The command ``wgpeer``."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from wgpeer import __version__, daemon, display, importer
from wgpeer import status as s
from wgpeer.daemon import (
    EXIT_FAILED,
    EXIT_MISSING,
    EXIT_OK,
    EXIT_PENDING,
    EXIT_REFUSED,
    EXIT_RIGHTS,
    EXIT_USAGE,
    Choices,
)
from wgpeer.display import err, out
from wgpeer.factors import PASSCODE, PASSWORD, PIN, FactorToken, MissingSecret, join_password
from wgpeer.importer import ImportFailed
from wgpeer.profile import Profile
from wgpeer.status import Status
from wgpeer.store import Store, StoreError
from wgpeer.text import printable
from wgpeer.tunnel.interface import BACKENDS

app = typer.Typer(
    help="Connect this machine to a WireGuard VPN server that gives out a new key for every connection.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run a command; what people can put right ends in one line and an exit code, never in a trace."""
    try:
        app()
    except StoreError as error:
        _fail(str(error), EXIT_MISSING)
    except MissingSecret as error:
        _fail(str(error), EXIT_USAGE)
    except ImportFailed as error:
        _fail(str(error), EXIT_FAILED)


def _fail(message: str, code: int) -> None:
    err.print(f"[red]wgpeer:[/red] {escape(printable(message, 2000))}", soft_wrap=True)
    sys.exit(code)


def _default_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/wgpeer")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "wgpeer"


Directory = Annotated[
    Path | None,
    typer.Option("--dir", envvar="WGPEER_DIR", help="Where profiles are kept. Default: /var/lib/wgpeer."),
]


def _complete(incomplete: str) -> list[str]:
    """Names for the shell's completion: none where they cannot be read."""
    directory = Path(os.environ.get("WGPEER_DIR") or _default_dir())
    try:
        return [name for name in Store(directory).names() if name.startswith(incomplete)]
    except OSError:
        return []


ProfileName = Annotated[
    str | None,
    typer.Argument(metavar="[PROFILE]", help="Name or its beginning; needed if several.", autocompletion=_complete),
]


@app.callback(invoke_without_command=True)
def common(
    context: typer.Context,
    directory: Directory = None,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Options of every command."""
    if version:
        out.print(__version__)
        raise typer.Exit(EXIT_OK)
    context.obj = directory or _default_dir()


def _store(context: typer.Context) -> Store:
    return Store.open(context.obj)


@app.command()
def add(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="An import link, or a .tar, .zip or .ovpn file.")],
    insecure: Annotated[bool, typer.Option("--insecure", help="Do not verify the server's certificate.")] = False,
) -> None:
    """Add the profiles behind an import link or in a file."""
    store, added = _store(context), list[str]()
    for file_name, profile in importer.load(source, insecure=insecure).items():
        name = store.add(file_name, profile)
        out.print(f"added [bold]{escape(name)}[/bold] ({escape(profile.title)})")
        added.append(name)
    _say_next(context.obj, added, len(store.names()))


def _say_next(directory: Path, added: list[str], count: int) -> None:
    """The very command that connects with what was added."""
    if os.geteuid() != 0:
        out.print("a tunnel needs root, which keeps profiles of its own; add it as root: sudo wgpeer add SOURCE")
        return
    command = ["wgpeer", *(["--dir", str(directory)] if directory != _default_dir() else []), "up"]
    for name in added if count > 1 else [""]:
        out.print(f"connect with: {escape(shlex.join([*command, *([name] if name else [])]))}", soft_wrap=True)


@app.command("list")
def list_profiles(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="A list of JSON objects.")] = False
) -> None:
    """List the profiles."""
    store = _store(context)
    if as_json:
        sys.stdout.write(json.dumps([_listed(store, name) for name in store.names()], indent=2) + "\n")
        return
    table = Table("PROFILE", "USER", "ORGANIZATION", "SERVER", "STATE", box=None, pad_edge=False)
    for name in store.names():
        shown = _listed(store, name)
        texts = [shown[key][:60] for key in ("profile", "user", "organization", "server")]
        table.add_row(*map(escape, texts), display.coloured(shown["state"]))
    if table.row_count:
        out.print(table)
    else:
        out.print("no profile yet; add one with: wgpeer add LINK")


def _listed(store: Store, name: str) -> dict[str, str]:
    """One object of ``wgpeer list --json``."""
    profile, keys = store.load(name), ("user", "organization", "server")
    texts = {key: printable(profile.text(key), 200) for key in keys}
    return {"profile": name, **texts, "state": daemon.current_status(store, name).state}


@app.command()
def remove(context: typer.Context, profile: ProfileName = None) -> None:
    """Disconnect and forget a profile."""
    store = _store(context)
    name = store.find(profile)
    daemon.stop(store, name)
    store.remove(name)
    out.print(f"removed {escape(name)}")


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
    if os.geteuid() != 0:
        _fail("a tunnel needs root; use: sudo wgpeer up", EXIT_RIGHTS)
    store = _store(context)
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
    last = Status(profile=name)
    try:
        with err.status(f"connecting {escape(name)}") as spinner:
            for last in daemon.watch(store, name, process, seconds):
                spinner.update(display.progress(last))
                if last.sign_in_url and last.state == s.SIGNING_IN:
                    err.print(f"sign in here: {escape(last.sign_in_url)}", soft_wrap=True)
    except KeyboardInterrupt:
        daemon.stop(store, name)
        _fail("given up", EXIT_FAILED)
    return process.poll(), last


def _report(code: int | None, last: Status) -> None:
    if last.state == s.CONNECTED:
        out.print(f"[green]connected[/green]: {escape(last.address)} on {last.interface}, by {escape(last.host)}")
        display.note_dns(last)
    elif code is None:
        _fail(
            f"not connected yet ({last.last_error or last.state}); it goes on trying in the background. "
            "See: wgpeer status, wgpeer logs; end it with: wgpeer down",
            EXIT_PENDING,
        )
    else:
        _fail(display.failure_text(last), code or EXIT_FAILED)


@app.command()
def down(context: typer.Context, profile: ProfileName = None) -> None:
    """Disconnect: the tunnel, its routes and its name servers go."""
    if os.geteuid() != 0:
        _fail("taking a tunnel down needs root; use: sudo wgpeer down", EXIT_RIGHTS)
    store = _store(context)
    names = [store.find(profile)] if profile else [name for name in store.names() if daemon.is_up(store, name)]
    stopped = [name for name in names if daemon.stop(store, name)]
    if not stopped:
        for name in store.names():
            daemon.clean_up_if_down(store, name)
        _fail("nothing is up", EXIT_MISSING)
    for name in stopped:
        out.print(f"{escape(name)} is down")


@app.command("status")
def show_status(
    context: typer.Context,
    profile: ProfileName = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, or a list of them without PROFILE.")
    ] = False,
) -> None:
    """Show what is up. Exit code 0 when (all that is asked for, or anything at all) is connected, 1 otherwise."""
    store = _store(context)
    names = [store.find(profile)] if profile else store.names()
    seen = [daemon.current_status(store, name) for name in names]
    if as_json:
        shown = [asdict(status) for status in seen]
        sys.stdout.write(json.dumps(shown[0] if profile else shown, indent=2) + "\n")
    else:
        for status in seen:
            display.show(status)
        if not seen:
            out.print("no profile yet; add one with: wgpeer add LINK")
    raise typer.Exit(EXIT_OK if any(status.state == s.CONNECTED for status in seen) else EXIT_FAILED)


@app.command()
def logs(
    context: typer.Context,
    profile: ProfileName = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on showing what comes.")] = False,
    lines: Annotated[int, typer.Option("-n", help="How many of the last lines.")] = 50,
) -> None:
    """Show a profile's log."""
    store = _store(context)
    path = store.log_path(store.find(profile))
    if not path.exists():
        raise StoreError("there is no log yet; connect with: wgpeer up")
    try:
        display.show_log(path, lines, follow=follow)
    except KeyboardInterrupt:
        return
