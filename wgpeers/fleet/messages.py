"""Messages to hosts, and waiting for their word. The host side of each is in servers.hostnet.agent.worker."""

from __future__ import annotations

import json
import secrets
from typing import Any

import redis
from django.conf import settings

from core.redis_store import RedisUnavailable, redis_client
from core.task_queue import enqueue, enqueue_composed
from servers.hostnet.state import AddPeer, HostState, RemovePeers, ShowPlan, to_json
from servers.models import Host

# No message to a host expires: the host would judge that by its own clock, and hear nothing any more if that runs
# ahead. What is out of date does no harm there, since an old message never wins.


def confirm_key(host: Host, connection: str) -> str:
    return f"{host.queue}:confirm:{connection}"


def send_full_state(host: Host, state: HostState) -> bool:
    return enqueue("hostnet.full_state", to_json(state), queue=host.queue)


def send_removal(host: Host, removal: RemovePeers) -> bool:
    return enqueue("hostnet.remove_peers", to_json(removal), queue=host.queue)


def add_and_wait(host: Host, message: AddPeer) -> bool:
    """Send ``message`` and wait for its confirmation, at most CONFIRM_TIMEOUT."""
    if not enqueue_composed("hostnet.add_peer", to_json(message), host.queue):
        return False
    try:
        answer = redis_client().blpop([message.confirm], timeout=settings.CONFIRM_TIMEOUT)
    except redis.RedisError as error:
        raise RedisUnavailable from error
    return answer is not None and answer[1] == "ok"


class NoPlan(Exception):
    """The host did not say what it would do; the text says why."""


def ask_plan(host: Host, state: HostState, within: float) -> list[str]:
    """What ``host`` would do with ``state``, line by line; it does none of it. Wait at most ``within`` seconds.

    Raise ``NoPlan``, or ``RedisUnavailable``.
    """
    message = ShowPlan(state, f"{host.queue}:plan:{secrets.token_hex(16)}")
    if not enqueue("hostnet.show_plan", to_json(message), queue=host.queue):
        raise RedisUnavailable
    try:
        answer: Any = redis_client().blpop([message.confirm], timeout=within)
    except redis.RedisError as error:
        raise RedisUnavailable from error
    if answer is None:
        raise NoPlan(f"it did not answer within {within:g} seconds")
    try:
        said = json.loads(answer[1])
        lines, error_text = said.get("lines"), said.get("error")
    except (ValueError, RecursionError, AttributeError):
        raise NoPlan("its answer cannot be read") from None
    if not isinstance(lines, list):
        raise NoPlan(printable(error_text or "its answer cannot be read"))
    return [printable(line) for line in lines]


def printable(text: object) -> str:
    """A host is not trusted to write well, and this goes to a terminal."""
    return "".join(character if character.isprintable() else "?" for character in str(text))
