"""Clients of this host's servers that are on other hosts, and the messages that change them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .forwards import Forward, forward_from_json


@dataclass(frozen=True, slots=True)
class Remote:
    """One connection of ``server`` that is on ``host`` (public ids): what is sent to its addresses goes there.

    ``connection``, ``allowed_ips``, ``networks``, ``names`` and ``forwards`` are as a ``Peer`` has them; ``version`` is
    that of the change that made it, as its own host counts. ``number`` grows with each new connection: of two that have
    one address the greater is the newer, since an address belongs to one open connection.

    ``host`` is empty for one that waits for its host's word and may still go to another: it has not ended, and nothing
    is sent to it.
    """

    connection: str
    version: int
    number: int
    server: str
    host: str
    allowed_ips: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    forwards: tuple[Forward, ...] = ()

    @property
    def routed(self) -> tuple[str, ...]:
        """Everything that is sent to it."""
        return self.allowed_ips + self.networks if self.networks else self.allowed_ips


@dataclass(frozen=True, slots=True)
class AddRemotes:
    """Connections that were opened, on this host or on others; a host passes over its own."""

    remotes: tuple[Remote, ...]


@dataclass(frozen=True, slots=True)
class RemoveRemotes:
    """Connections that have ended, wherever they were."""

    connections: tuple[str, ...]


def remotes_to_json(message: AddRemotes | RemoveRemotes) -> dict[str, Any]:
    if isinstance(message, RemoveRemotes):
        return {"connections": list(message.connections)}
    return {"remotes": [remote_to_json(each) for each in message.remotes]}


def remote_to_json(remote: Remote) -> dict[str, Any]:
    """Without what is empty: a state may have ten thousand of them."""
    return {name: value for name, value in dataclasses.asdict(remote).items() if value not in ((), "")}


def remote_from_json(data: Mapping[str, Any]) -> Remote:
    """Raise ``KeyError``, ``TypeError`` or ``ValueError`` where ``data`` is none."""
    return Remote(
        connection=str(data["connection"]),
        version=int(data["version"]),
        number=int(data["number"]),
        server=str(data["server"]),
        host=str(data.get("host", "")),
        allowed_ips=tuple(str(ip) for ip in data.get("allowed_ips", ())),
        networks=tuple(str(network) for network in data.get("networks", ())),
        names=tuple(str(name) for name in data.get("names", ())),
        forwards=tuple(forward_from_json(forward) for forward in data.get("forwards", ())),
    )


def add_remotes_from_json(data: Mapping[str, Any]) -> AddRemotes:
    return AddRemotes(tuple(remote_from_json(each) for each in data["remotes"]))


def remove_remotes_from_json(data: Mapping[str, Any]) -> RemoveRemotes:
    return RemoveRemotes(tuple(str(each) for each in data["connections"]))
