"""The message that is composed without Celery says in every field what Celery's own says."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

from core.celery_message import ARGUMENTS_SHOWN, compose
from core.redis_store import redis_client
from core.task_queue import enqueue

ARGUMENT = {"server": "5f1a", "peer": {"names": ["käse"], "version": 3}, "replaces": []}


def of_celery() -> dict[str, Any]:
    assert enqueue("hostnet.add_peer", ARGUMENT, queue="host.none")
    message: dict[str, Any] = json.loads(str(redis_client().rpop("host.none")))
    return message


def without_what_differs(message: dict[str, Any]) -> dict[str, Any]:
    """Ids are checked to be some and then made the same; of the body, what it says."""
    headers, properties = message["headers"], message["properties"]
    task_id = headers["id"]
    assert str(uuid.UUID(task_id)) == headers["root_id"] == properties["correlation_id"] == task_id
    assert str(uuid.UUID(properties["delivery_tag"])) != task_id
    headers = {**headers, "id": "", "root_id": ""}
    properties = {**properties, "correlation_id": "", "delivery_tag": ""}
    body = json.loads(base64.b64decode(message["body"]))
    return {**message, "headers": headers, "properties": properties, "body": body}


def test_it_is_what_celery_sends() -> None:
    composed, celery = json.loads(compose("hostnet.add_peer", ARGUMENT, "host.none")), of_celery()
    assert composed["headers"]["argsrepr"] == ARGUMENTS_SHOWN
    composed["headers"]["argsrepr"] = celery["headers"]["argsrepr"]
    assert without_what_differs(composed) == without_what_differs(celery)
    assert list(composed) == list(celery)


def test_two_messages_have_different_ids() -> None:
    first, second = (json.loads(compose("hostnet.add_peer", ARGUMENT, "host.none")) for _ in range(2))
    assert first["headers"]["id"] != second["headers"]["id"]
    assert first["properties"]["delivery_tag"] != second["properties"]["delivery_tag"]
