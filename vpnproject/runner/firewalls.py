"""Other firewalls of this machine, for ``bin/run --check``. Reads only."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

DEFAULT_PORT = 51820
# In the place of a server where none runs yet.
STAND_IN = ("wgs1", DEFAULT_PORT, ["10.9.0.1/24"])


def in_the_way(project: Path, gateway_port: int) -> list[str]:
    """In words, what other firewalls would drop of the servers that run here, or of one with usual settings.

    Raise ``RuntimeError`` with the reason if that cannot be found out.
    """
    foreign, state = _hostnet(project, "foreign.manager"), _hostnet(project, "state")
    interfaces = [
        # Which routes a server has is not known here: one that sends everything stands for all.
        state.Interface(name, name, port, tuple(addresses), 0, True, 360, (), (), restrict=False)
        for name, port, addresses in running() or [STAND_IN]
    ]
    try:
        found: list[str] = foreign.Foreign().check(interfaces, gateway_port)
    except foreign.FirewallError as error:
        raise RuntimeError(str(error)) from error
    return found


def _hostnet(project: Path, name: str) -> Any:
    """A module of the host's side. Like this package it needs nothing installed, but is not on the runner's path."""
    if str(project) not in sys.path:
        sys.path.append(str(project))
    return importlib.import_module(f"servers.hostnet.{name}")


def running() -> list[tuple[str, int, list[str]]]:
    """Name, UDP port and addresses of each interface of ours."""
    found = []
    for link in json.loads(_said("ip", "-j", "address") or "[]"):
        name = str(link.get("ifname", ""))
        port = _said("wg", "show", name, "listen-port").strip() if name.startswith("wgs") else ""
        inside = [f"{a['local']}/{a['prefixlen']}" for a in link.get("addr_info", ()) if a.get("scope") == "global"]
        if port.isdigit() and int(port) and inside:
            found.append((name, int(port), inside))
    return found


def _said(*command: str) -> str:
    """What a command prints; nothing if it fails or is not installed."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
