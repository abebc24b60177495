"""The ground floor's tasks: jobs."""

from __future__ import annotations

from . import jobs, task_names
from .task_queue import enqueue, task


@task(task_names.RUN_JOB)
def run_job(job_id: int) -> None:
    """Work at a job for a while; what is left is queued behind whatever else waits."""
    if jobs.Work(job_id).turn():
        enqueue(task_names.RUN_JOB, job_id)


@task(task_names.RESUME_JOBS)
def resume_jobs() -> None:
    jobs.resume()
