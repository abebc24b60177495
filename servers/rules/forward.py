"""Which ports cannot be forwarded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet

from servers.access import servers_of
from servers.models import PortForward, Server

from . import link_ports
from .registry import Mistake, rule

# As many ports as one range may have.
MOST = 1000


@rule(PortForward)
def check(forward: PortForward) -> Iterator[Mistake]:
    if not forward.port or not forward.server_id or not forward.user_id:
        return  # missing, which the field says by itself
    yield from _user(forward)
    wrong = [*_range(forward)] or [*_ours(forward)]
    yield from wrong
    decided = getattr(forward, "decided_with", ())
    if not wrong and (other := _rivals(forward).exclude(pk__in=decided).first()):
        yield Mistake("port", _taken(other))


def last_of(forward: PortForward) -> int:
    return forward.last_port or forward.port


def _range(forward: PortForward) -> Iterator[Mistake]:
    last = last_of(forward)
    if last < forward.port:
        yield Mistake("last_port", f"The last port comes after the first: from {forward.port} to 65535.")
    elif last - forward.port >= MOST:
        yield Mistake("last_port", f"At most {MOST} ports in one range: up to {forward.port + MOST - 1}.")
    elif forward.to_port and forward.to_port + last - forward.port > 65535:
        ports = last - forward.port + 1
        yield Mistake("to_port", f"{ports} ports from {forward.to_port} on would go beyond 65535.")


def _user(forward: PortForward) -> Iterator[Mistake]:
    if not forward.user.pk or servers_of(forward.user).filter(pk=forward.server_id).exists():
        return
    # Whoever lost the server keeps the rows, for when they get it back: they are no reason to refuse another change.
    if not PortForward.objects.filter(pk=forward.pk, user=forward.user_id, server=forward.server_id).exists():
        yield Mistake("server", f"{forward.user} may not use server {forward.server}.")


def _ours(forward: PortForward) -> Iterator[Mistake]:
    """Ports of the hosts that clients need to reach us."""
    for protocol, port, message in _reserved(forward.server):
        if protocol in protocols(forward) and forward.port <= port <= last_of(forward):
            yield Mistake("port", f"{protocol.upper()} port {port} is {message}.")
            return
    if message := link_ports.of_forward(forward):
        yield Mistake("port", message)


def _reserved(server: Server) -> Iterator[tuple[str, int, str]]:
    yield "tcp", settings.GATEWAY_PORT, "where clients' pings arrive"
    for port in sorted({urlsplit(url).port or 443 for url in settings.API_URLS} or {443}):
        yield "tcp", port, "where clients reach the API"
    beside = Server.objects.filter(attachments__host__in=server.attachments.values("host"))
    for other in Server.objects.filter(Q(pk=server.pk) | Q(pk__in=beside)):
        yield "udp", other.port, f"the WireGuard port of server {other}"


def protocols(forward: PortForward) -> tuple[str, ...]:
    return ("tcp", "udp") if forward.protocol == "both" else (forward.protocol,)


def _rivals(forward: PortForward) -> QuerySet[PortForward]:
    """Other forwards of the same ports, of this server and of all that share a host with it."""
    mine = forward.server.attachments.values("host")
    near = Q(server=forward.server_id) | Q(server__attachments__host__in=mine)
    found = PortForward.objects.filter(near, _of_ports(forward.port, last_of(forward)))
    found = found.filter(protocol__in=[*protocols(forward), "both"]) if forward.protocol != "both" else found
    return found.exclude(pk=forward.pk).select_related("server", "user").order_by("pk")


def _of_ports(first: int, last: int) -> Q:
    return Q(port__lte=last) & (Q(last_port__gte=first) | Q(last_port=None, port__gte=first))


def _taken(other: PortForward) -> str:
    return f"{other} is forwarded to {other.user} on server {other.server}, on the same host."


def of_port(host: int, protocol: str, port: int) -> PortForward | None:
    """What is forwarded on that port of a host (primary key), if anything."""
    found = PortForward.objects.filter(_of_ports(port, port), server__attachments__host=host)
    return found.filter(protocol__in=[protocol, "both"]).select_related("user").first()


def clash_on_host(server: Server, host: int) -> str | None:
    """Why a server cannot come to a host (primary key) for the ports that are forwarded there or would be."""
    if taken := of_port(host, "udp", server.port):
        return f"UDP port {server.port} is forwarded to {taken.user} there."
    if not server.pk:
        return None
    mine = list(PortForward.objects.filter(server=server).select_related("server", "user"))
    there = PortForward.objects.filter(server__attachments__host=host).exclude(server=server)
    for one, other in _overlaps(mine, list(there.select_related("server", "user"))):
        return f"{one} of {one.user} and {other} of {other.user} (server {other.server}) would be the same port there."
    for running in Server.objects.filter(attachments__host=host).exclude(pk=server.pk):
        for forward in mine:
            if "udp" in protocols(forward) and forward.port <= running.port <= last_of(forward):
                return (
                    f"UDP port {running.port}, forwarded to {forward.user}, is the WireGuard port of {running} there."
                )
    return None


def _overlaps(some: Sequence[PortForward], others: Sequence[PortForward]) -> Iterator[tuple[PortForward, PortForward]]:
    """Pairs that want the same port. One walk over both in the order of their ports, for each protocol: hundreds of
    forwards are nothing unusual."""
    for protocol in ("tcp", "udp"):
        rows = [(row, mine) for mine, part in ((True, some), (False, others)) for row in part]
        ends: dict[bool, PortForward] = {}  # of either side, the row that reaches furthest so far
        for row, mine in sorted(rows, key=lambda pair: pair[0].port):
            if protocol not in protocols(row):
                continue
            other = ends.get(not mine)
            if other is not None and last_of(other) >= row.port:
                yield (row, other) if mine else (other, row)
            if mine not in ends or last_of(row) > last_of(ends[mine]):
                ends[mine] = row


def together(rows: Sequence[PortForward]) -> Iterator[tuple[PortForward, ValidationError]]:
    """The rows of one form (of one user, maybe on several servers) that want the same port of one host."""
    for number, row in enumerate(rows):
        for other in rows[:number]:
            same = set(protocols(row)) & set(protocols(other))
            if same and row.port <= last_of(other) and other.port <= last_of(row) and _meet(row.server, other.server):
                yield row, ValidationError({"port": f"{other} in this form is the same port of the same host."})
                break


def _meet(one: Server, other: Server) -> bool:
    """Whether two servers share a host."""
    if one.pk == other.pk:
        return True
    return one.attachments.filter(host__in=other.attachments.values("host")).exists()
