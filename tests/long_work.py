"""Each kind of long work: the rows that it is work for, how it is asked for, and when it is done. Shared by what counts
its transactions, by what connects beside it, and by the benchmark.

All of it happens to a branch: an organization and a server of its own, on the same host as whoever connects beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.urls import reverse

from core import clock, task_names
from core.models import Job, JobState
from core.redis_store import redis_client
from core.task_queue import enqueue
from servers import networks
from servers.models import Address, Host, Server, ServerHost
from tests.factories import Company
from tests.protocol_client import new_wg_key
from users.models import Device, Group, Organization, RememberedPass, VpnUser, WrongAttempts
from wgpeers.lifecycle import clock_steps, liveness
from wgpeers.models import Connection, Decision, EndReason, ProfileLink, ProfileRevision, State


class Site(Protocol):
    """The admin site, as an administrator's browser sees it."""

    def post(self, path: str, data: dict[str, Any]) -> None:
        """Send a form, and follow where it leads."""

    def save(self, path: str, **changes: str) -> None:
        """Open the form of one row, and save it with ``changes``."""

    def upload(self, path: str, raw: bytes) -> str:
        """Send a file; where that leads."""


@dataclass(frozen=True, slots=True)
class Kind:
    """``prepare(branch, count)`` makes the rows; ``ask(site, branch)`` has the work begin; ``left(branch)`` is false
    once all is done (and no job is under way)."""

    name: str
    prepare: Callable[[Company, int], object]
    ask: Callable[[Site, Company], object]
    left: Callable[[Company], bool]

    def goes_on(self, branch: Company) -> bool:
        return Job.objects.filter(state=JobState.QUEUED).exists() or self.left(branch)


def branch_of(company: Company, number: int = 1) -> Company:
    """Another organization with a server in a /16, on the same host."""
    organization = Organization.objects.create(name=f"Branch {number}", ca_certificate="-")
    nets = (f"10.{2 * number + 98}.0.0/16", f"10.{2 * number + 99}.0.0/16")
    server = Server.objects.create(
        name=f"Branch {number}", network=nets[0], wg_network=nets[1], port=50000 + number, started=True
    )
    server.organizations.add(organization)
    ServerHost.objects.create(server=server, host=company.host, public_key=new_wg_key())
    return Company(organization, server, company.host)


# Rows


def people(branch: Company, count: int) -> list[VpnUser]:
    return VpnUser.objects.bulk_create(
        VpnUser(organization=branch.organization, name=f"person {number:05}", public_key="-", certificate="-")
        for number in range(count)
    )


def rows(branch: Company, user: VpnUser, count: int, first: int = networks.FIRST_HOST_PART, **fields: Any) -> Any:
    """Connections that were opened just now, of host parts from ``first`` on."""
    now = clock.moment(clock.now())
    values: dict[str, Any] = {
        "user": user,
        "user_name": user.name,
        "server": branch.server,
        "server_name": branch.server.name,
        "host": branch.host,
        "host_name": branch.host.name,
        "state": State.OPEN,
        "created": now,
        "opened": now,
    }
    return [
        Connection(
            host_part=part,
            address=networks.address(branch.server.wg_network, part),
            device_id=f"device {part}",
            wg_public_key=new_wg_key(),
            **values | fields,
        )
        for part in range(first, first + count)
    ]


def connected(branch: Company, count: int, deadline: float | None = None, **fields: Any) -> list[Connection]:
    """So many people, each with an address and a live connection that ends by silence at ``deadline``."""
    until = clock.now() + 3600 if deadline is None else deadline
    everybody = list(enumerate(people(branch, count), start=networks.FIRST_HOST_PART))
    Address.objects.bulk_create(Address(server=branch.server, host_part=part, user=user) for part, user in everybody)
    Server.objects.filter(pk=branch.server.pk).update(next_host_part=networks.FIRST_HOST_PART + count)
    live = Connection.objects.bulk_create(
        row for part, user in everybody for row in rows(branch, user, 1, part, **fields)
    )
    with redis_client().pipeline() as pipe:
        for row in live:
            pipe.zadd(liveness.DEADLINES, {row.public_id: until})
        pipe.execute()
    return list(live)


