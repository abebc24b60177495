"""Why a host is not taking clients, in words for an administrator. It asks what choosing a host asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from servers import heartbeats
from servers.hostnet.state.conditions import Severity
from servers.models import Host, ServerHost

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
    if host.pk not in heartbeats.fresh([host]):
        down = host.pk not in heartbeats.read([host])
        yield _silence(host) if down else "Its worker was not heard for 4 seconds."
    if choosing.is_full(host, {host.pk: live}):
        yield f"It has {live} clients, and takes {host.max_clients} at most."
    for each in host.conditions:
        if each.get("severity") == Severity.ERROR:
            yield f"It reports {each.get('code')}, see below: who is sent to it may not be taken."


def _silence(host: Host) -> str:
    return "Its worker is silent: it is down, or cannot reach Redis." if host.boot else "Its worker was never started."


def _of_one_server(attachment: ServerHost) -> Iterator[str]:
    server = attachment.server
    if not server.running:
        yield f"{server} is stopped."
    elif not attachment.public_key:
        yield f"It has not made its key for {server} yet."
    elif before := _before(attachment):
        names = ", ".join(str(each.host) for each in before)
        yield f"For {server} it stands by, with priority {attachment.priority}, while {names} can take clients."


def _before(attachment: ServerHost) -> Sequence[ServerHost]:
    """Hosts that come first for this server, and are up."""
    others = ServerHost.objects.filter(server=attachment.server_id, priority__lt=attachment.priority)
    able = others.filter(host__enabled=True, host__draining=False).exclude(public_key="").select_related("host")
    heard = heartbeats.fresh([each.host for each in able])
    return [each for each in able.order_by("priority", "host__name") if each.host_id in heard]
