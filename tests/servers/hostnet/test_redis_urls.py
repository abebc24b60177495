"""Where Redis is, read from one line, and refused in words that show no password."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.url import parse_url

from servers.hostnet.agent.worker import Settings
from servers.hostnet.state import redis_connections
from servers.hostnet.state.redis_urls import Login, broker_options, broker_url, sentinels
from tests.lab import SentinelRedis


def test_several_sentinels_are_read_with_ports_and_without() -> None:
    found = sentinels("sentinel://db-1.example.com:5000,[fd00::2],192.0.2.3/vpn.main/2")
    assert found.addresses == (("db-1.example.com", 5000), ("fd00::2", 26379), ("192.0.2.3", 26379))
    assert (found.master, found.database, found.login) == ("vpn.main", 2, Login())


def test_redis_and_the_sentinels_have_each_a_login_of_their_own() -> None:
    found = sentinels("sentinel://vpn:p%40ss%2C@a,b/vpn?sentinel_user=look&sentinel_password=s%26c")
    assert (found.login, found.own_login) == (Login("vpn", "p@ss,"), Login("look", "s&c"))
    assert found.own_options()["password"] == "s&c"
    assert "p@ss" not in repr(found)
    assert "s&c" not in repr(found)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(texts, texts)
def test_any_login_reaches_celery_as_it_was_meant(user: str, password: str) -> None:
    url = f"sentinel://{Login(user, password).in_url()}a:1,[fd00::1]:2/vpn/3"
    assert sentinels(url).login == Login(user, password)
    alternatives = [parse_url(each) for each in broker_url(url).split(";")]
    assert [each["hostname"] for each in alternatives] == ["a", "fd00::1"]
    assert {(each["userid"] or "", each["password"] or "", each["virtual_host"]) for each in alternatives} == {
        (user, password, "3")
    }
    assert broker_options(url)["master_name"] == "vpn"


def test_other_kinds_of_redis_need_nothing_more() -> None:
    assert broker_options("redis://:pw@h:6379/1") == broker_options("unix:///run/redis.sock") == {}


WRONG = {
    "no master": "sentinel://:secret@a:1,b:2",
    "an empty master": "sentinel://:secret@a:1,b:2/",
    "a database that is no number": "sentinel://:secret@a:1/vpn/x",
    "no host": "sentinel://:secret@/vpn",
    "a host left out": "sentinel://:secret@a,,b/vpn",
    "a port that is none": "sentinel://:secret@a:port/vpn",
    "a port too high": "sentinel://:secret@a:65536/vpn",
    "an open bracket": "sentinel://:secret@[fd00::1:1/vpn",
    "an address of IPv6 without brackets": "sentinel://:secret@fd00::1/vpn",
    "a query that means nothing": "sentinel://:secret@a/vpn?secret=1",
}


@pytest.mark.parametrize("url", WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_refused_in_words_without_the_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"as in|are known") as refused:
        sentinels(url)
    assert "secret" not in str(refused.value)
    environment = {"HOST_ID": "h1", "HOST_VAR": "/nonexistent", "HOST_REDIS_URL": url}
    with pytest.raises(SystemExit, match=r"HOST_REDIS_URL: .*(as in|are known)") as ended:
        Settings.from_env(environment)
    assert "secret" not in str(ended.value)


@pytest.fixture(scope="module")
def server() -> Iterator[SentinelRedis]:
    with SentinelRedis(password="of-redis", own_password="of-sentinels", redises=1, sentinels=1) as made:
        yield made


def test_both_logins_are_used(server: SentinelRedis) -> None:
    with redis_connections.client(server.url) as client:
        assert client.ping()


@pytest.mark.parametrize("password", ["of-redis", "of-sentinels"])
def test_a_wrong_login_fails_in_few_words_without_it(server: SentinelRedis, password: str) -> None:
    client = redis_connections.client(server.url.replace(password, "wrong"))
    with client, pytest.raises(redis.ConnectionError) as refused:
        client.ping()
    assert "wrong" not in str(refused.value)
    assert len(str(refused.value)) < 200


def test_a_sentinel_that_is_not_there_costs_no_more_than_asking_the_next(server: SentinelRedis) -> None:
    (port,) = server.sentinel_ports
    url = server.url.replace(f"127.0.0.1:{port}", f"127.0.0.1:1,127.0.0.1:{port}")
    with redis_connections.client(url) as client:
        assert client.ping()
