"""The log as one JSON object a line, for whoever collects it. Whatever a message quotes, it stays one line."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

LINE, JSON = "line", "json"


class JsonLines(logging.Formatter):
    """``time`` (UTC, RFC 3339), ``level``, ``logger``, ``message``, ``exception`` where there is one, and what
    ``context`` says of the thread that logs."""

    def __init__(self, context: Callable[[], Mapping[str, str]] = dict) -> None:
        super().__init__()
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in self._context().items() if value},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
