"""The first page: who is connected, what is up, and what was decided, by a handful of indexed queries."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import redis
from django.conf import settings
from django.db import connection
from django.db.models import Count
from django.db.models.functions import TruncHour
from django.http import HttpRequest
from django.urls import reverse

from core import clock, disks, leases, nodes, web_certificate
from core.admin.page import GOOD, ago, span
from core.redis_store import RedisUnavailable, cannot_store, eviction_policy, redis_client
from servers.admin.pages import UNKNOWN, read_heartbeats, status_of
from servers.admin.reach import sight
from servers.models import Host, Server
from users.models import VpnUser
from wgpeers.lifecycle import clock_steps, sweeps
from wgpeers.lifecycle.codes import explain
from wgpeers.models import Connection, Decision, State

from .decisions import ENDINGS, verdict_of

HOURS = 24
# Of the bars and of the legend below them.
COLOURS = {"allowed": "var(--color-primary-500)", "refused": "#f59e0b"}
RECENT = 8
# In the place of the theme's own: whole numbers alone are counted.
_TICKS = {"color": "#9ca3af", "precision": 0}
CHART = {
    "animation": False,
    "responsive": True,
    "maintainAspectRatio": False,
    "plugins": {"legend": {"display": False}},
    "scales": {
        "x": {"stacked": True, "ticks": _TICKS | {"maxTicksLimit": 12}, "grid": {"display": False}},
        "y": {"stacked": True, "beginAtZero": True, "ticks": _TICKS, "border": {"display": False}},
    },
}


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add to the page what this administrator may look at."""
    now = clock.now()
    cards: list[dict[str, Any]] = []
    if _may_view(request, "wgpeers.connection"):
        cards.append(_connected())
    if _may_view(request, "servers.host"):
        hosts = _hosts()
        ways = context["mesh"] = sight()
        cards.append(_hosts_up(hosts, ways.cut))
        context["control_nodes"] = ", ".join(_control_nodes())
        context["hosts"] = [{"host": host, "status": status_of(host)} for host in hosts]
    if _may_view(request, "servers.server"):
        cards.append(_servers())
    if _may_view(request, "wgpeers.decision"):
        hours = _by_hour(now)
        cards.append(_refused(hours))
        context |= {"chart": _chart(hours), "chart_options": json.dumps(CHART), "legend": COLOURS}
        context["decisions"] = _recent(now)
    context["warnings"] = _warnings(now)
    context |= {"cards": cards, "title": "Dashboard"}
    return context


def _warnings(now: float) -> list[str]:
    """What is wrong with this machine, in words."""
    try:
        of_redis = [_clock_step(now), _late_sweeps(), _strange_clock(), _evicting_redis(), _refusing_redis()]
    except RedisUnavailable:
        of_redis = ["Redis cannot be reached: nobody can connect, and nobody is revoked for silence."]
    certificate = web_certificate.warning(settings.CERTIFICATE, clock.moment(now))
    return [*_failing_disks(), *(words for words in (*of_redis, certificate) if words)]


def _failing_disks() -> list[str]:
    """Of what the control side keeps on this machine."""
    paths = [settings.VAR, settings.VAR / "redis", settings.VAR / "log"]
    if connection.vendor == "sqlite":
        paths.insert(0, Path(connection.settings_dict["NAME"]).parent)
    return [
        f"{fault} What is kept on it takes nothing new: the database, Redis or logs. Clients that are connected stay; "
        "nobody else may be able to connect. All goes on by itself once it takes files again."
        for fault in disks.faults(paths)
    ]


def _refusing_redis() -> str:
    if not cannot_store():
        return ""
    return (
        "Redis cannot write to its disk: nobody can connect, and only hosts revoke for silence, by their own look. "
        "All goes on by itself once the disk takes files again."
    )


def _late_sweeps() -> str:
    late = sweeps.late()
    if late is None:
        return ""
    return (
        f"There has been no sweep for {span(late)}: nobody is revoked for silence, and nothing is repaired. "
        "Is the control worker or the beat hanging? Start bin/run anew."
    )


def _strange_clock() -> str:
    try:
        if nodes.agrees(redis_client()):
            return ""
    except redis.RedisError as error:
        raise RedisUnavailable from error
    return (
        f"The clock of {nodes.LABEL}, which shows you this page, differs from the other control nodes' by more than a "
        "minute: it revokes nobody. Have the clocks kept by chrony or systemd-timesyncd."
    )


def _control_nodes() -> list[str]:
    """In words, the one that beats first; empty where nobody can say."""
    try:
        store = redis_client()
        beats = leases.holder(leases.BEAT)
        names = [node.label for node in nodes.living(store)]
    except redis.RedisError:
        return []
    if beats is None:
        return names
    return [f"{beats.label} (beats)", *(name for name in names if name != beats.label)]


def _evicting_redis() -> str:
    policy = eviction_policy()
    if not policy:
        return ""
    return (
        f"Redis may throw away what the VPN needs: its maxmemory-policy is {policy}. Set it to noeviction, or give the "
        "VPN a Redis of its own."
    )


