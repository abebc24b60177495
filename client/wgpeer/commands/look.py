"""What is up, and what it said."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from wgpeer import daemon, display
from wgpeer import status as s
from wgpeer.commands.app import ProfileName, app, open_store
from wgpeer.daemon import EXIT_FAILED, EXIT_OK
from wgpeer.display import out
from wgpeer.store import StoreError


@app.command("status")
def show_status(
    context: typer.Context,
    profile: ProfileName = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, or a list of them without PROFILE.")
    ] = False,
) -> None:
    """Show what is up. Exit code 0 when (all that is asked for, or anything at all) is connected, 1 otherwise."""
    store = open_store(context)
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
    store = open_store(context)
    path = store.log_path(store.find(profile))
    if not path.exists():
        raise StoreError("there is no log yet; connect with: wgpeer up")
    try:
        display.show_log(path, lines, follow=follow)
    except KeyboardInterrupt:
        return
