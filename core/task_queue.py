"""Handing work to Celery from the web: by name, so that no layer imports one above it. What belongs to a transaction
is queued after it, by ``core.changes``, so that the worker finds the rows."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, cast

import redis
from celery import current_app, shared_task
from kombu.exceptions import OperationalError

from .celery_message import compose
from .redis_store import own_connection, redis_client

log = logging.getLogger(__name__)
P = ParamSpec("P")

# Messages of a queue in which one is looked for, from the newest on.
LOOKED_AT = 100


def task(name: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """A Celery task that returns nothing; called directly it is the plain function."""
    return cast(Callable[[Callable[P, None]], Callable[P, None]], shared_task(name=name))


def enqueue(task: str, *args: Any, queue: str | None = None, expires: float | None = None) -> bool:
    """Queue ``task``; False, and a line in the log, if the broker is away.

    That is not the caller's failure: whatever is queued here is done again by a slow sweep.
    """
    options: dict[str, Any] = {} if queue is None else {"queue": queue}
    try:
        current_app.send_task(task, args=args, expires=expires, **options)
    except (OperationalError, redis.RedisError, OSError) as error:
        return _not_queued(task, error)
    return True


def enqueue_composed(task: str, argument: object, queue: str) -> bool:
    """``enqueue`` for the way of every connect: the same message without Celery's cost. It may arrive twice."""
    try:
        own_connection().call("LPUSH", queue, compose(task, argument, queue))
    except (redis.RedisError, OSError) as error:
        return _not_queued(task, error)
    return True


def enqueue_for_each(task: str, argument: object, queues: Sequence[str]) -> bool:
    """``enqueue_composed`` to many queues in one message to Redis."""
    try:
        with redis_client().pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.lpush(queue, compose(task, argument, queue))
            pipe.execute()
    except (redis.RedisError, OSError) as error:
        return _not_queued(task, error)
    return True


def waits(task: str, queue: str = "control") -> bool:
    """Whether ``task`` is queued, behind whoever asks. Raise ``RedisError``."""
    texts: Any = redis_client().lrange(queue, 0, LOOKED_AT - 1)
    return any(json.loads(text)["headers"]["task"] == task for text in texts)


def _not_queued(task: str, error: Exception) -> bool:
    log.warning("could not queue %s (%s); the next sweep makes up for it", task, type(error).__name__)
    return False
