"""A Celery message written down directly, for the one that every connect sends: Celery takes longer to make it than the
connect's own statements take. A test holds it equal to Celery's in every field but the one that only shows arguments.

The format is Celery's task protocol 2 in kombu's JSON for Redis.
"""

from __future__ import annotations

import base64
import json
import uuid
from functools import cache

from celery import current_app
from celery.utils.nodenames import anon_nodename

_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_origin = cache(anon_nodename)

# Where Celery writes the arguments down once more, for logs alone. Nobody needs them there.
ARGUMENTS_SHOWN = "(…)"


def compose(task: str, argument: object, queue: str) -> str:
    """The text to LPUSH to ``queue``: a call of ``task`` with one argument."""
    task_id = str(uuid.uuid4())
    body = json.dumps([[argument], {}, _EMBED]).encode()
    message = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": _headers(task, task_id),
        "properties": _properties(task_id, queue),
    }
    return json.dumps(message)


def _headers(task: str, task_id: str) -> dict[str, object]:
    return {
        "lang": "py",
        "task": task,
        "id": task_id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": task_id,
        "parent_id": None,
        "argsrepr": ARGUMENTS_SHOWN,
        "kwargsrepr": "{}",
        "origin": _origin(),
        "ignore_result": None,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def _properties(task_id: str, queue: str) -> dict[str, object]:
    return {
        "correlation_id": task_id,
        "reply_to": current_app.thread_oid,
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }
