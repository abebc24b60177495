"""The control side's tasks: each reads the clock once and calls one function. Ids only; rows are read anew."""

from __future__ import annotations

import logging
from datetime import timedelta

import redis
from django.conf import settings

from core import clock, jobs, nodes, task_names
from core.one_at_a_time import OneAtATime
from core.pace import Pace
from core.pruning import delete_old
from core.redis_store import RedisUnavailable, redis_client
from core.second_factor import guesses as wrong_codes
from core.second_factor import sessions
from core.task_queue import enqueue, task, waits
from servers import heartbeats, mesh, redis_access
from servers.hostnet.state import HostState
from servers.models import Host, MeshNode
from users.factors import guesses
from users.models import RememberedPass, SignIn

from .fleet import desired, messages, remotes, reports, ways
from .lifecycle import devices, draining, reaper, signed_in, site_failover, sweeps
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
    _enforce(clock.now())
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
        mesh.tell_fronts()
        ways.follow()
    except RedisUnavailable:
        return
    reports.take_reports(clock.now())


@task(task_names.SPREAD)
def spread_remotes(most: int) -> None:
    try:
        remotes.spread(most)
    except redis.RedisError as error:
        log.warning("other hosts hear of clients with their next full state (%s)", type(error).__name__)


# What others' servers answer may take long, and the queue's threads are few.
_asking = OneAtATime("ask again")


@task(task_names.ASK_AGAIN)
def ask_again() -> None:
    _asking.begin(_ask_again)


def _ask_again() -> None:
    try:
        ended = signed_in.step(clock.now())
    except (redis.RedisError, RedisUnavailable) as error:
        log.warning("no provider is asked again: Redis is away (%s)", type(error).__name__)
        return
    if ended:
        log.info("%d connections were ended, as providers no longer stand by their sign-ins", ended)


@task(task_names.SWEEP)
def sweep() -> None:
    now = clock.now()
    if _may_judge():
        _revoke(now)
    spread_remotes(remotes.AT_ONCE)  # should whoever was to do it have died with its message
    if moved := draining.step(now):
        log.info("%d clients were sent away from hosts that are being emptied", moved)
    site_failover.elect_all(now)


def _may_judge() -> bool:
    """Whether this node's clock is good enough to say whose time is over."""
    try:
        fine = nodes.agrees(redis_client())
    except (redis.RedisError, RedisUnavailable):
        return True  # which ``_revoke`` finds out as well, and says
    if not fine:
        log.error("no sweep: this machine's clock differs by more than a minute from the other control nodes'")
    return fine


def _revoke(now: float) -> None:
    pace = Pace()
    try:
        ended = reaper.sweep(now, pace)
    except (redis.RedisError, RedisUnavailable) as error:
        # Without deadlines nobody is revoked: rather a key that lives a little longer than a whole company cut off.
        log.warning("no sweep: Redis is away (%s)", type(error).__name__)
        return
    if ended:
        log.info("the sweep ended %d connections", ended)
        if pace.over:
            enqueue(task_names.SWEEP)
    sweeps.note()


@task(task_names.ENFORCE)
def enforce() -> None:
    now = clock.now()
    if _again(task_names.ENFORCE):
        return  # a long change asks for it with each of its steps
    _enforce(now)
    # An edit may have given a network to another user, or taken it from whoever served it.
    site_failover.elect_all(now)


def _enforce(now: float) -> None:
    """Some of them; while there are more, again behind whatever else waits."""
    pace = Pace()
    if reaper.enforce(now, pace) and pace.over:
        enqueue(task_names.ENFORCE)
    # To look at everybody takes its time too, where there are thousands.
    pace.breathe()


def _again(task: str) -> bool:
    """Whether the same waits already to be done once more: that one will see all that this one would."""
    try:
        return waits(task)
    except redis.RedisError:
        return False


@task(task_names.PRUNE)
def prune() -> None:
    """Delete rows that have served their time; while there are more, again behind whatever else waits. Spent keys and
    connections stay."""
    now, pace = clock.now(), Pace()
    devices.prune(pace)
    jobs.prune(now, pace)
    guesses.prune(now, pace)
    wrong_codes.prune(now, pace)
    sessions.prune(now, pace)
    moment = clock.moment(now)
    delete_old(SignIn.objects.filter(expires__lt=moment), pace)
    delete_old(RememberedPass.objects.filter(expires__lt=moment), pace)
    delete_old(ProfileLink.objects.filter(expires__lt=moment - timedelta(days=7)), pace)
    delete_old(Decision.objects.filter(time__lt=moment - timedelta(days=settings.DECISION_DAYS)), pace)
    if pace.over:
        enqueue(task_names.PRUNE)
