"""The log of Celery's workers. Apart from the format, since bin/run wants that one without Celery."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.signals import after_setup_logger, after_setup_task_logger

from .json_lines import JSON, JsonLines


def write_json(wanted: Callable[[], str]) -> None:
    """Celery's workers and beat, which set up their log by themselves, write JSON where ``wanted``, asked then, says
    so."""

    def put(logger: logging.Logger, **_: Any) -> None:
        if wanted() == JSON:
            for handler in logger.handlers:
                handler.setFormatter(JsonLines())

    for signal in (after_setup_logger, after_setup_task_logger):
        signal.connect(put, weak=False)
