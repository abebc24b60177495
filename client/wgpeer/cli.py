"""The command ``wgpeer``."""

from __future__ import annotations

import getpass
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wgpeer import __version__, daemon, importer
from wgpeer import status as s
from wgpeer.daemon import EXIT_FAILED, EXIT_MISSING, EXIT_OK, EXIT_PENDING, EXIT_RIGHTS, EXIT_USAGE
from wgpeer.factors import PASSCODE, PASSWORD, PIN, FactorToken, MissingSecret, join_password
from wgpeer.importer import ImportFailed
from wgpeer.profile import Profile
from wgpeer.status import Status
from wgpeer.store import Store, StoreError
from wgpeer.text import printable

app = typer.Typer(
    help="Connect this machine to a WireGuard VPN server that gives out a new key for every connection.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

STATE_COLOURS = {s.CONNECTED: "green", s.REFUSED: "red", s.FAILED: "red", s.DOWN: "dim"}


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
ProfileName = Annotated[
    str | None, typer.Argument(metavar="[PROFILE]", help="Name or its beginning; needed if several.")
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
    store = _store(context)
    for file_name, profile in importer.load(source, insecure=insecure).items():
        name = store.add(file_name, profile)
        out.print(f"added [bold]{escape(name)}[/bold] ({escape(profile.title)})")
    out.print("connect with: wgpeer up")


@app.command("list")
def list_profiles(context: typer.Context) -> None:
    """List the profiles."""
    store = _store(context)
    table = Table("PROFILE", "USER", "ORGANIZATION", "SERVER", "STATE", box=None, pad_edge=False)
    for name in store.names():
        profile = store.load(name)
        texts = [printable(profile.text(key), 60) for key in ("user", "organization", "server")]
        table.add_row(escape(name), *map(escape, texts), _coloured(daemon.current_status(store, name).state))
    if table.row_count:
        out.print(table)
    else:
        out.print("no profile yet; add one with: wgpeer add LINK")


@app.command()
def remove(context: typer.Context, profile: ProfileName = None) -> None:
    """Disconnect and forget a profile."""
    store = _store(context)
    name = store.find(profile)
    daemon.stop(store, name)
    store.remove(name)
    out.print(f"removed {escape(name)}")


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
    backend: Annotated[str, typer.Option(envvar="WGPEER_BACKEND", help="auto, kernel or userspace.")] = "auto",
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
    if foreground:
        os.chdir("/")
        sys.exit(daemon.run(store, name, joined, backend))
    _up_in_background(store, name, joined, backend, wait)


def _secrets(store: Store, name: str, profile: Profile, given: dict[str, str | None]) -> str:
    """The password of this connect. Nothing is asked while the factor token stands for it."""
    mode = profile.header.get("password_mode")
    if FactorToken.load(store.token_path(name), profile).is_valid(time.time()) and not any(given.values()):
        return ""
    ask = (lambda what: getpass.getpass(f"{what}: ")) if sys.stdin.isatty() else None
    return join_password(mode if isinstance(mode, str) else None, given, ask)


def _up_in_background(store: Store, name: str, password: str, backend: str, seconds: float) -> None:
    process = daemon.start(store, name, password, backend)
    last = Status(profile=name)
    try:
        with err.status(f"connecting {escape(name)}") as spinner:
            for last in daemon.watch(store, name, process, seconds):
                spinner.update(_progress(last))
                if last.sign_in_url and last.state == s.SIGNING_IN:
                    err.print(f"sign in here: {escape(last.sign_in_url)}", soft_wrap=True)
    except KeyboardInterrupt:
        daemon.stop(store, name)
        _fail("given up", EXIT_FAILED)
    code = process.poll()
    if last.state == s.CONNECTED:
        out.print(f"[green]connected[/green]: {escape(last.address)} on {last.interface}, by {escape(last.host)}")
        _note_dns(last)
    elif code is None:
        _fail(
            f"not connected yet ({last.last_error or last.state}); it goes on trying in the background. "
            "See: wgpeer status, wgpeer logs; end it with: wgpeer down",
            EXIT_PENDING,
        )
    else:
        _fail(_failure_text(last), code or EXIT_FAILED)


def _progress(status: Status) -> str:
    activity = {s.SIGNING_IN: "waiting for your sign-in in the browser", s.CONNECTING: "asking"}.get(status.state, "")
    detail = status.message or status.last_error or status.host
    return escape(" ".join(part for part in (activity or status.state, detail) if part))


def _failure_text(status: Status) -> str:
    if status.reg_key:
        return (
            f"this device is not registered yet. Give the administrator this registration key: {status.reg_key}, "
            "and connect again when it is confirmed"
        )
    if status.state == s.REFUSED:
        return f"the server refused: {status.last_error}"
    return status.last_error or "it ended without a word; see: wgpeer logs"


def _note_dns(status: Status) -> None:
    if status.dns.startswith("not set"):
        err.print(f"[yellow]name servers {escape(status.dns)}[/yellow]", soft_wrap=True)


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
            _show(status)
        if not seen:
            out.print("no profile yet; add one with: wgpeer add LINK")
    raise typer.Exit(EXIT_OK if any(status.state == s.CONNECTED for status in seen) else EXIT_FAILED)


def _show(status: Status) -> None:
    out.print(f"[bold]{escape(status.profile)}[/bold]  {_coloured(status.state)}")
    rows = {
        "address": status.address,
        "interface": f"{status.interface} ({status.backend})" if status.interface else "",
        "endpoint": status.endpoint,
        "gateway": status.gateway,
        "by": status.host,
        "public key": status.public_key,
        "since": _ago(status.since),
        "last ping": _ago(status.last_ping),
        "reconnects": str(status.reconnects or ""),
        "through tunnel": status.routes,
        "all traffic": status.coverage,
        "conflicts": status.conflicts,
        "repaired": f"{status.repaired}, {_ago(status.last_repair)} (in all {status.repairs})"
        if status.repairs
        else "",
        "mtu": str(status.mtu or ""),
        "name servers": status.dns,
        "sign in here": status.sign_in_url,
        "registration key": status.reg_key,
        "note": status.message,
        "last error": status.last_error,
    }
    for title, value in rows.items():
        if value:
            out.print(f"  {title:<17}{escape(value)}", soft_wrap=True)


def _ago(moment: float) -> str:
    if not moment:
        return ""
    seconds = max(0, int(time.time() - moment))
    if seconds < 60:
        return f"{seconds} s ago"
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours} h {minutes} min ago" if hours else f"{minutes} min ago"


def _coloured(state: str) -> str:
    colour = STATE_COLOURS.get(state, "yellow")
    return f"[{colour}]{state}[/{colour}]"


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
        _show_log(path, lines, follow=follow)
    except KeyboardInterrupt:
        return


def _show_log(path: Path, lines: int, *, follow: bool) -> None:
    with path.open() as file:
        for line in file.readlines()[-lines:] if lines > 0 else []:
            sys.stdout.write(line)
        sys.stdout.flush()
        position = file.tell()
    while follow:
        time.sleep(0.5)  # a log for eyes: twice a second is often enough
        if path.stat().st_size < position:
            position = 0  # rotated
        with path.open() as file:
            file.seek(position)
            sys.stdout.write(file.read())
            sys.stdout.flush()
            position = file.tell()