def history(branch: Company, count: int) -> None:
    """Connections of one person that have ended."""
    person, now = people(branch, 1)[0], clock.moment(clock.now())
    fields = {"state": State.ENDED, "ended": now, "end_reason": EndReason.SILENT}
    for first in range(0, count, 10_000):
        some = min(10_000, count - first)
        Connection.objects.bulk_create(rows(branch, person, some, networks.FIRST_HOST_PART, **fields))


def crowded_server(branch: Company, count: int) -> None:
    history(branch, 2 * count)
    VpnUser.objects.filter(organization=branch.organization).delete()
    live = connected(branch, count)
    ProfileRevision.objects.bulk_create(
        ProfileRevision(user=row.user, server=branch.server, sync_hash="-") for row in live
    )


def crowded_host(branch: Company, count: int) -> None:
    """A host of its own, with everybody on it."""
    host = Host.objects.create(name="spare", public_address="192.0.2.77")
    ServerHost.objects.create(server=branch.server, host=host, public_key=new_wg_key())
    connected(branch, count, host=host)


def equipped(branch: Company, count: int) -> None:
    """People with devices."""
    now = clock.moment(clock.now())
    Device.objects.bulk_create(
        Device(user=person, device_id=f"device {number}", first_seen=now, last_seen=now)
        for person in people(branch, count)
        for number in range(2)
    )


def one_with_much(branch: Company, count: int) -> None:
    person, now = people(branch, 1)[0], clock.moment(clock.now())
    Device.objects.bulk_create(
        Device(user=person, device_id=f"device {number}", first_seen=now, last_seen=now) for number in range(count)
    )
    _passes(person, count, now + timedelta(days=1))
    _links(person, count, now + timedelta(days=1))


def _passes(person: VpnUser, count: int, expires: Any) -> None:
    RememberedPass.objects.bulk_create(
        RememberedPass(user=person, scope="-", kind="grace", device_id=f"{expires} {number}", expires=expires)
        for number in range(count)
    )


def _links(person: VpnUser, count: int, expires: Any) -> None:
    ProfileLink.objects.bulk_create(
        ProfileLink(
            user=person,
            key_digest=f"{expires} {number}"[:64],
            short_digest=f"{expires} {number}"[:64],
            created=expires,
            expires=expires,
            short_expires=expires,
        )
        for number in range(count)
    )


def members(branch: Company, count: int) -> None:
    group = Group.objects.create(name="crowd")
    of_group = VpnUser.groups.through
    of_group.objects.bulk_create(of_group(vpnuser=person, group=group) for person in people(branch, count))


def busy_administrator(branch: Company, count: int) -> None:
    busy = User.objects.create(username="busy", is_staff=True)
    about = ContentType.objects.get_for_model(VpnUser)
    LogEntry.objects.bulk_create(
        LogEntry(user=busy, content_type=about, object_id="1", object_repr="-", action_flag=CHANGE)
        for _ in range(count)
    )


def many_servers(branch: Company, count: int) -> None:
    """Servers of no host, some of what ``count`` says."""
    Server.objects.bulk_create(
        Server(
            name=f"small {n}",
            network=f"172.16.{n % 256}.{8 * (n // 256)}/29",
            wg_network=f"172.17.{n % 256}.{8 * (n // 256)}/29",
            port=20_000 + n,
        )
        for n in range(min(count, 1000))
    )


