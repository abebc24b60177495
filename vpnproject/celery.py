"""The control side's Celery app. Hosts have one of their own (servers.hostnet.agent.worker)."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import task_postrun, worker_ready
from django.conf import settings
from kombu.entity import Queue

from core import signs, task_names
from core.redis_store import redis_client
from servers.hostnet.state import lost_acks, worker_logs

from . import threads
from .beat import every

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vpnproject.settings")

lost_acks.survive()
# Asked only then: this file is loaded before each kind of web has named its settings.
worker_logs.write_json(lambda: str(settings.LOG_FORMAT))
app = Celery("vpnproject")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    task_default_queue="control",
    task_queues=[Queue("control"), Queue("keys")],
    task_routes={"users.make_*": {"queue": "keys"}},
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    task_publish_retry=True,
    task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_max": 0.2},
    beat_schedule={
        "sweep": {"task": task_names.SWEEP, "schedule": every(10), "options": {"expires": 10}},
        "ask again": {"task": task_names.ASK_AGAIN, "schedule": every(15), "options": {"expires": 15}},
        "take reports": {"task": task_names.TAKE_REPORTS, "schedule": every(1), "options": {"expires": 2}},
        # What was changed on a host by hand is to be right again within 60 s, the time that it takes included.
        "converge all": {"task": task_names.CONVERGE_ALL, "schedule": every(45), "options": {"expires": 45}},
        "missing keys": {"task": task_names.MAKE_MISSING, "schedule": every(60), "options": {"expires": 60}},
        "resume jobs": {"task": task_names.RESUME_JOBS, "schedule": every(10), "options": {"expires": 10}},
        "prune": {"task": task_names.PRUNE, "schedule": every(3600), "options": {"expires": 3600}},
    },
)
app.autodiscover_tasks()


def _note_sign(task: Any = None, **_: object) -> None:
    """A worker that ends a task, well or badly, lives."""
    worker = str(getattr(getattr(task, "request", None), "hostname", None) or "").partition("@")[0]
    if worker in ("control", "keys"):
        signs.note(redis_client(), worker)


def _share_threads(**_: object) -> None:
    threads.share()


task_postrun.connect(_note_sign)
worker_ready.connect(_share_threads)
