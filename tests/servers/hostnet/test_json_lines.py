"""The log as JSON: one line whatever happens, that a program can read."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.hostnet.state.json_lines import JsonLines
from tests.lab import HANGING


def record(message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    about = (type(error), error, None) if error else None
    return logging.LogRecord("wgpeers.lifecycle", logging.WARNING, "file.py", 1, message, arguments, about)


@given(st.text(), st.text())
def test_whatever_is_logged_is_one_line_and_comes_back(message: str, request_id: str) -> None:
    text = JsonLines(lambda: {"request": request_id}).format(record("%s", message))
    assert len(text.splitlines()) == 1 or not text.isascii()  # a separator of Unicode ends no line of a file
    assert "\n" not in text
    said = json.loads(text)
    assert said["message"] == message
    assert said.get("request", "") == request_id
    assert (said["level"], said["logger"]) == ("WARNING", "wgpeers.lifecycle")
    assert datetime.fromisoformat(said["time"]).utcoffset() is not None


def test_an_exception_is_in_its_line() -> None:
    text = JsonLines().format(record("it failed", error=ValueError("a\nb")))
    assert "\n" not in text
    assert "ValueError: a\nb" in json.loads(text)["exception"]


@pytest.mark.parametrize("given", ["xml", ""])
def test_a_host_worker_refuses_a_format_that_is_none(given: str) -> None:
    values = {"HOST_ID": "a1", "HOST_REDIS_URL": "unix:///none", "HOST_VAR": "/nowhere", "LOG_FORMAT": given}
    done = subprocess.run(
        [sys.executable, "-m", "servers.hostnet"],
        env={**os.environ, **values},
        capture_output=True,
        text=True,
        timeout=HANGING,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "LOG_FORMAT must be line or json\n"
