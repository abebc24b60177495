"""Profiles: add, list, remove."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from wgpeer import daemon, display, importer
from wgpeer.commands.app import ProfileName, app, default_directory, need_root, open_store
from wgpeer.display import out
from wgpeer.store import Store
from wgpeer.text import printable


@app.command()
def add(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="An import link, or a .tar, .zip or .ovpn file.")],
    insecure: Annotated[bool, typer.Option("--insecure", help="Do not verify the server's certificate.")] = False,
) -> None:
    """Add the profiles behind an import link or in a file."""
    if context.obj == default_directory():
        # Before a link that works once is used: what a user keeps, root does not find.
        need_root("a tunnel", f"wgpeer add {shlex.quote(source)}")
    store, added = open_store(context), list[str]()
    for file_name, profile in importer.load(source, insecure=insecure).items():
        name = store.add(file_name, profile)
        out.print(f"added [bold]{escape(name)}[/bold] ({escape(profile.title)})")
        added.append(name)
    _say_next(context.obj, added, len(store.names()))


def _say_next(directory: Path, added: list[str], count: int) -> None:
    """The very command that connects with what was added."""
    sudo = ["sudo"] if os.environ.get("SUDO_USER") or os.geteuid() != 0 else []
    command = [*sudo, _own_command(), *(["--dir", str(directory)] if directory != default_directory() else []), "up"]
    for name in added if count > 1 else [""]:
        out.print(f"connect with: {escape(shlex.join([*command, *([name] if name else [])]))}", soft_wrap=True)


def _own_command() -> str:
    """How this program is called: by its path where the shell would not find it."""
    called = Path(sys.argv[0]).absolute()
    found = shutil.which("wgpeer")
    ours = called.name == "wgpeer" and os.access(called, os.X_OK)
    return str(called) if ours and (found is None or not called.samefile(found)) else "wgpeer"


@app.command("list")
def list_profiles(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="A list of JSON objects.")] = False
) -> None:
    """List the profiles."""
    store = open_store(context)
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
    store = open_store(context)
    name = store.find(profile)
    daemon.stop(store, name)
    store.remove(name)
    out.print(f"removed {escape(name)}")
