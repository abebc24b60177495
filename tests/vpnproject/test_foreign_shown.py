"""What hosts find in other firewalls: kept, shown in the admin and by ``bin/run --check``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from core.redis_store import redis_client
from servers.hostnet.state.conditions import LONGEST_TEXT, MOST
from servers.models import Host
from tests.admin_site import errors, send, staff
from tests.factories import Company
from tests.lab import PYTHON, Namespace
from tests.protocol_client import NOW
from tests.servers.hostnet.foreign.tables import DOCKER, UFW, listing, load
from wgpeers.fleet import reports
from wgpeers.fleet.desired import state_of

FINDING = "ip filter FORWARD (Docker) drops <b>. To let them pass: iptables -I DOCKER-USER -i wgs+ -j ACCEPT && two"


def condition(text: str) -> dict[str, str]:
    return {"code": "foreign_firewall", "severity": "warning", "text": text}


def report(host: Host, **fields: Any) -> Host:
    text = {"kind": "applied", "boot": "b", "time": NOW, "version": 7, "keys": {}, "drift": []} | fields
    redis_client().rpush(f"{host.queue}:reports", json.dumps(text))
    assert reports.take_reports(NOW) == 1
    host.refresh_from_db()
    return host


def test_findings_are_kept_until_they_are_gone(company: Company) -> None:
    found = [condition("one"), condition("two")]
    assert report(company.host, conditions=found).conditions == found
    assert report(company.host, conditions=[]).conditions == []


def test_a_host_cannot_fill_the_database_with_them(company: Company) -> None:
    kept = report(company.host, conditions=[condition("x" * 10_000)] * 300).conditions
    assert [len(each["text"]) for each in kept] == [LONGEST_TEXT] * MOST
    assert report(company.host, conditions=[{**condition("y"), "more": "z" * 10_000}]).conditions == [condition("y")]


@pytest.mark.parametrize(
    "wrong",
    [
        5,
        ["text"],
        [{"code": "foreign_firewall", "text": "x"}],
        [{"code": "foreign_firewall", "severity": "fatal", "text": "x"}],
        [{"code": "<b>", "severity": "error", "text": "x"}],
        [{"code": "foreign_firewall", "severity": "error", "text": ["x"]}],
        [{"code": "foreign_firewall", "severity": "error", "text": "\ud800"}],
    ],
)
def test_conditions_of_the_wrong_form_change_nothing(company: Company, wrong: object) -> None:
    report(company.host, conditions=[condition("y")])
    assert report(company.host, version=8, conditions=wrong).applied_version == 7
    assert company.host.conditions == [condition("y")]


def test_the_hosts_page_shows_them_and_opening_is_asked_for_there(company: Company, client: Client) -> None:
    staff(client, superuser=True)
    host = company.host
    page = f"/admin/servers/host/{host.pk}/change/"
    assert "Other firewalls of this machine" not in client.get(page).content.decode()
    Host.objects.update(conditions=[condition(FINDING), condition("another")])
    shown = client.get(page).content.decode()
    assert "iptables -I DOCKER-USER -i wgs+ -j ACCEPT &amp;&amp; two</p>" in shown
    assert "drops &lt;b&gt;" in shown  # a host's words are no HTML
    assert "Type what is said above" in shown
    assert "warning: foreign_firewall and 1 more" in client.get("/admin/servers/host/").content.decode()

    before = state_of(host.pk)
    assert before is not None
    assert not before.open_foreign_firewalls
    assert errors(send(client, page, open_foreign_firewalls="on")) == {}
    after = state_of(host.pk)
    assert after is not None
    assert after.open_foreign_firewalls
    assert after.version > before.version
    assert "could not open them by itself" in client.get(page).content.decode()


@pytest.fixture
def machine() -> Iterator[Namespace]:
    where = Namespace("check")
    try:
        where.ip("link", "add", "wan", "type", "bridge")
        where.ip("addr", "add", "198.51.100.7/24", "dev", "wan")
        where.ip("link", "set", "wan", "up")
        where.ip("route", "add", "default", "via", "198.51.100.1")
        yield where
    finally:
        where.close()


def check(machine: Namespace, var: Path) -> str:
    address = ("--public-address", "vpn.example.com")
    project = Path(__file__).resolve().parents[2]
    command = (
        "env",
        f"PYTHONPATH={project}/vpnproject:{project}",
        PYTHON,
        "-B",
        "-m",
        "runner",
        "--check",
        "--var",
        var,
    )
    done = machine.run(*command, *address)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.host
def test_the_check_names_other_firewalls_and_changes_nothing(machine: Namespace, tmp_path: Path) -> None:
    assert "ok   No other firewall is in the way" in check(machine, tmp_path)
    load(machine, UFW)
    before = listing(machine)
    lines = [line.strip() for line in check(machine, tmp_path).splitlines()]
    assert sum("!    warning foreign_firewall: ip filter" in line for line in lines) == 2
    # No server runs here: the commands are for the first one, with usual settings.
    for command in ("ufw route allow in on wgs1", "ufw allow 51820/udp", "ufw allow in on wgs1"):
        assert command in lines
    assert "Nothing keeps bin/run from starting." in lines
    assert listing(machine) == before


@pytest.mark.host
def test_the_check_looks_at_the_servers_that_run(machine: Namespace, tmp_path: Path) -> None:
    machine.run("wireguard-go", "wgs7")
    machine.ip("addr", "add", "10.77.0.1/24", "dev", "wgs7")
    machine.ip("link", "set", "wgs7", "up")
    machine.run("wg", "set", "wgs7", "listen-port", "51877")
    load(machine, UFW)
    said = check(machine, tmp_path)
    assert "ufw route allow in on wgs7" in said
    assert "ufw allow 51877/udp" in said
    assert "wgs1" not in said
    load(machine, DOCKER)
    assert "iptables -I DOCKER-USER -o wgs+ -j ACCEPT" in check(machine, tmp_path)