def _clock_step(now: float) -> str:
    """If this machine's clock was set within the last day."""
    step = clock_steps.last()
    if step is None:
        return ""
    way = "forward" if step.seconds > 0 else "back"
    return (
        f"This machine's clock was set {way} by {span(abs(step.seconds))}, {ago(max(0.0, now - step.time))}. "
        "Nobody was disconnected for it. Have the clock kept by chrony or systemd-timesyncd."
    )


def _may_view(request: HttpRequest, what: str) -> bool:
    app, model = what.split(".")
    return request.user.has_perm(f"{app}.view_{model}")


def _card(
    title: str, value: object, message: str, icon: str, page: str, query: str = "", bad: bool = False
) -> dict[str, Any]:
    link = reverse(f"admin:{page}_changelist") + query
    return {"title": title, "value": value, "message": message, "icon": icon, "link": link, "bad": bad}


def _connected() -> dict[str, Any]:
    live = Connection.objects.exclude(state=State.ENDED)
    counts = live.aggregate(all=Count("pk"), users=Count("user", distinct=True))
    people = VpnUser.objects.count()
    message = f"{counts['users']:,} of {people:,} user{'' if people == 1 else 's'}"
    return _card("Connected now", counts["all"], message, "lan", "wgpeers_connection")


def _hosts() -> list[Host]:
    hosts = list(Host.objects.all())
    read_heartbeats(hosts)
    return hosts


def _hosts_up(hosts: list[Host], cut: int) -> dict[str, Any]:
    """``cut``: how many ways between them are."""
    wanted = [host for host in hosts if host.enabled]
    up = sum(getattr(host, "beat", None) is not None for host in wanted)
    if any(getattr(host, "beat", None) is UNKNOWN for host in hosts):
        return _card("Hosts up", "?", "Redis is away", "dns", "servers_host", bad=True)
    silent = len(wanted) - up
    ways = f"{cut} way{'' if cut == 1 else 's'} between them cut" if cut else ""
    message = ", ".join(filter(None, (f"{silent} silent" if silent else "", ways)))
    message = message or ("all of them" if wanted else "none yet")
    return _card("Hosts up", f"{up} / {len(wanted)}", message, "dns", "servers_host", bad=bool(silent or cut))


def _servers() -> dict[str, Any]:
    """A server is running if clients can come to one of its hosts."""
    servers = list(Server.objects.prefetch_related("hosts"))
    read_heartbeats([host for server in servers for host in server.hosts.all()])
    found = Counter(_kind_of(server) for server in servers)
    without = f"{found['without']} without a host that is up" if found["without"] else ""
    stopped = f"{found['stopped']} stopped" if found["stopped"] else ""
    message = ", ".join(filter(None, (without, stopped))) or ("all of them" if servers else "none yet")
    value = f"{found['running']} / {len(servers)}"
    return _card("Servers running", value, message, "vpn_lock", "servers_server", bad=bool(without))


def _kind_of(server: Server) -> str:
    if not (server.started and server.wireguard):
        return "stopped"
    hosts = [host for host in server.hosts.all() if host.enabled]
    up = any(status_of(host)[0] == GOOD or getattr(host, "beat", None) is UNKNOWN for host in hosts)
    return "running" if up else "without"


def _by_hour(now: float) -> dict[datetime, dict[bool, int]]:
    """For each of the last hours, how many connects were allowed (True) and refused (False)."""
    first = (clock.moment(now) - timedelta(hours=HOURS - 1)).replace(minute=0, second=0, microsecond=0)
    hours = {first + timedelta(hours=number): {True: 0, False: 0} for number in range(HOURS)}
    recent = Decision.objects.filter(time__gte=first).exclude(code__in=ENDINGS).order_by()
    counted = recent.annotate(hour=TruncHour("time")).values_list("hour", "allowed").annotate(n=Count("pk"))
    for hour, allowed, count in counted:
        if hour in hours:  # not the one of a clock that runs ahead
            hours[hour][allowed] = count
    return hours


def _refused(hours: dict[datetime, dict[bool, int]]) -> dict[str, Any]:
    refused, allowed = (sum(counts[which] for counts in hours.values()) for which in (False, True))
    message = f"in {HOURS} hours; {allowed} allowed"
    return _card("Refused", refused, message, "gpp_bad", "wgpeers_decision", "?what=refused")


def _chart(hours: dict[datetime, dict[bool, int]]) -> str:
    """What unfold's bar chart takes."""
    common = {"maxBarThickness": 14, "borderRadius": 2, "stack": "connects"}
    return json.dumps(
        {
            "labels": [f"{hour:%H}:00" for hour in hours],
            "datasets": [
                {
                    "label": title,
                    "data": [counts[title == "allowed"] for counts in hours.values()],
                    "backgroundColor": colour,
                    **common,
                }
                for title, colour in COLOURS.items()
            ],
        }
    )


def _recent(now: float) -> list[dict[str, Any]]:
    return [
        {
            "decision": decision,
            "verdict": verdict_of(decision),
            "sentence": explain(decision.code, decision.detail),
            "ago": ago(now - decision.time.timestamp()),
        }
        for decision in Decision.objects.all()[:RECENT]
    ]
