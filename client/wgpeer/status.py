"""What a running profile does, for people and for scripts, in a file that is written at each change."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wgpeer.store import read_json, write_file

STARTING, CONNECTING, SIGNING_IN, CONNECTED = "starting", "connecting", "signing-in", "connected"
RECONNECTING, REFUSED, FAILED, DOWN = "reconnecting", "refused", "failed", "down"
ENDED = (REFUSED, FAILED, DOWN)


@dataclass(frozen=True, slots=True)
class Health:
    """How a tunnel stands on this machine. ``all_traffic``: just now the kernel sends everything that does not stay on
    this machine's LANs through it; ``coverage`` says that for people, empty where it is not wanted. ``conflicts`` is
    what it shares with LANs or loses to other tunnels, for people. ``repairs`` counts how often something was put back
    that other programs had changed; ``repaired`` is what, at ``last_repair`` (Unix seconds)."""

    all_traffic: bool = False
    coverage: str = ""
    conflicts: str = ""
    repairs: int = 0
    repaired: str = ""
    last_repair: float = 0.0


@dataclass(frozen=True, slots=True)
class Status:
    """One object of ``wgpeer status --json``.

    ``since`` (the first ping of the present connection) and ``last_ping`` are Unix seconds, 0 when there was none.
    ``host`` is the URL of the API that allowed the connection, ``endpoint`` is ADDRESS:PORT of its WireGuard,
    ``public_key`` that of this connection. ``mtu`` is bytes. ``dns``, ``routes`` and ``message`` are text for people.
    ``session_ends`` is when the server ends the connection (Unix seconds, 0: never), ``renewals`` how often it was
    given a new key before that. ``all_traffic`` to ``last_repair`` are those of ``Health``.
    """

    profile: str = ""
    state: str = STARTING
    pid: int = 0
    address: str = ""
    gateway: str = ""
    host: str = ""
    endpoint: str = ""
    interface: str = ""
    backend: str = ""
    public_key: str = ""
    since: float = 0.0
    last_ping: float = 0.0
    reconnects: int = 0
    session_ends: float = 0.0
    renewals: int = 0
    dns: str = ""
    routes: str = ""
    mtu: int = 0
    all_traffic: bool = False
    coverage: str = ""
    conflicts: str = ""
    repairs: int = 0
    repaired: str = ""
    last_repair: float = 0.0
    message: str = ""
    sign_in_url: str = ""
    sign_in_code: str = ""
    reg_key: str = ""
    last_error: str = ""


class LiveStatus:
    """The status of a running profile, ``now``. Threads may change it; ``report`` is called with each new one."""

    def __init__(self, now: Status, report: Callable[[Status], None]) -> None:
        self.now = now
        self._report = report
        self._lock = threading.Lock()

    def change(self, **changes: Any) -> None:
        """Set some of its fields."""
        with self._lock:
            changed = dataclasses.replace(self.now, **changes)
            if changed != self.now:
                self.now = changed
                self._report(changed)


def save(path: Path, status: Status) -> None:
    """Write a status as JSON, whole or not at all."""
    # Not durable: it is written every few seconds, and worthless after a power cut.
    write_file(path, json.dumps(dataclasses.asdict(status)) + "\n", durable=False)


def load(path: Path) -> Status | None:
    """The last status written, None when there is none. A field of the wrong type counts as missing."""
    raw = read_json(path)
    kinds = {
        field.name: (int, float) if type(field.default) is float else type(field.default)
        for field in dataclasses.fields(Status)
    }
    known: dict[str, Any] = {name: raw[name] for name, kind in kinds.items() if isinstance(raw.get(name), kind)}
    return Status(**known) if raw else None
