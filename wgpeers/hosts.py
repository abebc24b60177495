"""Messages to hosts, and waiting for their word. The host side of each is in servers.hostnet.worker."""

from __future__ import annotations

import redis
from django.conf import settings

from servers.hostnet.state import AddPeer, HostState, RemovePeers, to_json
from servers.models import Host
from users.queueing import enqueue
from users.store import StoreDown, store

# Seconds. A message that a host has not read by then is out of date: its next full state says the same and more. The
# host judges by its own clock, so this is also how far that may run ahead before it hears nothing any more.
EXPIRES = 600


def confirm_key(host: Host, connection: str) -> str:
    return f"{host.queue}:confirm:{connection}"


def send_full_state(host: Host, state: HostState) -> bool:
    return enqueue("hostnet.full_state", to_json(state), queue=host.queue, expires=EXPIRES)


def send_removal(host: Host, removal: RemovePeers) -> bool:
    return enqueue("hostnet.remove_peers", to_json(removal), queue=host.queue, expires=EXPIRES)


def add_and_wait(host: Host, message: AddPeer) -> bool:
    """Send ``message`` and wait for its confirmation, at most CONFIRM_TIMEOUT."""
    if not enqueue("hostnet.add_peer", to_json(message), queue=host.queue, expires=EXPIRES):
        return False
    try:
        answer = store().blpop([message.confirm], timeout=settings.CONFIRM_TIMEOUT)
    except redis.RedisError as error:
        raise StoreDown from error
    return answer is not None and answer[1] == "ok"
