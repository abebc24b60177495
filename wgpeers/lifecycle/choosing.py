"""Which host a client goes to: all that could take it, the best one first, for the others are asked in turn."""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from django.conf import settings
from django.db.models import Count

from core import clock
from servers import heartbeats
from servers.models import ClientRegion, Host, ServerHost
from users.factors.base import Attempt
from wgpeers.models import Connection, State
from wgpeers.protocol.errors import Refusal

from . import renewals
from .accounts import Account

# Seconds for which a host that did not confirm comes last: until then its heartbeat says what it is worth.
AVOIDED = 5.0
# Hosts that one request tries: each may take a second, and the client waits for ten.
MOST = 5
# A client that is told to come again does so within these seconds, not all of them in the same one.
SOON, LATER = (2, 6), (20, 60)

# Of this process: hosts (public ids) that did not confirm, and when, by a clock that nobody sets.
_unanswered: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class Wish:
    """What of one client speaks for a host. ``asked`` is the name or address that its request was sent to;
    ``occupied`` are hosts (primary keys) on which the same device is connected still: it may be their link that
    failed. ``stays``: the host on which it continues a connection that works, None where it does not."""

    asked: str = ""
    region: str = ""
    occupied: frozenset[int] = field(default_factory=frozenset)
    stays: int | None = None


def suitable(account: Account, attempt: Attempt, attachments: Sequence[ServerHost], asked: str) -> list[ServerHost]:
    """Of the server's ``attachments`` those that can take this client now, in the order in which to try them: the one
    it stays on, the one it asked for, else by priority, region, and how many clients a host has for its weight; those
    on which the same device is connected still come after the others. Raise ``Refusal`` where there is none."""
    able = [each for each in attachments if not each.host.draining]
    heard = heartbeats.fresh([each.host for each in able])
    living = [each for each in able if each.host_id in heard]
    if not living:
        raise Refusal("no_host", "no host of this server takes clients now", pause(SOON))
    if len(living) == 1 and not living[0].host.max_clients:
        return living
    busy = _busy([each.host_id for each in living])
    mine = renewals.continued(account, attempt)
    stays = mine.host_id if mine else None
    # Whoever stays takes nobody's place but their own.
    free = [each for each in living if each.host_id == stays or not is_full(each.host, busy)]
    if not free:
        raise Refusal("server_full", "every host of this server has as many clients as it takes", pause(LATER))
    if len(free) > 1:
        region, occupied = _region(free, attempt.address), _occupied(account, attempt)
        wish = Wish(_wished(attachments, asked.lower()), region, occupied, stays)
        # Shuffled first, so that equally busy hosts share what comes at the same moment.
        random.shuffle(free)
        free.sort(key=lambda each: _rank(each, wish, busy))
    return free[:MOST]


def _rank(attachment: ServerHost, wish: Wish, busy: dict[int, int]) -> tuple[bool, bool, bool, bool, int, bool, float]:
    """The least is the best."""
    host = attachment.host
    return (
        is_avoided(host),
        wish.stays is not None and host.pk != wish.stays,
        not is_asked(host, wish.asked),
        host.pk in wish.occupied,
        attachment.priority,
        bool(wish.region) and host.region != wish.region,
        (busy.get(host.pk, 0) + 1) / max(1, host.weight),
    )


def _wished(attachments: Sequence[ServerHost], asked: str) -> str:
    """``asked``, where it says something: whose API answers at one of the hosts alone asks for none by asking there, or
    the others would never get a client."""
    offered = {asked, *((urlsplit(url).hostname or "") for url in settings.API_URLS)}
    choice = [each for each in attachments if any(is_asked(each.host, name) for name in offered)]
    return asked if len(choice) > 1 else ""


def is_asked(host: Host, asked: str) -> bool:
    """Whether a request that was sent to ``asked`` (in lower case) was sent to this host."""
    return asked != "" and asked in {host.public_address.lower(), host.public_address6.lower()}


def is_full(host: Host, busy: dict[int, int]) -> bool:
    return 0 < host.max_clients <= busy.get(host.pk, 0)


def pause(seconds: tuple[int, int]) -> int:
    """For Retry-After: any of these seconds."""
    return seconds[0] + secrets.randbelow(seconds[1] - seconds[0] + 1)


def _busy(hosts: Sequence[int]) -> dict[int, int]:
    """How many clients each has, those included that it is just about to get."""
    live = Connection.objects.exclude(state=State.ENDED).filter(host__in=hosts).order_by()
    return dict(live.values_list("host").annotate(count=Count("pk")))


def _region(attachments: Sequence[ServerHost], address: str) -> str:
    return ClientRegion.of(address) if any(each.host.region for each in attachments) else ""


def _occupied(account: Account, attempt: Attempt) -> frozenset[int]:
    mine = Connection.objects.filter(user=account.user, server=account.server, device_id=attempt.device_id)
    rows = mine.filter(state=State.OPEN).exclude(state=State.ENDED)  # said twice, for the index of live ones
    return frozenset(host for host in rows.values_list("host", flat=True) if host is not None)


# Hosts that did not confirm


def avoid(host: Host) -> None:
    """Have it come last for a while. Nobody is kept waiting for it again before its heartbeats stop."""
    if len(_unanswered) > 1000:
        _unanswered.clear()
    _unanswered[host.public_id] = clock.steady()


def is_avoided(host: Host) -> bool:
    since = _unanswered.get(host.public_id)
    return since is not None and clock.steady() - since < AVOIDED


def trust(host: Host) -> None:
    """It confirmed."""
    _unanswered.pop(host.public_id, None)
