"""The server's clock is set, forward or back, or runs away: whose connection ends, and when."""

from __future__ import annotations

import pytest
from django.test import Client

from core import nodes
from core.clock import moment
from core.redis_store import redis_client
from tests.admin_site import staff
from tests.attack import connect, pinged
from tests.conftest import Clock
from tests.connection_rows import with_fresh_marker
from tests.factories import Company, HostStandIn
from tests.protocol_client import Identity, new_wg_key
from wgpeers import tasks
from wgpeers.lifecycle import liveness, reaper
from wgpeers.lifecycle.keepalive import keepalive
from wgpeers.models import Connection, State

HOUR, DAY = 3600, 86400
TIMEOUT = 360


class Person:
    """A user who is connected."""

    def __init__(self, identity: Identity, clock: Clock) -> None:
        self.identity, self.clock, self.key = identity, clock, new_wg_key()
        connect(identity, wg_public_key=self.key, now=int(clock.now))

    def ping(self) -> None:
        # By the server's clock: a client whose own is right is outside the window as long as the server's is wrong.
        assert pinged(self.identity, self.key, now=int(self.clock.now))
        keepalive.write()


@pytest.fixture
def alice(company: Company, host: HostStandIn, fixed_clock: Clock) -> Person:
    person = Person(company.hire("alice")[1], fixed_clock)
    with_fresh_marker()
    reaper.sweep(fixed_clock.now)
    return person


def live() -> set[str]:
    return set(Connection.objects.exclude(state=State.ENDED).values_list("user_name", flat=True))


@pytest.mark.parametrize("step", [HOUR, DAY, 60, 5])
def test_a_clock_set_forward_ends_nobody_who_pings_and_keeps_nobody_who_is_silent(
    alice: Person, fixed_clock: Clock, step: int
) -> None:
    fixed_clock.advance(10)
    alice.ping()
    fixed_clock.step(step)
    for _ in range(TIMEOUT // 10 - 1):
        assert reaper.sweep(fixed_clock.advance(10)) == 0
    assert reaper.sweep(fixed_clock.advance(10)) == 1  # silent for as long as ever


@pytest.mark.parametrize("step", [-HOUR, -DAY, -60, -5])
def test_a_clock_set_back_keeps_nobody_who_is_silent(alice: Person, fixed_clock: Clock, step: int) -> None:
    fixed_clock.step(step)
    for _ in range(TIMEOUT // 10 - 1):
        assert reaper.sweep(fixed_clock.advance(10)) == 0
    # A step of less than the time between two sweeps may be told from a ping only by so much.
    assert reaper.sweep(fixed_clock.advance(10)) + reaper.sweep(fixed_clock.advance(10)) == 1


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_pings_between_a_step_and_the_sweep_that_notices_it_count(
    company: Company, alice: Person, fixed_clock: Clock, step: int
) -> None:
    bob = Person(company.hire("bob")[1], fixed_clock)
    fixed_clock.advance(5)
    fixed_clock.step(step)
    if step > 0:  # set back, the time in a ping is not newer than that of the last one
        bob.ping()
    Person(company.hire("carol")[1], fixed_clock)
    fixed_clock.advance(5)
    assert reaper.sweep(fixed_clock.now) == 0
    names = Connection.objects.order_by("pk").values_list("public_id", flat=True)
    left = [until - fixed_clock.now for until in liveness.deadlines(list(names)).values()]
    assert left[0] == 350  # alice, silent since
    # From a ping of after the step; told from one before it by no more than the time since.
    assert 355 <= left[2] <= 360
    assert left[1] == 350 if step < 0 else 355 <= left[1] <= 360


def test_a_clock_that_runs_away_ends_nobody_early_and_nobody_late(alice: Person, fixed_clock: Clock) -> None:
    """It goes three times as fast as it should."""
    for _ in range(TIMEOUT // 10 - 1):
        fixed_clock.step(20)
        assert reaper.sweep(fixed_clock.advance(10)) == 0
    fixed_clock.step(20)
    assert reaper.sweep(fixed_clock.advance(10)) == 1


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_session_lasts_as_long_as_it_would_have(
    company: Company, host: HostStandIn, fixed_clock: Clock, step: int
) -> None:
    company.server.session_timeout = 2 * HOUR
    company.server.save()
    Person(company.hire("alice")[1], fixed_clock)
    with_fresh_marker()
    reaper.sweep(fixed_clock.now)
    fixed_clock.advance(10)
    fixed_clock.step(step)
    Person(company.hire("bob")[1], fixed_clock)
    assert reaper.sweep(fixed_clock.now) == 0
    ends = dict(Connection.objects.values_list("user_name", "session_ends"))
    assert ends == {
        "alice (Acme)": moment(fixed_clock.now - 10 + 2 * HOUR),
        "bob (Acme)": moment(fixed_clock.now + 2 * HOUR),
    }


def test_what_a_clock_is_put_right_by_all_the_time_is_no_step(
    alice: Person, fixed_clock: Clock, client: Client
) -> None:
    staff(client, superuser=True)
    fixed_clock.step(1.5)
    reaper.sweep(fixed_clock.now)
    assert "clock was set" not in client.get("/admin/").content.decode()


def test_a_step_is_said_on_the_first_page(alice: Person, fixed_clock: Clock, client: Client) -> None:
    staff(client, superuser=True)
    fixed_clock.step(-HOUR)
    reaper.sweep(fixed_clock.now)
    fixed_clock.advance(600)
    page = client.get("/admin/").content.decode()
    assert "clock was set back by 60 min, 10 min ago" in page


def beside_others(ahead: float = 0.0) -> None:
    """This node is one of three; the others' clocks are ahead of its own by so much."""
    store = redis_client()
    nodes.appear(store)
    mine = next(node for node in nodes.living(store) if node.name == nodes.ME)
    for name in ("b", "c"):
        nodes.appear(store, name, name)
        store.hset(f"node:{name}", "ahead", repr(mine.ahead + ahead))


@pytest.mark.parametrize("step", [HOUR, -HOUR, 50, -50])
def test_one_nodes_clock_that_is_put_right_ends_nobody_and_keeps_nobody_for_ever(
    alice: Person, fixed_clock: Clock, step: int
) -> None:
    beside_others()
    tasks.sweep()
    fixed_clock.step(step)
    beside_others()
    for _ in range(4):
        tasks.sweep()
        fixed_clock.advance(10)
        beside_others()  # time went on for them, too
        alice.ping()
    assert live() == {"alice (Acme)"}
    until = liveness.deadline(Connection.objects.get().public_id)
    assert until is not None
    assert until <= fixed_clock.now + TIMEOUT
    fixed_clock.advance(TIMEOUT)
    beside_others()
    tasks.sweep()
    assert live() == set()


@pytest.mark.parametrize("ahead", [HOUR, -HOUR, DAY])
def test_a_node_whose_clock_is_wrong_sweeps_nobody_and_says_so(
    alice: Person, fixed_clock: Clock, ahead: int, caplog: pytest.LogCaptureFixture, client: Client
) -> None:
    fixed_clock.step(-ahead)
    beside_others(ahead)
    fixed_clock.advance(2 * TIMEOUT)
    tasks.sweep()
    assert live() == {"alice (Acme)"}
    assert "differs by more than a minute" in caplog.text
    staff(client, superuser=True)
    assert "differs from the other control nodes" in client.get("/admin/").content.decode()
