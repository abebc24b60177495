"""What a running profile is doing, for people and for scripts."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wgpeer.store import read_json, write_file

STARTING, CONNECTING, SIGNING_IN, CONNECTED = "starting", "connecting", "signing-in", "connected"
RECONNECTING, REFUSED, FAILED, DOWN = "reconnecting", "refused", "failed", "down"
ENDED = (REFUSED, FAILED, DOWN)


@dataclass(frozen=True, slots=True)
class Status:
    """``since`` and ``last_ping`` are Unix seconds, 0 when there was none. ``host`` is the API address that allowed.
    ``dns`` and ``routes`` are for people."""

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
    dns: str = ""
    routes: str = ""
    mtu: int = 0
    message: str = ""
    sign_in_url: str = ""
    reg_key: str = ""
    last_error: str = ""

    def as_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


def save(path: Path, status: Status) -> None:
    write_file(path, status.as_json() + "\n", durable=False)  # every few seconds, and worthless after a power cut


def load(path: Path) -> Status | None:
    """The last status written; None when there is none."""
    raw = read_json(path)
    kinds = {
        field.name: (int, float) if field.name in ("since", "last_ping") else type(field.default)
        for field in dataclasses.fields(Status)
    }
    known: dict[str, Any] = {name: raw[name] for name, kind in kinds.items() if isinstance(raw.get(name), kind)}
    return Status(**known) if raw else None
