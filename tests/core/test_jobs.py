"""Long work in short steps: nothing twice, nothing left out, whatever happens between two steps."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connections
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from core import clock, jobs
from core.jobs import registry
from core.models import Job, JobState
from core.pace import AIM, Pace, Room, Stride
from core.tasks import resume_jobs, run_job
from tests.admin_site import messages, queued, staff

KIND = "tests.add_groups"


class Steady:
    """Time that passes with each look, and with each pause."""

    def __init__(self, each_look: float = 0.0) -> None:
        self.now, self.each_look, self.pauses = 0.0, each_look, list[float]()

    def __call__(self) -> float:
        self.now += self.each_look
        return self.now

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def add_groups(job: Job, room: Room) -> jobs.Step:
    """Makes a group of each name. A name that is ``bad`` cannot be made."""
    names, place = job.arguments["names"], job.place or 0
    for name in names[place : place + room.most]:
        if name == "bad":
            raise RuntimeError("bad")
        Group.objects.create(name=name)
    end = min(place + room.most, len(names))
    return jobs.Step(None if end == len(names) else end, end - place, [f"at {end}"] if end == len(names) else [])


@pytest.fixture(autouse=True)
def kind() -> Iterator[None]:
    registry._kinds[KIND] = add_groups
    yield
    registry._kinds.pop(KIND)


def new(*names: str, **more: Any) -> Job:
    return jobs.create(KIND, f"Add {len(names)} groups", {"names": list(names)}, len(names), **more)


def names(count: int) -> list[str]:
    return [f"group {number:04}" for number in range(count)]


def made() -> list[str]:
    return sorted(Group.objects.values_list("name", flat=True))


def work(job: Job, steady: Steady | None = None) -> bool:
    steady = steady or Steady()
    return jobs.Work(job.pk, steady, steady.pause).turn()


@pytest.mark.django_db(transaction=True)
def test_a_job_is_queued_after_commit_and_carried_out_once() -> None:
    job = new(*names(30))
    assert "core.run_job" in queued()
    run_job(job.pk)
    assert made() == names(30)
    job.refresh_from_db()
    assert (job.state, job.done, job.total, job.notes) == (JobState.DONE, 30, 30, ["at 30"])
    run_job(job.pk)
    assert len(made()) == 30


@pytest.mark.django_db(transaction=True)
def test_a_draft_waits_for_a_yes_and_begins_once() -> None:
    job = new("a", draft=True)
    assert queued() == []
    run_job(job.pk)
    assert made() == []
    assert [jobs.begin(job), jobs.begin(job)] == [True, False]
    run_job(job.pk)
    assert made() == ["a"]


@pytest.mark.django_db(transaction=True)
def test_a_turn_ends_and_the_next_goes_on_where_it_ended() -> None:
    job = new(*names(60))
    turns = 1
    while work(job, Steady(each_look=0.6)):
        turns += 1
    assert turns > 3
    assert made() == names(60)


@pytest.mark.django_db(transaction=True)
def test_steps_grow_while_they_are_short_and_shrink_when_they_are_long() -> None:
    long = Steady(each_look=0.5)
    slow = jobs.Work(new(*names(500)).pk, long, long.pause, Stride(200))
    slow.turn()
    assert slow.stride.size == Stride.LEAST
    assert all(pause > 0 for pause in long.pauses)
    quick = jobs.Work(new(*[f"other {number}" for number in range(500)]).pk, Steady(each_look=0.0001), lambda _: None)
    quick.turn()
    assert quick.stride.size > 50


@pytest.mark.django_db(transaction=True)
def test_a_step_that_fails_changes_nothing_and_is_tried_again_smaller() -> None:
    job = new("a", "b", "bad", "c")
    work(job)
    job.refresh_from_db()
    assert made() == ["a", "b"]
    assert (job.state, job.done) == (JobState.FAILED, 2)
    assert "failed" in job.notes[-1]
    assert not work(job)


@pytest.mark.django_db(transaction=True)
def test_a_stopped_job_takes_no_further_step() -> None:
    job = new(*names(5))
    assert jobs.stop(job)
    assert not work(job)
    assert made() == []
    assert not jobs.stop(job)


@pytest.mark.django_db(transaction=True)
def test_what_nobody_works_at_is_queued_again() -> None:
    job = new("a")
    Job.objects.update(stepped=clock.moment(clock.now() - 60))
    assert len(queued()) == 1
    resume_jobs()
    assert len(queued()) == 2
    Job.objects.update(stepped=clock.moment(clock.now()) - timedelta(seconds=1))
    resume_jobs()
    assert len(queued()) == 2
    run_job(job.pk)
    Job.objects.update(stepped=clock.moment(clock.now() - 60))
    resume_jobs()
    assert len(queued()) == 2


@pytest.mark.django_db(transaction=True)
def test_drafts_and_what_ended_long_ago_are_forgotten() -> None:
    now, day = clock.now(), 86400
    for state, created, ended in (
        (JobState.DRAFT, 2, None),
        (JobState.DRAFT, 0.5, None),
        (JobState.QUEUED, 200, None),
        (JobState.DONE, 200, 100),
        (JobState.DONE, 200, 80),
    ):
        times = {"created": clock.moment(now - created * day), "ended": ended and clock.moment(now - ended * day)}
        Job.objects.create(kind=KIND, title=f"{state} {created} {ended}", state=state, **times)
    jobs.prune(now, Pace())
    assert sorted(map(str, Job.objects.all())) == ["done 200 80", "draft 0.5 None", "queued 200 None"]


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_one_job_do_nothing_twice() -> None:
    job = new(*names(200))
    errors: list[BaseException] = []

    def run() -> None:
        try:
            while jobs.Work(job.pk).turn():
                pass
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert made() == names(200)
    job.refresh_from_db()
    assert (job.done, job.state) == (200, JobState.DONE)


class Killed(BaseException):
    """The worker died."""


@pytest.mark.django_db
@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 40))
def test_whenever_a_worker_dies_every_item_is_dealt_with_once(deaths: list[int], count: int) -> None:
    Group.objects.all().delete()
    job = new(*names(count))
    for steps in deaths:
        left = steps

        def dying(job: Job, room: Room) -> jobs.Step:
            nonlocal left
            step = add_groups(job, room)
            left -= 1
            if left == 0:
                raise Killed
            return step

        registry._kinds[KIND] = dying
        try:
            work(job)
        except Killed:
            continue
    registry._kinds[KIND] = add_groups
    work(job)
    assert made() == names(count)
    job.refresh_from_db()
    assert (job.done, job.state) == (count, JobState.DONE)


@pytest.mark.django_db(transaction=True)
def test_its_page_shows_how_far_it_is_and_stops_it(client: Client) -> None:
    administrator = staff(client, superuser=True)
    job = new(*names(3), administrator=administrator)
    page = client.get(f"/admin/core/job/{job.pk}/change/")
    assert "0 of 3" in page.content.decode()
    assert page["Refresh"]
    assert "Stopped" in messages(client, f"/admin/core/job/{job.pk}/do/stop/")
    page = client.get(f"/admin/core/job/{job.pk}/change/")
    assert "stopped" in page.content.decode()
    assert "Refresh" not in page
    assert "Add 3 groups" in client.get("/admin/core/job/").content.decode()


@pytest.mark.django_db(transaction=True)
def test_who_asked_for_it_sees_it_and_others_need_the_right(client: Client) -> None:
    own = new("a", administrator=staff(client, "users.view_vpnuser"))
    other = new("b")
    assert client.get(f"/admin/core/job/{own.pk}/change/").status_code == 200
    assert client.get(f"/admin/core/job/{other.pk}/change/").status_code == 403
    assert client.get("/admin/core/job/").status_code == 403


@given(st.floats(0, 0.02), st.floats(0.00001, 0.02), st.integers(1, 5000))
def test_a_transaction_grows_no_longer_than_its_aim_or_than_the_fewest_items_take(
    fixed: float, each: float, items: int
) -> None:
    stride, left = Stride(), items
    while left:
        done = min(stride.size, left)
        seconds = fixed + done * each
        # By the stride before it, which doubles at most.
        assert seconds <= max(2 * AIM, fixed + Stride.LEAST * each) + 1e-9
        stride.took(done, seconds)
        left -= done
    assert stride.size >= 4


@given(st.lists(st.floats(0.0001, 0.1), min_size=1, max_size=50), st.integers(1, 60))
def test_what_is_done_one_by_one_ends_with_the_item_by_which_the_time_is_over(costs: list[float], most: int) -> None:
    steady = Steady()
    room = Room(most, steady)
    done = []
    for cost in room.each(costs):
        steady.now += cost
        done.append(cost)
    assert done == costs[: room.taken]
    assert 1 <= room.taken <= most
    assert sum(done[:-1]) < AIM
    assert sum(done) >= AIM or room.taken == min(most, len(costs))