def old_rows(branch: Company, count: int) -> None:
    person, now = people(branch, 1)[0], clock.moment(clock.now())
    _passes(person, count, now - timedelta(days=1))
    _links(person, count, now - timedelta(days=30))
    old = now - timedelta(days=4000)
    Decision.objects.bulk_create(
        Decision(time=old, user_name="-", server_name="-", layer="-", code="-") for _ in range(count)
    )
    Job.objects.bulk_create(
        Job(kind="-", title="-", state=JobState.DONE, created=old, ended=old) for _ in range(count // 4)
    )
    Device.objects.bulk_create(
        Device(user=person, device_id=f"device {number}", first_seen=now, last_seen=now) for number in range(count)
    )
    guessers = VpnUser.objects.bulk_create(
        VpnUser(organization=branch.organization, name=f"guesser {number:05}", certificate="-")
        for number in range(count)
    )
    WrongAttempts.objects.bulk_create(WrongAttempts(user=guesser, count=1, last=old) for guesser in guessers)


# What is asked


def page(row: Any, rest: str = "") -> str:
    """Of a row, or the list of a model."""
    return f"/admin/{row._meta.app_label}/{row._meta.model_name}/{f'{row.pk}/{rest}' if rest else ''}"


def everybody(action: str, rows: Any, query: str) -> Callable[[Site, Company], None]:
    """The action on all rows of a list that match ``query``, where ``{0}`` is an organization's and ``{1}`` a server's
    primary key. ``rows`` gives those of a branch: one of them is marked, as a browser does it."""

    def ask(site: Site, branch: Company) -> None:
        of_branch = rows(branch)
        data = {"action": action, "_selected_action": of_branch.first().pk, "select_across": "1", "post": "yes"}
        path = page(of_branch.model) + "?" + query.format(branch.organization.pk, branch.server.pk)
        site.post(path, data)

    return ask


def _people(branch: Company) -> Any:
    return VpnUser.objects.filter(organization=branch.organization.pk)


def _servers(branch: Company) -> Any:
    return Server.objects.filter(pk=branch.server.pk)


def _small_servers(branch: Company) -> Any:
    return Server.objects.filter(name__startswith="small")


def deletes(what: Callable[[Company], Any]) -> Callable[[Site, Company], None]:
    return lambda site, branch: site.post(page(what(branch), "delete/"), {"post": "yes"})


def import_people(count: int, *, begin: bool) -> Callable[[Site, Company], None]:
    """A file of so many new people is shown as what it would change, and imported (``begin``)."""

    def ask(site: Site, branch: Company) -> None:
        lines = [f"{branch.organization.name},new {n},new{n}@example.com,staff,yes" for n in range(count)]
        text = "\n".join(["organization,name,email,groups,enabled", *lines])
        Group.objects.get_or_create(name="staff")
        where = site.upload(reverse("admin:users_vpnuser_import_list"), text.encode())
        if begin:
            site.post(where, {})

    return ask


def report_removed(site: Site, branch: Company) -> None:
    """The host was cut off from us, and has removed whom it did not hear."""
    names = list(_live(branch).values_list("public_id", flat=True))
    report = {"kind": "removed", "reason": "silent", "time": clock.now(), "connections": names}
    redis_client().rpush(f"{branch.host.queue}:reports", json.dumps(report))
    enqueue(task_names.TAKE_REPORTS)


def set_clock(site: Site, branch: Company) -> None:
    """As if the clock had been set by a minute since the sweep before."""
    seen = {"ahead": clock.now() - clock.steady() - 60, "now": clock.now() - 61}
    redis_client().set(clock_steps._SEEN, json.dumps(seen))
    enqueue(task_names.SWEEP)


def queues(task: str) -> Callable[[Site, Company], None]:
    def ask(site: Site, branch: Company) -> None:
        enqueue(task)

    return ask


# What is left


def _live(branch: Company) -> Any:
    return Connection.objects.exclude(state=State.ENDED).filter(server=branch.server.pk)


def _any_live(branch: Company) -> bool:
    return bool(_live(branch).exists())


def _stays(what: Callable[[Company], Any]) -> Callable[[Company], bool]:
    return lambda branch: bool(what(branch) is not None)


def _organization(branch: Company) -> Any:
    return Organization.objects.filter(pk=branch.organization.pk).first()


def _host(branch: Company) -> Any:
    return Host.objects.filter(name="spare").first()


def _server(branch: Company) -> Any:
    return Server.objects.filter(pk=branch.server.pk).first()


def _person(branch: Company) -> Any:
    return VpnUser.objects.filter(organization=branch.organization.pk).first()


def _group(branch: Company) -> Any:
    return Group.objects.filter(name="crowd").first()


def _busy(branch: Company) -> Any:
    return User.objects.filter(username="busy").first()


def _no_draft(branch: Company) -> bool:
    return not Job.objects.filter(state=JobState.DRAFT).exists()


def _nothing(branch: Company) -> bool:
    return False


def _old(branch: Company) -> bool:
    return Decision.objects.filter(code="-").exists() or WrongAttempts.objects.filter(count=1).exists()


def _unmoved(branch: Company) -> bool:
    return bool(redis_client().get(clock_steps._LAST) is None)


def _enabled_are(enabled: bool) -> Callable[[Company], bool]:
    """Whether any is otherwise."""
    return lambda branch: VpnUser.objects.filter(organization=branch.organization, enabled=not enabled).exists()


def _disabled_people(branch: Company, count: int) -> None:
    people(branch, count)
    VpnUser.objects.filter(organization=branch.organization).update(enabled=False)


def kinds(count: int) -> list[Kind]:
    """For so many rows."""

    def past(seconds: float) -> Callable[[Company, int], object]:
        return lambda branch, many: connected(branch, many, clock.now() - seconds)

    def sessions(ends: float) -> Callable[[Company, int], object]:
        def prepare(branch: Company, many: int) -> None:
            now = clock.now()
            connected(branch, many, created=clock.moment(now - 3600), session_ends=clock.moment(now + ends))

        return prepare

    def pending(branch: Company, many: int) -> None:
        connected(branch, many, state=State.PENDING, created=clock.moment(clock.now() - 3600))

    def lacks_some(branch: Company) -> bool:
        return bool(_people(branch).filter(name__startswith="new").count() < count)

    of_branch = "organization__id__exact={0}"
    moved = {"network": "10.180.0.0/16", "wg_network": "10.181.0.0/16"}
    return [
        Kind("preview", lambda *_: None, import_people(count, begin=False), _no_draft),
        Kind("import", lambda *_: None, import_people(count, begin=True), lacks_some),
        Kind("enable", _disabled_people, everybody("enable_users", _people, of_branch), _enabled_are(True)),
        Kind("disable", connected, everybody("disable_users", _people, of_branch), _any_live),
        Kind("delete users", equipped, everybody("delete_selected", _people, of_branch), _stays(_person)),
        Kind("delete organization", equipped, deletes(_organization), _stays(_organization)),
        Kind("delete server", crowded_server, deletes(_server), _stays(_server)),
        Kind(
            "delete host", crowded_host, deletes(_host), lambda branch: _host(branch) is not None or _any_live(branch)
        ),
        Kind("delete user with much", one_with_much, deletes(_person), _stays(_person)),
        Kind("delete group", members, deletes(_group), _stays(_group)),
        Kind("delete administrator", busy_administrator, deletes(_busy), _stays(_busy)),
        Kind("disconnect", connected, everybody("disconnect_them", _live, "server__id__exact={1}"), _any_live),
        Kind("start servers", many_servers, everybody("start_servers", _small_servers, "q=small"), _nothing),
        Kind("stop servers", connected, everybody("stop_servers", _servers, "q=Branch"), _any_live),
        Kind(
            "organization off",
            connected,
            lambda site, branch: site.save(page(branch.organization, "change/"), enabled=""),
            _any_live,
        ),
        Kind(
            "another network",
            connected,
            lambda site, branch: site.save(page(branch.server, "change/"), **moved),
            _any_live,
        ),
        Kind("silent", past(60), queues(task_names.SWEEP), _any_live),
        Kind("sessions over", sessions(-60), queues(task_names.SWEEP), _any_live),
        Kind("unconfirmed", pending, queues(task_names.SWEEP), _any_live),
        Kind("clock set", sessions(7200), set_clock, _unmoved),
        Kind("report of removed", connected, report_removed, _any_live),
        Kind("prune", old_rows, queues(task_names.PRUNE), _old),
    ]
