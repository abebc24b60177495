"""``manage.py hostplan``: what a host would do, asked of the host itself, and clear words when it cannot say."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from core.redis_store import RedisUnavailable, redis_client
from servers import heartbeats
from servers.hostnet.agent import decoding
from servers.hostnet.state import ShowPlan
from servers.models import Host
from tests.connection_rows import messages as waiting
from tests.connection_rows import queued
from tests.factories import Company, HostStandIn
from wgpeers.fleet import desired


@pytest.fixture(autouse=True)
def alive(company: Company) -> None:
    redis_client().set(heartbeats.key(company.host), json.dumps({"boot": "run1"}), ex=60)
    queued()
    waiting(company.host)


def hostplan(*arguments: str) -> str:
    output = io.StringIO()
    call_command("hostplan", *arguments, stdout=output)
    return output.getvalue()


def answering(host: Host, answer: object) -> Any:
    return HostStandIn(host, answer if isinstance(answer, str) else json.dumps(answer)).running()


def by_name(host: Host) -> str:
    return host.name


def by_id(host: Host) -> str:
    return host.public_id


@pytest.mark.parametrize("named", [by_name, by_id])
def test_lines_of_the_host_are_printed(company: Company, named: Any) -> None:
    with answering(company.host, {"lines": ["wgs1: make the interface", "wgs1: add address 10.9.0.1/24"]}) as host:
        assert hostplan(named(company.host)) == "wgs1: make the interface\nwgs1: add address 10.9.0.1/24\n"
    ((task, message),) = host.messages
    # The whole desired state, for the run that is alive, in the form that a host takes.
    read = decoding.read(task, message, company.host.public_id)
    assert isinstance(read, ShowPlan)
    state = desired.state_of(company.host.pk)
    assert state is not None
    assert (read.state.boot, read.state.interfaces) == ("run1", state.interfaces)
    assert read.state.interfaces != ()
    assert queued() == []  # and nobody was asked to change anything


def test_nothing_to_do_is_said(company: Company) -> None:
    with answering(company.host, {"lines": []}):
        assert hostplan(company.host.name) == f"{company.host.name}: nothing to do. It has what is wanted of it.\n"


def test_what_the_host_last_reported_is_shown_with_its_code(company: Company) -> None:
    conditions = [
        {"code": "dns_failed", "severity": "error", "text": "wgs1: no DNS\x1b[2J"},
        {"code": "foreign_firewall", "severity": "warning", "text": "ip filter FORWARD drops"},
    ]
    Host.objects.filter(pk=company.host.pk).update(conditions=conditions)
    with answering(company.host, {"lines": ["wgs1: make the interface"]}):
        assert hostplan(company.host.name).splitlines() == [
            "wgs1: make the interface",
            "reported: error dns_failed: wgs1: no DNS?[2J",
            "reported: warning foreign_firewall: ip filter FORWARD drops",
        ]


def test_unknown_host_names_those_there_are(company: Company) -> None:
    with pytest.raises(CommandError, match=f"no host with the name or public id 'nowhere'.*{company.host.name}"):
        hostplan("nowhere")


def test_silent_host_is_said_to_be_silent_at_once(company: Company) -> None:
    redis_client().delete(heartbeats.key(company.host))
    with pytest.raises(CommandError, match=f"{company.host.name} gives no plan: it is silent"):
        hostplan(company.host.name)
    assert waiting(company.host) == []


def test_host_that_does_not_answer(company: Company) -> None:
    with pytest.raises(CommandError, match=r"it did not answer within 0\.2 seconds"):
        hostplan(company.host.name, "--timeout=0.2")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"error": "the host could not be read: netlink: refused"}, "the host could not be read: netlink: refused"),
        ({"lines": "text"}, "its answer cannot be read"),
        ("{", "its answer cannot be read"),
        ("[]", "its answer cannot be read"),
        ("[" * 100_000, "its answer cannot be read"),
    ],
)
def test_answer_that_is_no_plan(company: Company, answer: object, words: str) -> None:
    with answering(company.host, answer), pytest.raises(CommandError, match=words):
        hostplan(company.host.name)


def test_answer_cannot_write_to_the_terminal_what_it_likes(company: Company) -> None:
    with answering(company.host, {"lines": ["\x1b[2Jwgs1\r\n"]}):
        assert hostplan(company.host.name) == "?[2Jwgs1??\n"


@pytest.mark.parametrize("timeout", ["0", "-1", "inf", "nan", "601"])
def test_time_limit_must_make_sense(company: Company, timeout: str) -> None:
    with pytest.raises(CommandError, match="--timeout"):
        hostplan(company.host.name, f"--timeout={timeout}")


def test_redis_that_is_away_is_named(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: object) -> None:
        raise RedisUnavailable

    monkeypatch.setattr(heartbeats, "read", away)
    with pytest.raises(CommandError, match="Redis cannot be reached"):
        hostplan(company.host.name)
