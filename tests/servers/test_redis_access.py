"""What a host may do in Redis: all that its worker needs on its own keys, and nothing else, whatever it tries."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.conf import LazySettings

from core.redis_store import OwnConnection, own_connection, redis_client
from servers import heartbeats, mesh, redis_access
from servers.hostnet.agent.channel import Beat, Channel
from servers.hostnet.state.reach import Reach, reach_to_json
from servers.models import Host, MeshNode
from tests.conftest import send_celery_to
from tests.lab import HANGING, RedisServer
from tests.servers.test_joining import new_key
from wgpeers import tasks

pytestmark = pytest.mark.django_db(transaction=True)

PASSWORD = "a-password-of-alpha-alone"
# What is nobody's of the hosts', or of another one: Celery's and kombu's own, ours, and names that begin alike.
FOREIGN = (
    *(
        "host.beta",
        "host.beta:reports",
        "host.beta:alive",
        "host.beta:reach",
        "host.beta:unacked",
        "host.beta\x06\x163",
        "host.",
    ),
    *("host.alphabet", "host.alphabet:reports", "host.alpha1", "host", "host.*", "*"),
    *("control", "keys", "celery", "unacked", "unacked_index", "unacked_mutex", "control\x06\x163"),
    *("_kombu.binding.control", "_kombu.binding.host.alpha", "_kombu.binding.celery.pidbox", "0.celery.pidbox"),
    *("deadlines", "nonce:abc", "attempts:user:abc", "counts:connects:abc", "views:join:x", "signs", "session"),
)
OWN = ("host.alpha", "host.alpha:reports", "host.alpha:unacked", "host.alpha:unacked_index", "host.alpha\x06\x163")


@pytest.fixture
def server(settings: LazySettings) -> Iterator[RedisServer]:
    """A Redis that keeps its users in a file, as the product's does."""
    with RedisServer(password="of-the-control-side") as server, contextlib.closing(socket.socket()) as free:
        free.bind(("127.77.0.1", 0))
        settings.MESH_REDIS_PORT = free.getsockname()[1]
        free.close()
        settings.REDIS_URL = server.url
        send_celery_to(server.url)
        yield server


@pytest.fixture
def alpha(server: RedisServer, db: None) -> Host:
    """A host that has joined, beside the control side's own machine. The mesh is on the loopback here."""
    row = mesh.the_mesh()
    row.network = "127.77.0.0/24"
    row.save()
    control = Host.objects.create(name="control", public_address="198.51.100.1")
    mesh.control_node(control)
    mesh.note_key(control, new_key())
    host = Host.objects.create(name="alpha", public_address="198.51.100.2", public_id="alpha")
    digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
    MeshNode.objects.create(host=host, host_part=2, public_key=new_key(), redis_hash=digest)
    redis_access.sync()
    return host


def as_alpha(server: RedisServer) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(server.socket), username="host.alpha", password=PASSWORD)


def shapes(info: dict[str, Any], key: str) -> Iterator[list[str]]:
    """Arguments for a command, with ``key`` wherever it takes one: where it says so, and everywhere else that it could
    be."""
    least = max(abs(int(info["arity"])) - 1 - info["name"].count("|"), 0)
    first = int(info["first_key_pos"])
    for count in range(least, least + 3):
        yield [key] * count
        if first:
            yield [key if number == first - info["name"].count("|") else "1" for number in range(1, count + 1)]
        yield ["1"] * (count - 1) + [key] if count else []
        yield ["1", "1", *([key] * (count - 2))] if count > 2 else ["1"] * count


def allowed(user: str, name: str, arguments: list[str]) -> bool:
    """Whether Redis would let that user do it. It is not done."""
    try:
        return bool(own_connection().call("ACL", "DRYRUN", user, *name.split("|"), *arguments) == "OK")
    except redis.ResponseError:
        return False


def test_no_command_there_is_reaches_any_key_that_is_not_its_own(alpha: Host) -> None:
    client = redis_client()
    commands: dict[str, Any] = client.command()
    every = dict(commands)
    for info in commands.values():
        for each in info.get("subcommands") or []:
            name = each[0] if isinstance(each, list) else each["name"]
            name = name.decode() if isinstance(name, bytes) else name
            every[name] = {"name": name, "arity": each[1], "first_key_pos": each[3]}
    assert len(every) > 200
    tried, without_key = 0, set()
    for name, info in every.items():
        shape = {"name": name, "arity": info["arity"], "first_key_pos": info["first_key_pos"]}
        for key in FOREIGN:
            for arguments in shapes(shape, key):
                if not allowed("default", name, arguments):
                    continue  # no command at all
                tried += 1
                if allowed("host.alpha", name, arguments):
                    without_key.add(name)
                    # What it may do has no key in it, whatever its arguments are.
                    assert not info["first_key_pos"], (name, arguments)
    assert tried > 5000
    connection = {"auth", "hello", "ping", "select", "multi", "exec", "discard", "unwatch"}
    assert without_key <= connection | {"client|setname", "client|setinfo", "quit", "reset"}


