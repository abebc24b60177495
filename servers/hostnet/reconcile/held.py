"""What ``Desired`` hands out: peers that are desired, connections that ended, what changed since it was settled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from servers.hostnet.state import Peer

Reason = Literal["asked", "silent", "replaced"]


@dataclass(frozen=True, slots=True)
class Held:
    """A peer that is desired on ``server``; ``since`` is when this run took it, by the applier's clock."""

    server: str
    peer: Peer
    since: float


@dataclass(frozen=True, slots=True)
class Gone:
    """A connection that ended; ``server`` and ``allowed_ips`` (the networks behind it included) are empty where the
    host did not have it."""

    connection: str
    reason: Reason
    server: str = ""
    allowed_ips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed on one server since it was last settled: peers as they were, and as they are desired now. A peer
    that was altered is in both."""

    gone: tuple[Peer, ...]
    new: tuple[Peer, ...]
