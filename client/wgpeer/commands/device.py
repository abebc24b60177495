"""The key by which servers know this machine."""

from __future__ import annotations

import hashlib
from typing import Annotated

import typer
from rich.markup import escape

from wgpeer import device_key
from wgpeer.commands.app import app, need_root, open_store
from wgpeer.device_key import Held
from wgpeer.display import out

device = typer.Typer(help="The key by which servers know this machine.", no_args_is_help=True)
app.add_typer(device, name="device")


@device.command("show")
def show(context: typer.Context) -> None:
    """Say where this machine's key is, and its fingerprint. Makes one where there is none."""
    need_root("the key", "wgpeer device show")
    _say(device_key.held(open_store(context)))


@device.command("new")
def new(
    context: typer.Context,
    tpm: Annotated[bool, typer.Option("--tpm/--file", help="In the TPM, or in a file of root's.")] = True,
) -> None:
    """Make a new key in the place of the old one. To servers this is another device then, to be registered anew."""
    need_root("the key", "wgpeer device new")
    _say(device_key.make(open_store(context), in_tpm=tpm))
    out.print("Servers that ask for a registered device show a registration key at the next: wgpeer up")


def _say(held: Held) -> None:
    why = f" ({escape(held.why)})" if held.why else ""
    out.print(f"the device key is {held.where}{why}", soft_wrap=True)
    out.print(f"SHA-256 {hashlib.sha256(held.key.public_der).hexdigest()}", soft_wrap=True)
