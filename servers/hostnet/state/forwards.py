"""Ports of hosts that lead to a client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Forward:
    """Ports of the host's public addresses that lead to a peer: ``port`` to ``last`` (both included) to as many from
    ``to_port`` on. ``protocol`` is ``tcp`` or ``udp``."""

    protocol: str
    port: int
    last: int
    to_port: int


def forward_from_json(data: Mapping[str, Any]) -> Forward:
    """Raise ``KeyError``, ``TypeError`` or ``ValueError`` where ``data`` is none."""
    return Forward(str(data["protocol"]), int(data["port"]), int(data["last"]), int(data["to_port"]))
