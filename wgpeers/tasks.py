"""The control side's tasks: each reads the clock once and calls one function. Ids only; rows are read anew."""

from __future__ import annotations

import logging
from datetime import timedelta

import redis
from django.conf import settings
from django.db.models import Q

from core import clock, jobs, task_names
from core.redis_store import RedisUnavailable
from core.task_queue import enqueue, task
from servers import heartbeats, mesh, redis_access
from servers.hostnet.state import HostState
from servers.models import Host, MeshNode
from users.factors import guesses
from users.models import RememberedPass

from .fleet import desired, messages, reports
from .lifecycle import devices, reaper, site_failover, sweeps
from .models import Decision, ProfileLink

log = logging.getLogger(__name__)


@task(task_names.CONVERGE)
def converge(host_id: int) -> None:
    """Send one host its full state. The host of a deleted row is gone: leave quietly."""
    state = desired.state_of(host_id)
    host = Host.objects.filter(pk=host_id).first()
    if state is not None and host is not None:
        messages.send_full_state(host, state)


@task(task_names.DISMISS)
def dismiss(public_id: str, version: int, boot: str) -> None:
    """Have a host whose row was deleted take all its tunnels down."""
    nothing = HostState(public_id, version, boot, settings.GATEWAY_PORT, ())
    messages.send_full_state(Host(public_id=public_id), nothing)
    cut_off(public_id)
    for host in MeshNode.objects.values_list("host_id", flat=True):
        enqueue(task_names.CONVERGE, host)


@task(task_names.CUT_OFF)
def cut_off(public_id: str) -> None:
    """End what a machine may do in Redis. While that is away nobody can do anything there; then the slow beat does."""
    try:
        redis_access.cut_off(public_id)
    except RedisUnavailable:
        log.warning("Redis is away: host %s is cut off later", public_id)


@task(task_names.CONVERGE_ALL)
def converge_all() -> None:
    """The slow beat: what no longer fits is ended, and every living host is told its whole state again."""
    reaper.enforce(clock.now())
    mesh.forget_former(clock.now())
    every = list(Host.objects.all())
    try:
        redis_access.sync()
        alive = heartbeats.read(every)
    except RedisUnavailable:
        return
    for host in every:
        if host.pk not in alive:
            continue
        # Its hello may have been lost with Redis.
        boot = str(alive[host.pk].get("boot", ""))[:64]
        if boot and boot.isprintable() and boot != host.boot:
            Host.objects.filter(pk=host.pk).update(boot=boot)
        enqueue(task_names.CONVERGE, host.pk, expires=60)


@task(task_names.TAKE_REPORTS)
def take_reports() -> None:
    try:
        redis_access.keep_listening()
    except RedisUnavailable:
        return
    reports.take_reports(clock.now())


@task(task_names.SWEEP)
def sweep() -> None:
    now = clock.now()
    _revoke(now)
    site_failover.elect_all(now)


def _revoke(now: float) -> None:
    try:
        ended = reaper.sweep(now)
    except (redis.RedisError, RedisUnavailable) as error:
        # Without deadlines nobody is revoked: rather a key that lives a little longer than a whole company cut off.
        log.warning("no sweep: Redis is away (%s)", type(error).__name__)
        return
    if ended:
        log.info("the sweep ended %d connections", ended)
    sweeps.note()


@task(task_names.ENFORCE)
def enforce() -> None:
    now = clock.now()
    reaper.enforce(now)
    # An edit may have given a network to another user, or taken it from whoever served it.
    site_failover.elect_all(now)


@task(task_names.PRUNE)
def prune() -> None:
    """Delete rows that have served their time. Spent keys and connections stay."""
    devices.prune()
    jobs.prune(clock.now())
    guesses.prune(clock.now())
    now = clock.moment(clock.now())
    Decision.objects.filter(time__lt=now - timedelta(days=settings.DECISION_DAYS)).delete()
    RememberedPass.objects.filter(expires__lt=now).delete()
    ProfileLink.objects.filter(Q(expires__lt=now - timedelta(days=7))).delete()
