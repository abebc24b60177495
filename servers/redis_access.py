"""Who may do what in Redis, and where ours listens. The database decides; this makes Redis so.

Each host has a user of its own there that reaches its own keys alone. Redis is told a hash of the password, which is
all that anybody but the host keeps. Ours listens on its socket, and for other machines on its address in the mesh; one
elsewhere (``REDIS_URL``) is reached by hosts as by the control side.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import redis
from django.conf import settings

from core.redis_store import RedisUnavailable, own_connection, redis_client
from core.shared_stores import of_redis, redis_is_ours

from . import mesh
from .hostnet.state.redis_urls import Login, with_login
from .models import MeshNode
from .redis_stores import Store, every_store, those_that_answer

log = logging.getLogger(__name__)

PREFIX = "host."
# What a host's worker, kombu and redis-py say. None of it looks at other keys, at other clients, at Redis' settings, or
# runs a script, which would hold up everybody for as long as it likes.
COMMANDS = (
    *("hello", "auth", "ping", "select", "client|setinfo", "client|setname", "multi", "exec", "discard", "watch"),
    *("unwatch", "brpop", "rpop", "lpush", "rpush", "llen", "ltrim", "set", "get", "expire", "del"),
    *("hset", "hget", "hdel", "zadd", "zrem", "zrevrangebyscore"),
)
# Of Sentinels they want to know where the master is.
OF_SENTINELS = ("hello", "auth", "ping", "client|setinfo", "client|setname", "sentinel|masters")
TRIAL = "trial"  # no id of a host is as short
# How often, and every how many seconds, it is looked whether a machine has taken its last message.
LAST_WORD_LOOKS, LAST_WORD_EVERY = 50, 0.02
LAST_WORD_TRAVELS = 0.5  # seconds for it to get there, once Redis has sent it


class Refuses(Exception):
    """A Redis, or a Sentinel, does not let us make users: in words, with what to do."""


def user_of(public_id: str) -> str:
    return f"{PREFIX}{public_id}"


def rules(store: Store, public_id: str, password_hash: str) -> list[str]:
    """The user as Redis' ACL SETUSER takes it: its queue, and keys that go on with another sign than an id does; at a
    Sentinel nothing but where the master is. Raise ``redis.RedisError``."""
    name = user_of(public_id)
    keys = [] if store.sentinel else [f"~{name}", f"~{name}[^0-9A-Za-z]*"]
    wanted = OF_SENTINELS if store.sentinel else COMMANDS
    # Which of them this release of Redis has: it refuses rules about others.
    known = store.call("COMMAND", "INFO", *wanted)
    commands = [f"+{each}" for each, there in zip(wanted, known, strict=True) if there]
    return ["reset", "on", f"#{password_hash}", *keys, "resetchannels", "-@all", *commands]


def let_in(public_id: str, password_hash: str) -> None:
    """Make the user anew: whoever was connected by an older password is so no longer. Raise ``Refuses``."""
    try:
        for store in those_that_answer(every_store()):
            with _refusals(store):
                store.call("ACL", "DELUSER", user_of(public_id))
                store.call("ACL", "SETUSER", user_of(public_id), *rules(store, public_id, password_hash))
            _keep(store)
    except redis.RedisError as error:
        raise RedisUnavailable from error


def obstacle() -> str:
    """What keeps hosts from having users of their own in a Redis that is not ours, in words, with what to do; empty
    where nothing does. Nothing stays changed."""
    if redis_is_ours():
        return ""
    if here := next(of_redis(settings.REDIS_URL), ""):
        return f"{here} No other machine reaches it."
    try:
        for store in those_that_answer(every_store()):
            if store.lets_anybody_in():
                return (
                    f"{store.name} asks for no password, so any machine that reaches it could do anything there: have "
                    "it ask for one (requirepass), and REDIS_URL name it."
                )
            with _refusals(store):
                store.call("ACL", "SETUSER", user_of(TRIAL), *rules(store, TRIAL, "0" * 64), "off")
                store.call("ACL", "DELUSER", user_of(TRIAL))
                store.call("ACL", "LIST")
    except Refuses as refusal:
        return str(refusal)
    except redis.RedisError as error:
        raise RedisUnavailable from error
    return ""


@contextlib.contextmanager
def _refusals(store: Store) -> Iterator[None]:
    try:
        yield
    except (redis.ResponseError, redis.AuthenticationError) as error:
        words = f"{store.name} does not let the user of REDIS_URL make users for hosts ({error})"
        raise Refuses(
            f"{words}: there, let it do all that begins with ACL, and COMMAND INFO (Redis 6.2 or newer)."
        ) from None


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
        if not _remove_user(public_id):
            return  # one that never joined reads what waits for it in its own time
        for key in client.scan_iter(match=f"{user_of(public_id)}*", count=1000):
            client.delete(key)
    except redis.RedisError as error:
        raise RedisUnavailable from error


def _remove_user(public_id: str) -> bool:
    """Everywhere; whether it was somewhere."""
    was = False
    for store in those_that_answer(every_store()):
        try:
            was = bool(store.call("ACL", "DELUSER", user_of(public_id))) or was
        except (redis.ResponseError, redis.AuthenticationError) as error:
            log.warning("%s lets us not remove a host's user: %s", store.name, error)
            continue
        _keep(store)
    return was


def sync() -> None:
    """Make the users what the database says, whatever became of them. A Redis that is not ours may refuse."""
    nodes = MeshNode.objects.exclude(redis_hash="").values_list("host__public_id", "redis_hash")
    wanted = {user_of(public_id): (public_id, password_hash) for public_id, password_hash in nodes}
    if not wanted and not redis_is_ours():
        return
    try:
        for store in those_that_answer(every_store()):
            try:
                _sync(store, wanted)
            except (redis.ResponseError, redis.AuthenticationError) as error:
                log.warning("%s lets us not look after its users: %s", store.name, error)
    except redis.RedisError as error:
        raise RedisUnavailable from error


def _sync(store: Store, wanted: dict[str, tuple[str, str]]) -> None:
    before = store.call("ACL", "LIST")
    there = {name for name in store.call("ACL", "USERS") if name.startswith(PREFIX)}
    for name in there - wanted.keys():
        store.call("ACL", "DELUSER", name)
    for name, (public_id, password_hash) in wanted.items():
        store.call("ACL", "SETUSER", name, *rules(store, public_id, password_hash))
    if store.call("ACL", "LIST") != before:
        _keep(store)


def _keep(store: Store) -> None:
    """Have the users outlast a restart, where Redis has a file for them; else the next ``sync`` brings them back."""
    try:
        store.call("ACL", "SAVE")
    except redis.ResponseError as error:
        log.debug("users of Redis are not kept: %s", error)


def address_for_hosts() -> str:
    """The URL of Redis, as machines that join are to know it, without a login."""
    return with_login("redis://mesh/0" if redis_is_ours() else settings.REDIS_URL, Login())


def keep_listening() -> None:
    """Have our Redis listen on this machine's address in the mesh, if other machines are in it, and on no other."""
    if not redis_is_ours():
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
    nodes = list(MeshNode.objects.exclude(public_key="").order_by("host_part"))
    control = next((node for node in nodes if node.control), None)
    return mesh.addresses(mesh.the_mesh(), control) if control is not None and len(nodes) > 1 else []
