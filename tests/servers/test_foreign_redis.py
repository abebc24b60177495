"""Machines join an installation whose Redis is somebody else's: by an address, or by Sentinels."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.conf import LazySettings

from core import shared_stores
from servers import joining, mesh, redis_access
from servers.hostnet.command.place import Place
from servers.hostnet.state import redis_connections
from servers.models import Host, MeshNode
from tests.conftest import Clock, send_celery_to
from tests.lab import RedisServer, SentinelRedis, until
from tests.lab.sentinels import MASTER, free_ports
from tests.servers.test_joining import ask, new_key
from wgpeers import tasks

pytestmark = pytest.mark.django_db(transaction=True)

PASSWORD, OWN_PASSWORD = "of-redis", "of-the-sentinels"


@pytest.fixture
def berlin(fixed_clock: Clock) -> Host:
    control = Host.objects.create(name="control", public_address="198.51.100.1")
    mesh.control_node(control)
    mesh.note_key(control, new_key())
    return Host.objects.create(name="Berlin", public_address="198.51.100.2")


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback addresses stand for those that other machines reach."""
    monkeypatch.setattr(shared_stores, "_is_here", lambda _host: False)


def use(settings: LazySettings, url: str) -> None:
    settings.REDIS_URL = url
    send_celery_to(url)


@pytest.fixture
def elsewhere(settings: LazySettings, reached: None) -> Iterator[redis.Redis]:
    """A Redis that listens on TCP, as its ``default`` user."""
    with RedisServer(password=PASSWORD) as server:
        (port,) = free_ports(1)
        client = server.client()
        client.config_set("bind", "127.0.0.1")
        client.config_set("port", str(port))
        use(settings, f"redis://:{PASSWORD}@127.0.0.1:{port}/0")
        yield client


@pytest.fixture
def watched(settings: LazySettings, reached: None) -> Iterator[SentinelRedis]:
    with SentinelRedis(password=PASSWORD, own_password=OWN_PASSWORD) as made:
        use(settings, made.url)
        yield made


def join(berlin: Host, now: float) -> dict[str, Any]:
    status, said = ask(joining.make_token(berlin, now))
    assert status == 200, said
    return said


def refusal(berlin: Host, now: float) -> str:
    """The same for who only checks and for who joins; nothing is changed."""
    token = joining.make_token(berlin, now)
    words = set()
    for action in ("check", "join"):
        status, said = ask(token, action)
        assert (status, said["error"]) == (403, "foreign_redis")
        words.add(said["detail"])
    assert not MeshNode.objects.filter(host=berlin).exists()
    (text,) = words
    assert PASSWORD not in text
    return str(text)


def test_a_machine_gets_the_address_of_redis_with_a_login_of_its_own(
    berlin: Host, elsewhere: redis.Redis, fixed_clock: Clock, settings: LazySettings, tmp_path: Any
) -> None:
    said = join(berlin, fixed_clock.now)
    assert PASSWORD not in str(said)
    place = Place(tmp_path / "vpn-host")
    place.keep(said, bytes(range(32)), "vpn.example.com")
    url = place.environment()["HOST_REDIS_URL"]
    port = settings.REDIS_URL.rpartition(":")[2]
    assert url == f"redis://host.{berlin.public_id}:{said['redis_password']}@127.0.0.1:{port}"
    mine, name = redis_connections.client(url), f"host.{berlin.public_id}"
    assert mine.rpush(f"{name}:reports", "{}")
    with pytest.raises(redis.exceptions.NoPermissionError):
        mine.get("control")
    # Nothing of ours is opened to the mesh for it.
    desired = mesh.mesh_of(Host.objects.get(name="control"))
    assert desired is not None
    assert (desired.redis, desired.serves) == ((), (settings.GATEWAY_PORT,))
    berlin.delete()
    tasks.cut_off(berlin.public_id)
    with pytest.raises(redis.RedisError):
        mine.ping()
    assert name not in elsewhere.acl_users()


