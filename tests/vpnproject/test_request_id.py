"""A request's lines in the log, and what was decided of it, carry the same name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from core import request_id
from tests.attack import connect
from tests.factories import Company, HostStandIn
from tests.lab import HANGING
from vpnproject.behind_front import BehindFront
from wgpeers.models import Decision


def test_each_request_has_a_name_of_its_own() -> None:
    seen: list[str] = []

    def application(environ: dict[str, Any], start: object) -> list[bytes]:
        seen.append(environ["REQUEST_ID"])
        assert request_id.current() == environ["REQUEST_ID"]
        return []

    for _ in range(2):
        BehindFront(application, "https")({"HTTP_X_REQUEST_ID": "forged"}, lambda *_: lambda _: None)
    assert len(set(seen)) == 2
    assert {len(name) for name in seen} == {request_id.LENGTH}


@pytest.mark.django_db
def test_a_decision_carries_the_name_of_its_request(company: Company, host: HostStandIn) -> None:
    _, identity = company.hire("alice")
    name = request_id.begin()
    connect(identity)
    assert set(Decision.objects.values_list("request", flat=True)) == {name}


# How a process of web sets up its log, and how one of Celery's does.
PROCESSES = {
    "web": "django.setup()",
    "worker": "django.setup(); from vpnproject.celery import app; app.log.setup('WARNING')",
}


@pytest.mark.parametrize("process", PROCESSES)
def test_the_log_is_json_where_that_is_wanted_with_the_request_in_each_line(process: str) -> None:
    code = f"""
import django, logging
{PROCESSES[process]}
from core import request_id
print(request_id.begin())
logging.getLogger("wgpeers").warning("one\\ntwo")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LOG_FORMAT": "json", "DJANGO_SETTINGS_MODULE": "vpnproject.settings_test"},
        capture_output=True,
        text=True,
        timeout=HANGING,
        check=True,
    )
    assert done.stderr
    for line in done.stderr.splitlines():
        said = json.loads(line)
        assert said["message"] == "one\ntwo"
        if process == "web":
            assert said["request"] == done.stdout.strip()
