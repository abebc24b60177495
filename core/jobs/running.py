"""Making jobs, and carrying them out step by step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.contrib.admin.models import LogEntry
from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction

from core import clock, task_names
from core.changes import after_commit
from core.locking import lock
from core.models import Job, JobArguments, JobState
from core.pace import AIM, TURN, Pace, Room, Stride
from core.pruning import delete_old

from .registry import Step, step_of

log = logging.getLogger(__name__)

# At most so many items in one transaction of work that is done at once.
AT_ONCE = 10
MOST_FAILURES = 5
NOTES_KEPT = 200
# A job that nobody has worked at for so long is queued again: its message was lost, or its worker died.
FORGOTTEN = timedelta(seconds=10)
DRAFT_FOR, KEPT_FOR = timedelta(days=1), timedelta(days=90)


def create(
    kind: str, title: str, arguments: dict[str, Any], total: int, administrator: Any = None, *, draft: bool = False
) -> Job:
    """A new job, begun after commit; a ``draft`` waits until it is ``begin``-ned."""
    if step_of(kind) is None:
        raise ValueError(f"there is no kind of job named {kind}")
    with transaction.atomic():
        job = Job.objects.create(
            kind=kind,
            title=title[:200],
            total=total,
            administrator=administrator,
            administrator_name=administrator.get_username() if administrator else "",
            state=JobState.DRAFT if draft else JobState.QUEUED,
            created=clock.moment(clock.now()),
        )
        JobArguments.objects.create(job=job, arguments=arguments)
        if not draft:
            after_commit(task_names.RUN_JOB, job.pk)
    return job


def at_once(kind: str, arguments: dict[str, Any], administrator: Any = None) -> list[str]:
    """Carry out work that is little, now and without a row, in short transactions. Returns the notes."""
    step_function = step_of(kind)
    if step_function is None:
        raise ValueError(f"there is no kind of job named {kind}")
    job, notes, pace = Job(kind=kind, administrator=administrator), list[str](), Pace()
    job.arguments = arguments
    while True:
        with transaction.atomic():
            # By their number alone: whether it takes one transaction is no question of how busy the machine is.
            step = step_function(job, Room(AT_ONCE, lambda: 0.0))
        notes += step.notes
        job.place = step.place
        if step.place is None:
            return notes
        pace.breathe()


def record(job: Job, rows: Sequence[Any], flag: int, message: str = "") -> None:
    """Write what a step did with each row into its history, in the name of who asked for the job. Whoever has been
    deleted since has none there."""
    if job.administrator_id is not None:
        LogEntry.objects.log_actions(job.administrator_id, rows, flag, message)


def begin(job: Job) -> bool:
    """Have a draft carried out. False when it is none any more."""
    with transaction.atomic():
        begun = bool(Job.objects.filter(pk=job.pk, state=JobState.DRAFT).update(state=JobState.QUEUED))
        if begun:
            after_commit(task_names.RUN_JOB, job.pk)
    return begun


def stop(job: Job) -> bool:
    """Let no further step of it be taken; what was done stays done. False when it had ended already."""
    now = clock.moment(clock.now())
    to_do = Job.objects.filter(pk=job.pk, state__in=(JobState.QUEUED, JobState.DRAFT))
    return bool(to_do.update(state=JobState.STOPPED, ended=now))


def resume() -> None:
    """Queue again whatever is under way and was not worked at for a while."""
    before = clock.moment(clock.now()) - FORGOTTEN
    for pk, last in Job.objects.filter(state=JobState.QUEUED).values_list("pk", "stepped"):
        if last is None or last < before or last > before + 2 * FORGOTTEN:  # the clock was set back
            after_commit(task_names.RUN_JOB, pk)


def prune(now: float, pace: Pace) -> None:
    """Forget drafts that nobody has said yes to, with the lists of people in them, and what ended long ago."""
    moment = clock.moment(now)
    delete_old(Job.objects.filter(state=JobState.DRAFT, created__lt=moment - DRAFT_FOR), pace)
    delete_old(Job.objects.filter(ended__lt=moment - KEPT_FOR), pace)


@dataclass(slots=True)
class Work:
    """Works at one job. ``steady`` is a clock that nobody sets; ``pause`` lets others write between two steps."""

    job_id: int
    steady: Callable[[], float] = clock.steady
    pause: Callable[[float], None] = field(default_factory=lambda: time.sleep)
    stride: Stride = field(default_factory=Stride)
    _arguments: dict[str, Any] = field(default_factory=dict, init=False)

    def turn(self, seconds: float = TURN) -> bool:
        """Take steps for so long. Whether there is more to do."""
        # Read before the first step: there may be much of it to read.
        given = JobArguments.objects.filter(job=self.job_id).first()
        self._arguments = given.arguments if given else {}
        # After each step, if it was not very short.
        pace = Pace(self.steady, self.pause, seconds, AIM / 2)
        while not pace.over:
            if not self._step():
                return False
            pace.breathe()
        return True

    def _step(self) -> bool:
        try:
            with transaction.atomic():
                # From here on others wait for us; before it we waited for them, and messages go after it.
                began = self.steady()
                step = self._step_of_locked()
                seconds = self.steady() - began
            if step is None:
                return False
            self.stride.took(step.done, seconds)
            return step.place is not None
        except Exception:
            log.exception("a step of job %s failed", self.job_id)
            return self._failed()

    def _step_of_locked(self) -> Step | None:
        # Of two workers at one job (its message came twice) the second sees what the first has done.
        with suppress(ObjectDoesNotExist):
            lock(Job(pk=self.job_id))
        job = Job.objects.filter(pk=self.job_id, state=JobState.QUEUED).first()
        if job is None:
            return None
        step_function = step_of(job.kind)
        if step_function is None:
            raise LookupError(f"there is no kind of job named {job.kind}")
        job.arguments = self._arguments
        step = step_function(job, Room(self.stride.size, self.steady))
        now = clock.moment(clock.now())
        job.place, job.done, job.failures, job.stepped = step.place, job.done + step.done, 0, now
        job.notes = [*job.notes, *step.notes][:NOTES_KEPT]
        if step.place is None:
            job.state, job.ended = JobState.DONE, now
        job.save(update_fields=["place", "done", "failures", "stepped", "notes", "state", "ended"])
        return step

    def _failed(self) -> bool:
        """Whatever it was may pass, or concern one item alone: so smaller steps, and a few of them."""
        self.stride.failed()
        with transaction.atomic():
            job = Job.objects.filter(pk=self.job_id, state=JobState.QUEUED).first()
            if job is None:
                return False
            job.failures += 1
            job.stepped = clock.moment(clock.now())
            if job.failures >= MOST_FAILURES:
                job.state, job.ended = JobState.FAILED, job.stepped
                job.notes = [*job.notes[: NOTES_KEPT - 1], "It failed; the control worker's log says why."]
            job.save(update_fields=["failures", "stepped", "state", "ended", "notes"])
        self.pause(AIM)
        return bool(job.state == JobState.QUEUED)