def test_where_our_user_may_make_none_it_is_said_with_what_to_do(
    berlin: Host, elsewhere: redis.Redis, fixed_clock: Clock, settings: LazySettings
) -> None:
    name, password = "vpn", secrets.token_urlsafe(8)
    call: Any = elsewhere.execute_command
    call("ACL", "SETUSER", name, "on", f">{password}", "~*", "&*", "+@all", "-acl")
    use(settings, settings.REDIS_URL.replace(f":{PASSWORD}@", f"{name}:{password}@"))
    words = refusal(berlin, fixed_clock.now)
    assert "does not let the user of REDIS_URL make users for hosts" in words
    assert "begins with ACL" in words
    assert f"host.{berlin.public_id}" not in elsewhere.acl_users()
    call("ACL", "SETUSER", name, "+acl")
    join(berlin, fixed_clock.now)
    assert f"host.{redis_access.TRIAL}" not in elsewhere.acl_users()


def test_redis_that_asks_nobody_for_a_password_is_refused(
    berlin: Host, elsewhere: redis.Redis, fixed_clock: Clock, settings: LazySettings
) -> None:
    call: Any = elsewhere.execute_command
    call("ACL", "SETUSER", "default", "nopass")
    assert "asks for no password" in refusal(berlin, fixed_clock.now)


def test_redis_of_this_machine_alone_is_refused(
    berlin: Host, elsewhere: redis.Redis, fixed_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_stores, "_is_here", lambda _host: True)
    assert "No other machine reaches it" in refusal(berlin, fixed_clock.now)


def test_redis_and_sentinels_each_know_the_machine_and_the_next_master_does_too(
    berlin: Host, watched: SentinelRedis, fixed_clock: Clock, tmp_path: Any
) -> None:
    said = join(berlin, fixed_clock.now)
    place = Place(tmp_path / "vpn-host")
    place.keep(said, bytes(range(32)), "vpn.example.com")
    url = place.environment()["HOST_REDIS_URL"]
    assert not {word for word in (PASSWORD, OWN_PASSWORD) if word in url}
    name = f"host.{berlin.public_id}"
    assert redis_connections.client(url).set(f"{name}:alive", "x")
    # Of the Sentinels it learns where the master is, and does nothing else there.
    for port in watched.sentinel_ports:
        at: Any = redis.Redis("127.0.0.1", port, username=name, password=said["redis_password"])
        for words in (("SENTINEL", "FAILOVER", MASTER), ("SENTINEL", "SET", MASTER, "quorum", "1"), ("ACL", "LIST")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                at.execute_command(*words)
    watched.kill(watched.master())

    def goes_on() -> bool:
        try:
            return bool(redis_connections.client(url).set(f"{name}:alive", "y"))
        except redis.RedisError:
            return False

    until(goes_on)


def test_one_that_was_away_learns_of_the_machine_by_the_slow_beat(
    berlin: Host, watched: SentinelRedis, fixed_clock: Clock
) -> None:
    first, second = watched.redis_ports
    watched.kill(second)
    said = join(berlin, fixed_clock.now)
    watched.start_redis(second, first)

    def known() -> bool:
        tasks.converge_all()
        return f"host.{berlin.public_id}" in watched.to_redis(second).acl_users()

    until(known)
    assert redis.Redis("127.0.0.1", second, username=f"host.{berlin.public_id}", password=said["redis_password"]).ping()


def test_sentinels_that_ask_for_no_password_are_refused(
    berlin: Host, fixed_clock: Clock, settings: LazySettings, reached: None
) -> None:
    with SentinelRedis(password=PASSWORD) as made:
        use(settings, made.url)
        words = refusal(berlin, fixed_clock.now)
    assert words.startswith("Sentinel at 127.0.0.1:")
    assert "asks for no password" in words
