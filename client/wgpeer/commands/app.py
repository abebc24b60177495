"""What all commands share: the application itself, where profiles are kept, names of profiles, and how a command
fails."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from wgpeer import __version__
from wgpeer.daemon import EXIT_OK, EXIT_RIGHTS
from wgpeer.display import err, out
from wgpeer.store import Store
from wgpeer.text import printable

SYSTEM_DIRECTORY = Path("/var/lib/wgpeer")

app = typer.Typer(
    help="Connect this machine to a WireGuard VPN server that gives out a new key for every connection.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def fail(message: str, code: int) -> NoReturn:
    """End with one line and an exit code."""
    err.print(f"[red]wgpeer:[/red] {escape(printable(message, 2000))}", soft_wrap=True)
    sys.exit(code)


def need_root(why: str, again: str) -> None:
    """End unless this is root. ``again`` is the command that would do."""
    if os.geteuid() != 0:
        fail(f"{why} needs root; use: sudo {again}", EXIT_RIGHTS)


def default_directory() -> Path:
    """Where profiles are kept unless somebody says otherwise."""
    if os.geteuid() == 0:
        return SYSTEM_DIRECTORY
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "wgpeer"


def open_store(context: typer.Context) -> Store:
    """The store of this call. Raises ``StoreError``."""
    return Store.open(context.obj)


def _complete(context: typer.Context, incomplete: str) -> list[str]:
    """Names for the shell's completion: none where they cannot be read."""
    directory = Path(context.find_root().params.get("directory") or default_directory())
    try:
        return [name for name in Store(directory).names() if name.startswith(incomplete)]
    except OSError:
        return []


ProfileName = Annotated[
    str | None,
    typer.Argument(metavar="[PROFILE]", help="Name or its beginning; needed if several.", autocompletion=_complete),
]
Directory = Annotated[
    Path | None,
    typer.Option("--dir", envvar="WGPEER_DIR", help="Where profiles are kept. Default: /var/lib/wgpeer."),
]


@app.callback(invoke_without_command=True)
def common(
    context: typer.Context,
    directory: Directory = None,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Options of every command."""
    if version:
        show_version()
        raise typer.Exit(EXIT_OK)
    context.obj = directory or default_directory()


@app.command("version")
def show_version() -> None:
    """Show the version."""
    out.print(__version__)
