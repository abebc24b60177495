"""What the ``Applier`` says it has done."""

from __future__ import annotations

from dataclasses import dataclass

from servers.hostnet.state import HostCondition
from servers.hostnet.state.host_networks import HostNetwork

from .held import Gone


@dataclass(frozen=True, slots=True)
class FullReport:
    """What came of a full state, or of a repair. ``keys``: WireGuard public keys by server; ``drift``: what others had
    changed; ``conditions``: what is wrong now; ``settled``: whether all of it could be done; ``networks``: what the
    host has itself, None where it could not be read."""

    version: int
    keys: dict[str, str]
    drift: list[str]
    conditions: list[HostCondition]
    gone: list[Gone]
    settled: bool
    networks: tuple[HostNetwork, ...] | None = None


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What came of single changes. ``answers``: for each message, empty when it is done, else why not."""

    answers: list[str]
    gone: list[Gone]
