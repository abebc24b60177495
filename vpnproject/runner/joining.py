"""``bin/run --join``: this machine becomes a further control node, by a token that the admin shows.

Before the token is used up, all is looked at that could be in the way here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from servers.hostnet.command import machine
from servers.hostnet.command.asking import Address, ask, read_token
from servers.hostnet.command.place import DIRECTORY, HostError, Place
from servers.hostnet.state.joining import Token
from servers.hostnet.state.version import VERSION

from . import files, handover, layout
from .console import Progress, RunError


def join(var: Path, words: list[str], token_file: Path | None, progress: Progress) -> None:
    """``words`` are the address and, unless it is in ``token_file``, the token. ``RunError``, and nothing is changed
    here, where the machine cannot be one, or the control side refuses."""
    address, *rest = words
    if len(rest) > 1:
        raise RunError("Give --join the address and the token, and nothing else.")
    try:
        _join(var, Address.parse(address), read_token(rest[0] if rest else None, token_file), progress)
    except HostError as error:
        raise RunError(str(error)) from None


def _join(var: Path, address: Address, token: Token, progress: Progress) -> None:
    check_new(var)
    about: dict[str, Any] = {"as": "control", "release": VERSION, "networks": machine.networks()}
    about["addresses"] = machine.addresses()
    said = ask(address, token, "check", **about)
    progress.good(f"{address} knows the token: this machine becomes control node {said['host']}")
    machine.check_port(int(said["port"]))
    said = ask(address, token, "join", **about)
    names = handover.take(var, said)
    choices = {"host_id": said["id"], "public_address": said["public_address"], "port": int(said["port"])}
    files.write_json(var / "choices.json", choices)
    progress.good(f"Joined as control node {said['name']}; its secrets and {len(names)} settings are in {var}")


def check_new(var: Path) -> None:
    """Raise ``RunError`` or ``HostError`` where this machine is something already."""
    for name in (layout.DATABASE, Path("secret_key"), Path("field_keys"), Path("settings.env"), Path("choices.json")):
        if (var / name).exists():
            raise RunError(f"{var / name} is there: this machine has been set up already. Give an empty --var.")
    if Place(DIRECTORY).joined():
        raise RunError("This machine is a host of an installation already: bin/host leave comes first.")
    machine.check_carries_nothing()
