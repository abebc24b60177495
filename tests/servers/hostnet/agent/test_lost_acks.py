"""A Redis that dies while a message is worked on does not leave its worker deaf."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from servers.hostnet.agent.worker import Settings, make_app
from servers.hostnet.state.redis_urls import broker_url
from tests.lab import HANGING, ONE_TRY, RedisServer, until
from vpnproject import celery_app


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as made:
        yield made


def of_host(server: RedisServer) -> Celery:
    return make_app(Settings("abc", server.url, Path("/nonexistent"), "userspace", 9790))


def of_control(server: RedisServer) -> Celery:
    return celery_app


@pytest.mark.parametrize("app_of", [of_host, of_control])
@pytest.mark.parametrize("settle", ["ack_log_error", "reject_log_error"])
def test_a_lost_acknowledgement_keeps_no_later_message_away(
    server: RedisServer, app_of: Callable[[RedisServer], Any], settle: str
) -> None:
    app = app_of(server)
    got: list[Any] = []
    with app.connection_for_read(broker_url(server.url)) as connection:
        queue = app.amqp.queues[next(iter(app.amqp.queues))](connection.default_channel)
        consumer = app.amqp.TaskConsumer(connection, queues=[queue], on_message=got.append)
        consumer.qos(prefetch_count=1)
        consumer.consume()
        send(app, server, "first")
        connection.drain_events(timeout=HANGING)

        server.kill()
        getattr(got[0], settle)(logging.getLogger(), connection.connection_errors)
        server.start()
        send(app, server, "second")

        def hears() -> bool:
            """It looks into its queue: so it sees that the connection is gone, upon which a worker makes a new one."""
            try:
                connection.drain_events(timeout=ONE_TRY)
            except TimeoutError:
                return False
            except connection.connection_errors:
                return True
            return len(got) > 1

        assert until(hears)


def send(app: Any, server: RedisServer, name: str) -> None:
    with app.connection_for_write(broker_url(server.url)) as connection:
        app.send_task(name, connection=connection, queue=next(iter(app.amqp.queues)))
