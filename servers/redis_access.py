"""Who may do what in our Redis, and where it listens. The database decides; this makes Redis so.

Each host has a user of its own there that reaches its own keys alone. Redis is told a hash of the password, which is
all that anybody but the host keeps. It listens on its socket, and for other machines on its address in the mesh.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import redis
from django.conf import settings

from core.redis_store import RedisUnavailable, own_connection, redis_client

from . import mesh
from .models import MeshNode

log = logging.getLogger(__name__)

PREFIX = "host."
# What a host's worker, kombu and redis-py say. None of it looks at other keys, at other clients, at Redis' settings, or
# runs a script, which would hold up everybody for as long as it likes.
COMMANDS = (
    *("hello", "auth", "ping", "select", "client|setinfo", "client|setname", "multi", "exec", "discard", "watch"),
    *("unwatch", "brpop", "rpop", "lpush", "rpush", "llen", "ltrim", "set", "get", "expire", "del"),
    *("hset", "hget", "hdel", "zadd", "zrem", "zrevrangebyscore"),
)
# How often, and every how many seconds, it is looked whether a machine has taken its last message.
LAST_WORD_LOOKS, LAST_WORD_EVERY = 50, 0.02
LAST_WORD_TRAVELS = 0.5  # seconds for it to get there, once Redis has sent it


def user_of(public_id: str) -> str:
    return f"{PREFIX}{public_id}"


def rules(public_id: str, password_hash: str) -> list[str]:
    """The user as Redis' ACL SETUSER takes it: its queue, and keys that go on with another sign than an id does. Raise
    ``redis.RedisError``."""
    name = user_of(public_id)
    keys = [f"~{name}", f"~{name}[^0-9A-Za-z]*"]
    commands = [f"+{each}" for each, known in zip(COMMANDS, _commands(), strict=True) if known]
    return ["reset", "on", f"#{password_hash}", *keys, "resetchannels", "-@all", *commands]


def _commands() -> list[bool]:
    """Which of ``COMMANDS`` this release of Redis has: it refuses rules about others."""
    return [bool(each) for each in own_connection().call("COMMAND", "INFO", *COMMANDS)]


def let_in(public_id: str, password_hash: str) -> None:
    """Make the user anew: whoever was connected by an older password is so no longer."""
    try:
        own_connection().call("ACL", "DELUSER", user_of(public_id))
        own_connection().call("ACL", "SETUSER", user_of(public_id), *rules(public_id, password_hash))
        _keep()
    except redis.RedisError as error:
        raise RedisUnavailable from error


def cut_off(public_id: str) -> None:
    """Remove the user, with all its connections, and what is kept of the host. What waits for it is taken first, if it
    is there to take it: it is told to take everything down."""
    try:
        client = redis_client()
        for _ in range(LAST_WORD_LOOKS):
            if not client.llen(user_of(public_id)):
                break
            time.sleep(LAST_WORD_EVERY)
        time.sleep(LAST_WORD_TRAVELS)
        if not own_connection().call("ACL", "DELUSER", user_of(public_id)):
            return  # one that never joined reads what waits for it in its own time
        _keep()
        for key in client.scan_iter(match=f"{user_of(public_id)}*", count=1000):
            client.delete(key)
    except redis.RedisError as error:
        raise RedisUnavailable from error


def sync() -> None:
    """Make the users what the database says, whatever became of them. A Redis that is not ours may refuse."""
    nodes = MeshNode.objects.exclude(redis_hash="").values_list("host__public_id", "redis_hash")
    wanted = {user_of(public_id): (public_id, password_hash) for public_id, password_hash in nodes}
    if not wanted and not ours():
        return
    try:
        call = own_connection().call
        before = call("ACL", "LIST")
        there = {name for name in call("ACL", "USERS") if name.startswith(PREFIX)}
        for name in there - wanted.keys():
            call("ACL", "DELUSER", name)
        for name, (public_id, password_hash) in wanted.items():
            call("ACL", "SETUSER", name, *rules(public_id, password_hash))
        if call("ACL", "LIST") != before:
            _keep()
    except redis.ResponseError as error:
        log.warning("Redis lets us not look after its users: %s", error)
    except redis.RedisError as error:
        raise RedisUnavailable from error


def _keep() -> None:
    """Have the users outlast a restart, where Redis has a file for them; else the next ``sync`` brings them back."""
    try:
        own_connection().call("ACL", "SAVE")
    except redis.ResponseError as error:
        log.debug("users of Redis are not kept: %s", error)


def ours() -> bool:
    """Whether this is the Redis that the product runs itself, on this machine."""
    return str(settings.REDIS_URL).startswith("unix:")


def keep_listening() -> None:
    """Have our Redis listen on this machine's address in the mesh, if other machines are in it, and on no other."""
    if not ours():
        return
    wanted = _listened_addresses()
    port = settings.MESH_REDIS_PORT if wanted else 0
    try:
        now: Any = redis_client().config_get("port", "bind")
        if int(now["port"]) == port and (not wanted or now["bind"].split() == wanted):
            return
        if wanted:
            own_connection().call("CONFIG", "SET", "bind", " ".join(wanted), "port", str(port))
        else:
            own_connection().call("CONFIG", "SET", "port", "0")
        log.info("Redis listens for other machines on %s", ", ".join(wanted) or "no address")
    except redis.ResponseError as error:
        # The address comes with the mesh, which this machine's worker makes. It is tried again every second.
        log.debug("Redis does not listen in the mesh yet: %s", error)
    except redis.RedisError as error:
        raise RedisUnavailable from error


def _listened_addresses() -> list[str]:
    nodes = list(MeshNode.objects.exclude(public_key="").order_by("part"))
    control = next((node for node in nodes if node.control), None)
    return mesh.addresses(mesh.the_mesh(), control) if control is not None and len(nodes) > 1 else []
