"""What people see of a status and a log on a terminal."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from wgpeer import status as s
from wgpeer.status import Status

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

STATE_COLOURS = {s.CONNECTED: "green", s.REFUSED: "red", s.FAILED: "red", s.DOWN: "dim"}


def progress(status: Status) -> str:
    """What goes on, on one line."""
    activity = {s.SIGNING_IN: "waiting for your sign-in in the browser", s.CONNECTING: "asking"}.get(status.state, "")
    detail = status.message or status.last_error or status.host
    return escape(" ".join(part for part in (activity or status.state, detail) if part))


def failure_text(status: Status) -> str:
    """Why it ended, and what to do."""
    if status.reg_key:
        return (
            f"this device is not registered yet. Give the administrator this registration key: {status.reg_key}, "
            "and connect again when it is confirmed"
        )
    if status.state == s.REFUSED:
        return f"the server refused: {status.last_error}"
    return status.last_error or "it ended without a word; see: wgpeer logs"


def ask_to_sign_in(status: Status) -> None:
    """Say where, and by what its user knows that the page is about this very attempt."""
    err.print(f"sign in here: {escape(status.sign_in_url)}", soft_wrap=True)
    err.print(f"The page must show the code [bold]{escape(status.sign_in_code)}[/bold]; close it if it does not.")


def note_dns(status: Status) -> None:
    """Say so when the name servers could not be set."""
    if status.dns.startswith("not set"):
        err.print(f"[yellow]name servers {escape(status.dns)}[/yellow]", soft_wrap=True)


def show(status: Status) -> None:
    """A status, row by row."""
    out.print(f"[bold]{escape(status.profile)}[/bold]  {coloured(status.state)}")
    rows = {
        "address": status.address,
        "interface": f"{status.interface} ({status.backend})" if status.interface else "",
        "endpoint": status.endpoint,
        "gateway": status.gateway,
        "by": status.host,
        "public key": status.public_key,
        "since": ago(status.since),
        "last ping": ago(status.last_ping),
        "reconnects": str(status.reconnects or ""),
        "session ends": _in(status.session_ends),
        "new keys": str(status.renewals or ""),
        "through tunnel": status.routes,
        "all traffic": status.coverage,
        "conflicts": status.conflicts,
        "repaired": f"{status.repaired}, {ago(status.last_repair)} (in all {status.repairs})" if status.repairs else "",
        "mtu": str(status.mtu or ""),
        "name servers": status.dns,
        "sign in here": status.sign_in_url,
        "code to compare": status.sign_in_code,
        "registration key": status.reg_key,
        "note": status.message,
        "last error": status.last_error,
    }
    for title, value in rows.items():
        if value:
            out.print(f"  {title:<17}{escape(value)}", soft_wrap=True)


def ago(moment: float) -> str:
    """How long ago a moment (Unix seconds) was, empty for 0."""
    if not moment:
        return ""
    seconds = max(0, int(time.time() - moment))
    if seconds < 60:
        return f"{seconds} s ago"
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours} h {minutes} min ago" if hours else f"{minutes} min ago"


def _in(moment: float) -> str:
    """How soon a moment (Unix seconds) is, empty for 0."""
    if not moment:
        return ""
    minutes = max(0, int(moment - time.time())) // 60
    return f"in {minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"in {minutes} min"


def coloured(state: str) -> str:
    """A state, marked up."""
    colour = STATE_COLOURS.get(state, "yellow")
    return f"[{colour}]{state}[/{colour}]"


def show_log(path: Path, lines: int, *, follow: bool) -> None:
    """The last lines of a log, and with ``follow`` what comes, without end."""
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
