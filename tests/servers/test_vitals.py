"""What heartbeats say of hosts beside that they live: read with care, shown, and never written to the database."""

from __future__ import annotations

import json
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from core.redis_store import redis_client
from servers import heartbeats
from servers.heartbeats import Vitals
from servers.hostnet.agent import heartbeat, machine
from servers.hostnet.state import beats
from servers.hostnet.state.version import FORMAT, VERSION
from servers.models import Host
from tests.admin_site import staff
from tests.conftest import Clock
from tests.factories import Company
from tests.lab import PROJECT

DEV = """Inter-|   Receive                        |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:     100 1 0 0 0 0 0 0      200 2 0 0 0 0 0 0
  wgs1: 3000000 30 0 0 0 0 0 0 41000000 40 0 0 0 0 0 0
"""


def beat(host: Host, **fields: Any) -> None:
    text = json.dumps({"boot": "b", "version": 1, "speaks": FORMAT, **fields})
    redis_client().mset({heartbeats.key(host): text, heartbeats.fresh_key(host): "1"})


def test_the_kernel_s_counts_are_those_of_our_interfaces(tmp_path: Path) -> None:
    (tmp_path / "dev").write_text(DEV)
    assert machine.traffic({"one": "wgs1", "two": "wgs2"}, tmp_path) == {"one": (3_000_000, 41_000_000)}
    assert machine.traffic({"one": "wgs1"}, tmp_path / "nowhere") == {}
    assert machine.traffic({"own": "lo"})["own"][0] >= 0
    assert machine.load() >= 0


def test_two_heartbeats_fit_into_the_time_after_which_no_clients_come() -> None:
    assert heartbeat.INTERVAL == 2
    assert (beats.FRESH_FOR, beats.ALIVE_FOR) == (4, 10)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ({"load": 0.5, "peers": 3, "worker": "1.2"}, Vitals(0.5, 3, "1.2")),
        ({"traffic": {"s": [1, 2]}}, Vitals(traffic={"s": (1, 2)})),
        ({"load": "high", "peers": "many", "worker": 7}, Vitals(worker="7")),
        ({"load": True, "peers": -1, "worker": "\x00\n1" * 50}, Vitals(worker="1" * 32)),
        ({"load": float("nan"), "peers": 1e300}, Vitals()),
        ({"traffic": {"a": [1], "b": [1, "2"], "c": [-1, 2], "d": 7, "e": [2**70, 1]}}, Vitals()),
        ({"traffic": [1, 2]}, Vitals()),
        ([], Vitals()),
        (None, Vitals()),
    ],
)
def test_whatever_a_host_writes_is_read_as_far_as_it_makes_sense(said: object, read: Vitals) -> None:
    assert heartbeats.vitals(json.loads(json.dumps(said))) == read


def test_the_release_is_that_of_the_packages() -> None:
    for path in (PROJECT / "pyproject.toml", PROJECT / "servers/hostnet/pyproject.toml"):
        assert tomllib.loads(path.read_text())["project"]["version"] == VERSION


@pytest.mark.parametrize("speaks", [FORMAT - 1, "new", None, True])
def test_a_worker_of_an_older_release_is_shown_as_such(company: Company, fixed_clock: Clock, speaks: object) -> None:
    host = company.host
    beat(host, speaks=speaks)
    assert [each["code"] for each in heartbeats.conditions(host, heartbeats.read([host])[host.pk], 0)] == [
        "worker_outdated"
    ]
    beat(host, speaks=FORMAT + 1)
    assert heartbeats.conditions(host, heartbeats.read([host])[host.pk], 0) == []


def test_an_admin_sees_load_clients_and_traffic(company: Company, client: Client) -> None:
    staff(client, superuser=True)
    traffic = {company.server.public_id: [3_000_000, 41_000_000], "another": [5, 5]}
    beat(company.host, load=0.37, peers=3, worker="0.1.0", traffic=traffic)
    shown = client.get("/admin/servers/host/").content.decode()
    for words in ("37%", "2.9\xa0MB / 39.1\xa0MB"):
        assert words in shown, words
    shown = client.get(f"/admin/servers/host/{company.host.pk}/change/").content.decode()
    for words in ("37%", "3 peers", "0.1.0", "Office: 2.9\xa0MB from clients, 39.1\xa0MB to them", "0 connected now"):
        assert words in shown, words


def test_heartbeats_are_read_without_the_database(company: Company) -> None:
    with CaptureQueriesContext(connection) as queries:
        beat(company.host)
        heartbeats.read([company.host])
        heartbeats.fresh([company.host])
    assert len(queries) == 0


@pytest.mark.parametrize("ahead", [0.0, 0.7, -3.0, 90.0])
def test_a_clock_s_difference_is_what_it_says_less_how_old_that_is(
    company: Company, fixed_clock: Clock, ahead: float
) -> None:
    now = fixed_clock.now
    beat(company.host, time=now + ahead - 4)
    said = heartbeats.read([company.host])[company.host.pk]
    began = time.monotonic()
    redis_client().pexpire(heartbeats.key(company.host), (beats.ALIVE_FOR - 4) * 1000)  # it is four seconds old
    found = heartbeats.clock_difference(company.host, said, now)
    took = time.monotonic() - began
    # While the test looks it grows older; for Redis in real time.
    assert found is not None
    assert ahead - 0.01 <= found <= ahead + took + 0.01
    nonsense: object
    for nonsense in ({}, {"time": "noon"}, {"time": True}, {"time": float("inf")}, [], None):
        assert heartbeats.clock_difference(company.host, nonsense, now) is None
    redis_client().delete(heartbeats.key(company.host))
    assert heartbeats.clock_difference(company.host, said, now) is None
