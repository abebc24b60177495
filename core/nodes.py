"""The control nodes: machines that run web, workers and a beat on one database and one Redis. Without Django: the
supervising side asks how many there are.

Each node's beat says in Redis that it is there. What it says runs out by itself some time after it has ended.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any, Final

import redis

from . import clock

# The random name of this installation; see runner.files. Empty where it runs without bin/run, as in tests.
ME: Final = os.environ.get("VPN_INSTANCE", "")
LABEL: Final = socket.gethostname()
_ALL = "nodes"
STAYS = 60  # seconds for which a node counts after it was last heard of
# Seconds by which clocks may differ and do no harm; nobody's deadline is shorter by more than that.
MAY_DIFFER = 60.0


@dataclass(frozen=True, slots=True)
class Node:
    """``ahead``: by how many seconds its clock is ahead of Redis's, so that two nodes can be compared whenever they
    were heard of."""

    name: str
    label: str
    ahead: float


def appear(client: redis.Redis, label: str = LABEL, me: str = ME) -> None:
    """This node is there. Raise ``RedisError``."""
    with client.pipeline() as pipe:
        pipe.sadd(_ALL, me)
        pipe.hset(f"node:{me}", mapping={"label": label, "ahead": repr(_ahead(client))})
        pipe.expire(f"node:{me}", STAYS)
        pipe.execute()


def living(client: redis.Redis) -> list[Node]:
    """Those that were heard of lately, by label. Raise ``RedisError``."""
    names = sorted(_text(each) for each in client.smembers(_ALL))
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hmget(f"node:{name}", "label", "ahead")
        found: list[list[Any]] = pipe.execute() if names else []
    nodes = [Node(name, _text(label), float(ahead)) for name, (label, ahead) in zip(names, found, strict=True) if label]
    if gone := set(names) - {node.name for node in nodes}:
        client.srem(_ALL, *gone)
    return sorted(nodes, key=lambda node: (node.label, node.name))


def agrees(client: redis.Redis, me: str = ME) -> bool:
    """Whether this node's clock is as that of more than half of the nodes, itself among them: then it may judge whose
    time is over. A node by itself always does; of two that differ neither does. Raise ``RedisError``."""
    others = [node for node in living(client) if node.name != me]
    if not others:
        return True
    mine = _ahead(client)
    as_mine = 1 + sum(abs(node.ahead - mine) <= MAY_DIFFER for node in others)
    return 2 * as_mine > len(others) + 1


def _ahead(client: redis.Redis) -> float:
    seconds, microseconds = client.time()
    return clock.now() - (seconds + microseconds / 1e6)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