def test_what_is_refused_is_really_refused(alpha: Host, server: RedisServer) -> None:
    control = redis_client()
    for key in FOREIGN:
        control.delete(key)
        control.rpush(key, "secret")
    mine = OwnConnection(f"unix://host.alpha:{PASSWORD}@{server.socket}?db=0", HANGING)
    tries: list[tuple[str, ...]] = [
        *((word, key) for word in ("GET", "DUMP", "TYPE", "EXISTS", "TTL") for key in FOREIGN),
        *(("LRANGE", key, "0", "-1") for key in FOREIGN),
        *((word, key, "x") for word in ("SET", "LPUSH", "RPUSH", "APPEND", "RENAME", "COPY") for key in FOREIGN),
        *((word, key) for word in ("RPOP", "LPOP", "DEL", "UNLINK", "LLEN", "INCR") for key in FOREIGN),
        *(("BRPOP", "host.alpha", key, "1") for key in FOREIGN),  # the own one first
        *(("EVAL", "return redis.call('GET', KEYS[1])", "1", key) for key in (*OWN, *FOREIGN)),
        ("KEYS", "*"), ("SCAN", "0"), ("RANDOMKEY",), ("FLUSHALL",), ("FLUSHDB",), ("DBSIZE",), ("SWAPDB", "0", "1"),
        ("CONFIG", "GET", "*"), ("CONFIG", "SET", "port", "6379"), ("ACL", "LIST"), ("ACL", "WHOAMI"),
        ("ACL", "SETUSER", "host.alpha", "allkeys", "allcommands"), ("CLIENT", "LIST"), ("CLIENT", "KILL", "ID", "1"),
        ("MONITOR",), ("SUBSCRIBE", "x"), ("PSUBSCRIBE", "*"), ("PUBLISH", "/0.celery.pidbox", "x"), ("SHUTDOWN",),
        ("REPLICAOF", "198.51.100.9", "6379"), ("MODULE", "LIST"), ("SAVE",), ("INFO",),
        ("SCRIPT", "LOAD", "return 1"), ("FUNCTION", "LIST"), ("SLOWLOG", "GET"), ("MIGRATE", "h", "1", "k", "0", "1"),
    ]  # fmt: skip
    for words in tries:
        with pytest.raises(redis.exceptions.NoPermissionError):
            mine.call(*words)
    assert [control.llen(key) for key in FOREIGN] == [1] * len(FOREIGN)
    # In a transaction it is no different.
    pipe = as_alpha(server).pipeline()
    pipe.rpush("host.alpha:reports", "{}")
    pipe.rpush("control", "x")
    with pytest.raises(redis.RedisError):
        pipe.execute()
    assert control.llen("control") == 1


def test_nobody_is_let_in_without_the_password(alpha: Host, server: RedisServer) -> None:
    for login in ({}, {"username": "host.alpha", "password": "wrong"}, {"username": "host.beta", "password": PASSWORD}):
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(unix_socket_path=str(server.socket), **login).ping()  # type: ignore[arg-type]


def test_what_a_worker_does_it_may(alpha: Host, server: RedisServer) -> None:
    """That of kombu is done by the workers in ``tests/host/test_net_joining.py``."""
    channel = Channel("alpha", f"unix://host.alpha:{PASSWORD}@{server.socket}?db=0", "boot")
    assert channel.beat(reach=reach_to_json({"beta": Reach(True)}), version=1) is Beat.FINE
    assert heartbeats.ways([alpha]) == {alpha.pk: {"beta": Reach(True)}}
    channel.report("hello")
    channel.confirm([("host.alpha:confirm:abc", "ok")])
    assert redis_client().llen("host.alpha:reports") == 1
    assert redis_client().lpop("host.alpha:confirm:abc") == "ok"


def test_users_outlast_a_restart_of_redis_and_the_database_has_the_last_word(alpha: Host, server: RedisServer) -> None:
    server.kill()
    server.start()
    as_alpha(server).set("host.alpha:alive", "x")
    # One of nobody's, one that was changed, and one that was lost: all of them are put right by the slow beat.
    call = own_connection().call
    call("ACL", "SETUSER", "host.stranger", "on", ">x", "~*", "+@all")
    call("ACL", "SETUSER", "host.alpha", "allkeys", "+@all")
    tasks.converge_all()
    assert "host.stranger" not in call("ACL", "USERS")
    with pytest.raises(redis.exceptions.NoPermissionError):
        as_alpha(server).get("control")
    call("ACL", "DELUSER", "host.alpha")
    tasks.converge_all()
    assert as_alpha(server).get("host.alpha:alive") == b"x"


def test_machine_that_is_removed_is_cut_off_at_once(alpha: Host, server: RedisServer) -> None:
    mine = as_alpha(server)
    mine.rpush("host.alpha:reports", "{}")
    MeshNode.objects.get(host=alpha).delete()
    tasks.cut_off("alpha")
    with pytest.raises(redis.RedisError):
        mine.ping()
    assert redis_client().keys("host.alpha*") == []


def test_redis_listens_in_the_mesh_once_somebody_has_joined_and_after_a_restart_again(
    alpha: Host, server: RedisServer, settings: LazySettings
) -> None:
    def listens() -> bool:
        with contextlib.suppress(redis.ConnectionError):
            reached = redis.Redis("127.77.0.1", settings.MESH_REDIS_PORT, username="host.alpha", password=PASSWORD)
            return bool(reached.ping())
        return False

    assert not listens()
    redis_access.keep_listening()
    assert listens()
    with pytest.raises(redis.ConnectionError):  # and on no other address
        redis.Redis("127.0.0.1", settings.MESH_REDIS_PORT).ping()
    server.kill()
    server.start()
    assert not listens()
    redis_access.keep_listening()
    assert listens()
    MeshNode.objects.filter(host=alpha).delete()
    redis_access.keep_listening()
    assert not listens()


def test_address_that_is_not_there_yet_is_no_error(alpha: Host, server: RedisServer) -> None:
    row = mesh.the_mesh()
    row.network = "fd00:77::/64"
    row.save()
    redis_access.keep_listening()
    assert redis_client().config_get("port")["port"] == "0"
