"""What tests share: a Redis of their own, a clock they set, and a small company to test with."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.conf import LazySettings
from django.test import TransactionTestCase
from pytest_django import DjangoDbBlocker

from core import clock, redis_store
from servers.hostnet.state.redis_urls import broker_options, broker_url
from tests.lab import HANGING
from vpnproject import celery_app
from wgpeers.lifecycle.keepalive import keepalive

from . import emptying
from .factories import Company, HostStandIn, found


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what uses the database: it may find another one otherwise, and nothing else can."""
    fixtures = set(getattr(item, "fixturenames", ()))
    of_django = issubclass(getattr(item, "cls", None) or object, TransactionTestCase)
    if of_django or item.get_closest_marker("django_db") or fixtures & {"db", "transactional_db"}:
        item.add_marker("database")


class Clock:
    """A clock that moves only when told to. ``steady`` is the one that nobody sets."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.steady = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        self.now += seconds
        self.steady += seconds
        return self.now

    def step(self, seconds: float) -> float:
        """Set the clock, forward or back; no time passes."""
        self.now += seconds
        return self.now


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A real Redis on a socket of its own, empty, ended with the session."""
    directory = Path(tempfile.mkdtemp(prefix="vpn-redis-"))
    socket = directory / "redis.sock"
    process = subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
        cwd=directory,
    )
    client = redis.Redis(
        unix_socket_path=str(socket), retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.02), 500)
    )
    client.ping()
    client.close()
    yield f"unix://{socket}?db=0"
    process.terminate()
    process.wait(HANGING)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The database as migrations leave it, and as each test that commits has to leave it."""
    with django_db_blocker.unblock():
        kept = emptying.kept_rows()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", lambda _: emptying.leave(kept))
        yield


@pytest.fixture(autouse=True)
def real_redis(redis_url: str, settings: LazySettings) -> None:
    """Every test starts with an empty Redis; Celery's messages go there too."""
    settings.REDIS_URL = redis_url
    keepalive.forget()
    redis_store.redis_client().flushall()
    send_celery_to(redis_url)


def send_celery_to(redis_url: str) -> None:
    """Have this process's Celery app queue its tasks there from now on; it keeps connections to where it was."""
    celery_app.conf.broker_url = broker_url(redis_url)
    # One dictionary for all who have looked at it.
    options = celery_app.conf.broker_transport_options
    options.pop("master_name", None)
    options |= broker_options(redis_url)
    celery_app._pool = celery_app.amqp._producer_pool = None


@pytest.fixture
def fixed_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The control side's clock, at the vectors' time."""
    fixed = Clock(1790000000.0)
    monkeypatch.setattr(clock, "source", fixed)
    monkeypatch.setattr(clock, "steady_source", lambda: fixed.steady)
    return fixed


@pytest.fixture
def company(transactional_db: None, fixed_clock: Clock) -> Company:
    return found()


@pytest.fixture
def host(company: Company) -> Iterator[HostStandIn]:
    """The company's host, confirming everything."""
    with HostStandIn(company.host).running() as running:
        yield running
