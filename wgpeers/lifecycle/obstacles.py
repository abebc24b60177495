"""Why a host is not taking clients, in words for an administrator. It asks what choosing a host asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.db.models import QuerySet

from servers import heartbeats, mesh
from servers.hostnet.state.conditions import Severity
from servers.hostnet.state.reach import Reach
from servers.models import ClientRegion, Host, ServerHost

from . import choosing


def of_host(host: Host, live: int) -> list[str]:
    """``live`` is how many clients it has. Empty where it takes clients of every server that runs. Raise
    ``RedisUnavailable``."""
    if whole := list(_of_the_machine(host, live)):
        return whole
    attachments = list(host.attachments.select_related("server").order_by("server__name"))
    if not attachments:
        return ["No server is attached to it."]
    return [words for each in attachments for words in _of_one_server(each)]


def _of_the_machine(host: Host, live: int) -> Iterator[str]:
    if not host.enabled:
        yield "It is disabled."
    if host.draining:
        yield "It is being drained."
    beat = heartbeats.read([host]).get(host.pk)
    if host.pk not in heartbeats.fresh([host]):
        yield _silence(host) if beat is None else "Its worker was not heard for 4 seconds."
    elif beat is not None:
        yield from _of_the_worker(host, beat)
    if choosing.is_full(host, {host.pk: live}):
        yield f"It has {live} clients, and takes {host.max_clients} at most."
    for each in host.conditions:
        if each.get("severity") == Severity.ERROR:
            yield f"It reports {each.get('code')}, see below: who is sent to it may not be taken."


def _of_the_worker(host: Host, beat: Mapping[str, Any]) -> Iterator[str]:
    """It is heard, and may refuse all the same."""
    if heartbeats.is_outdated(beat):
        yield "Its worker is of an older release, and refuses what it does not understand."
    if beat.get("version") == 0:
        yield "Its worker has just started, and has not been told yet what to be."


def _silence(host: Host) -> str:
    if not host.boot and mesh.is_alone(host):
        return "No machine has joined as this host, and no worker was ever started for it."
    if not host.boot:
        return "Its worker was never started."
    told = [each[host.public_id].answers for each in _others(host).values() if host.public_id in each]
    if any(told):
        return "Its worker is silent, though its machine answers others in the mesh: does the worker run?"
    if told and not any(each is None for each in told):
        return "Its worker is silent, and no other machine of the mesh reaches it: it is down, or its link is cut."
    return "Its worker is silent: it is down, or cannot reach Redis."


def _others(host: Host) -> Mapping[int, Mapping[str, Reach]]:
    """What the other machines of the mesh say of their ways."""
    return heartbeats.ways([each for each in mesh.machines() if each != host])


def _of_one_server(attachment: ServerHost) -> Iterator[str]:
    server = attachment.server
    if not server.running:
        yield f"{server} is stopped."
    elif not attachment.public_key:
        yield f"It has not made its key for {server} yet."
    elif before := _before(attachment):
        names = ", ".join(str(each.host) for each in before)
        yield f"For {server} it stands by, with priority {attachment.priority}, while {names} can take clients."
    else:
        yield from _of_regions(attachment)


def _of_regions(attachment: ServerHost) -> Iterator[str]:
    """Of the same priority those of a client's region come first."""
    mine = attachment.host.region
    equals = _living(ServerHost.objects.filter(server=attachment.server_id, priority=attachment.priority))
    nearer: dict[str, list[str]] = {}
    for each in equals:
        if each.host.region and each.host.region != mine:
            nearer.setdefault(each.host.region, []).append(each.host.name)
    known = ClientRegion.objects.filter(region__in=nearer).values_list("region", flat=True)
    for region in sorted({*known}):
        yield f"For {attachment.server} clients of region {region} go to {', '.join(nearer[region])} first."


def _before(attachment: ServerHost) -> Sequence[ServerHost]:
    """Hosts that come first for this server, and are up."""
    return _living(ServerHost.objects.filter(server=attachment.server_id, priority__lt=attachment.priority))


def _living(attachments: QuerySet[ServerHost]) -> Sequence[ServerHost]:
    able = attachments.filter(host__enabled=True, host__draining=False).exclude(public_key="").select_related("host")
    heard = heartbeats.fresh([each.host for each in able])
    return [each for each in able.order_by("priority", "host__name") if each.host_id in heard]
