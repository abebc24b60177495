"""Name servers of a tunnel, through whatever manages them on this machine. /etc/resolv.conf itself is never touched."""

from __future__ import annotations

import shutil
import subprocess

TIMEOUT = 10.0


def apply(interface: str, servers: tuple[str, ...], domains: tuple[str, ...]) -> str:
    """Use these servers for all names while the interface is up. Says in words what was done; see ``manager``."""
    if not servers:
        return ""
    shown = ", ".join(servers)
    if _resolvectl(interface, servers, domains):
        return f"{shown} (by resolvectl)"
    if _resolvconf(interface, servers, domains):
        return f"{shown} (by resolvconf)"
    return (
        f"not set: neither systemd-resolved nor resolvconf works here. To use {shown}, install one of them, or enter "
        "it where this machine keeps its name servers"
    )


def restore(interface: str) -> None:
    """Take our servers out again, by every manager there is: cheap, and right whichever had taken them in."""
    if shutil.which("resolvectl"):
        _run(["resolvectl", "revert", interface])
    if shutil.which("resolvconf"):
        _run(["resolvconf", "-d", _record(interface)])


def _record(interface: str) -> str:
    return f"{interface}.wgpeer"


def _resolvectl(interface: str, servers: tuple[str, ...], domains: tuple[str, ...]) -> bool:
    if not shutil.which("resolvectl"):
        return False
    # "~." makes these servers the ones for every name, not only for the search domains.
    return _run(["resolvectl", "dns", interface, *servers]) and _run(
        ["resolvectl", "domain", interface, "~.", *domains]
    )


def _resolvconf(interface: str, servers: tuple[str, ...], domains: tuple[str, ...]) -> bool:
    if not shutil.which("resolvconf"):
        return False
    lines = [f"nameserver {server}" for server in servers]
    lines += [f"search {' '.join(domains)}"] if domains else []
    return _run(["resolvconf", "-a", _record(interface)], "\n".join(lines) + "\n")


def _run(command: list[str], text: str = "") -> bool:
    try:
        done = subprocess.run(
            command,
            input=text.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
