"""A control side with its real database and Redis, three hosts that know what the real worker knows, and all that can
come between them: late, repeated and lost messages, hosts that die or hang, drains, administrators, time."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.redis_store import redis_client
from servers import services
from servers.hostnet.agent import decoding
from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.state import AddPeer, AddRemotes, HostState, RemovePeers, RemoveRemotes, to_json
from servers.models import ClientNetwork, Host, Server, ServerHost
from tests.connection_rows import queued
from tests.factories import found, revive, silence
from tests.protocol_client import new_wg_key
from users.authorize import Allowed
from users.factors.base import Attempt
from users.models import Organization
from wgpeers import tasks
from wgpeers.fleet import messages, remotes, reports
from wgpeers.lifecycle import accounts, choosing, draining, liveness, reaper
from wgpeers.lifecycle import connect as connecting
from wgpeers.models import Connection, SpentKey, State
from wgpeers.protocol.errors import Refusal, SealedRefusal

USERS, HOSTS, DEVICES = 4, 3, ("laptop", "phone")
SITE = "192.168.77.0/24"
# A user, their device, and the host that it asks for (the last number: for none).
WHO, DEVICE, TO = st.integers(0, USERS - 1), st.sampled_from(DEVICES), st.integers(0, HOSTS)
SECONDS = st.sampled_from((1, 60, 361))  # the last: longer than anybody may be silent


@dataclass
class Machine:
    """A host: its row, what its worker knows, and all that was ever sent to it. ``mute``: it takes nothing now."""

    row: Host
    desired: Desired
    boots: int = 1
    mute: bool = False
    mail: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def queue(self) -> str:
        return self.row.queue

    def collect(self) -> None:
        """Take what was sent since out of Redis; nothing is delivered by it."""
        while (text := redis_client().rpop(self.queue)) is not None:
            envelope = json.loads(str(text))
            (message,), _, _ = json.loads(base64.b64decode(envelope["body"]))
            self.mail.append((envelope["headers"]["task"], message))

    def deliver(self, number: int) -> str:
        """One message as the dispatcher takes it; what the host would answer to an addition."""
        message = decoding.read(*self.mail[number], self.row.public_id)
        match message:
            case HostState():
                self.desired.take_full(message, 0.0)
            case AddPeer():
                return self.desired.add(message, 0.0)
            case RemovePeers():
                self.desired.remove(message.connections, lingers=message.lingers)
            case AddRemotes():
                self.desired.add_remotes(message.remotes)
            case RemoveRemotes():
                self.desired.remotes.remove(message.connections)
        return ""

    def deliver_all(self, since: int) -> None:
        for number in range(since, len(self.mail)):
            self.deliver(number)


class Fleet(RuleBasedStateMachine):
    """``clock`` and ``patch`` are set by the test that runs it."""

    clock: Any
    patch: Callable[[Any, str, Any], None]
    desired_class: type[Desired] = Desired

    def __init__(self) -> None:
        super().__init__()
        _forget_everything()
        self.company = found()
        company = self.company
        self.machines = [self._add(company.host)]
        for number in range(1, HOSTS):
            row = Host.objects.create(name=f"gate-{number + 1}", public_address=f"192.0.2.{number + 1}")
            ServerHost.objects.create(server=company.server, host=row, public_key=new_wg_key())
            self.machines.append(self._add(row))
        self.users = [company.hire(f"user-{number}") for number in range(USERS)]
        for number, (user, _) in enumerate(self.users[:2], start=1):
            ClientNetwork.objects.create(server=company.server, user=user, network=SITE, priority=number)
        self.allowed: dict[str, str] = {}  # keys that were allowed, and the connection
        self.offered: list[tuple[int, str, str]] = []  # user, device, key
        liveness.refill([])
        type(self).patch(messages, "add_and_wait", self._add_and_wait)
        queued()  # by each row that was made
        self.all_is_quiet()

    @initialize(them=st.lists(st.tuples(WHO, DEVICE, TO), min_size=1, max_size=USERS))
    def some_are_connected(self, them: list[tuple[int, str, int]]) -> None:
        """And every host knows of them: in an empty fleet little can go wrong."""
        for who, device, to in them:
            self.connect(who, device, to)
        self.control_works()
        for machine in self.machines:
            machine.collect()
            machine.deliver_all(0)

    def _add(self, row: Host) -> Machine:
        revive(row)
        return Machine(row, self._worker(1))

    def _worker(self, boots: int) -> Desired:
        return self.desired_class(f"boot{boots}", steady=lambda: self.clock.steady)

    @property
    def now(self) -> float:
        return float(self.clock.now)

    def _machine(self, host: Host) -> Machine:
        return next(each for each in self.machines if each.row.pk == host.pk)

    def _add_and_wait(self, host: Host, message: AddPeer) -> bool:
        """The real message, decoded by the host, without waiting for it in real time."""
        machine = self._machine(host)
        machine.collect()
        machine.mail.append(("hostnet.add_peer", json.loads(json.dumps(to_json(message)))))
        return not machine.mute and machine.deliver(len(machine.mail) - 1) == ""

    # Clients

    @rule(who=WHO, device=DEVICE, to=TO)
    def connect(self, who: int, device: str, to: int) -> None:
        self._connect(who, device, new_wg_key(), to)

    @precondition(lambda self: self.offered)
    @rule(which=st.integers(0, 99), to=TO)
    def offer_a_key_again(self, which: int, to: int) -> None:
        self._connect(*self.offered[which % len(self.offered)], to)

    def _connect(self, who: int, device: str, key: str, to: int) -> None:
        identity = self.users[who][1]
        account = accounts.find(identity.organization, identity.user, identity.server)
        assert account is not None
        attempt = Attempt(device, device, "linux", key, "198.51.100.7", "", "")
        asked = self.machines[to].row.public_address if to < HOSTS else ""
        self.offered.append((who, device, key))
        with contextlib.suppress(Refusal, SealedRefusal):
            answer = connecting.connect(account, attempt, Allowed((("test", "ok"),)), self.now, asked)
            row = Connection.objects.get(wg_public_key=key, state=State.OPEN)
            assert answer["address"].startswith(f"{row.address}/")
            # A lost answer is given again; nothing else ever comes of a key that was allowed.
            assert self.allowed.setdefault(key, row.public_id) == row.public_id, "a spent key was accepted"

    @rule(which=st.integers(0, 9))
    def ping(self, which: int) -> None:
        rows = list(Connection.objects.filter(state=State.OPEN).order_by("pk"))
        if rows:
            row = rows[which % len(rows)]
            timeout = self.company.server.ping_timeout
            liveness.write([liveness.Ping(row.public_id, self.now + timeout, int(self.now), sure=True)])

    # Administrators, time

    @rule(which=st.integers(0, 9))
    def disconnect(self, which: int) -> None:
        rows = list(Connection.objects.select_related("server").exclude(state=State.ENDED).order_by("pk"))
        if rows:
            connecting.disconnect(rows[which % len(rows)], self.now)

    @rule(which=st.integers(0, HOSTS - 1), draining_now=st.booleans())
    def drain_or_not(self, which: int, draining_now: bool) -> None:
        host = Host.objects.get(pk=self.machines[which].row.pk)
        (services.drain if draining_now else services.take_clients)(host)

    @rule()
    def drain_step(self) -> None:
        draining.step(self.now)

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(after=SECONDS)
    def sweep(self, after: int) -> None:
        self.clock.advance(after)
        self._sweep()

    def _sweep(self) -> None:
        reaper.sweep(self.now)
        for row in Connection.objects.exclude(state=State.ENDED):
            until = liveness.deadline(row.public_id)
            assert until is not None
            assert until > self.now, "one lives past its deadline"

    # Hosts and messages

    @rule(which=st.integers(0, HOSTS - 1), hangs=st.booleans())
    def host_dies(self, which: int, hangs: bool) -> None:
        """Or hangs: its heartbeats go on, and nothing is taken."""
        self.machines[which].mute = True
        if not hangs:
            silence(self.machines[which].row)

    @rule(which=st.integers(0, HOSTS - 1), anew=st.booleans())
    def host_is_back(self, which: int, anew: bool) -> None:
        machine = self.machines[which]
        machine.mute = False
        revive(machine.row)
        choosing.trust(machine.row)
        if anew:
            machine.boots += 1
            machine.desired = self._worker(machine.boots)

    @rule(which=st.integers(0, HOSTS - 1))
    def host_joins_or_leaves(self, which: int) -> None:
        """The server: one of its hosts stays always."""
        server, row = self.company.server, self.machines[which].row
        mine = ServerHost.objects.filter(server=server, host=row).first()
        if mine is None:
            ServerHost.objects.create(server=server, host=row, public_key=new_wg_key())
        elif server.attachments.count() > 1:
            mine.delete()

    @rule(which=st.integers(0, HOSTS - 1), back=st.integers(0, 9))
    def a_message_comes(self, which: int, back: int) -> None:
        """One of the last ones, for the first time or again; others may come later, or never."""
        machine = self.machines[which]
        machine.collect()
        if machine.mail and not machine.mute:
            machine.deliver(len(machine.mail) - 1 - back % min(10, len(machine.mail)))

    @rule(really=st.sampled_from((True, False)))
    def control_works(self, really: bool = True) -> None:
        """Or its messages are lost. What was asked for more than once is done once, when it was asked for last: done
        at once again it would say the same, and take most of the time here."""
        waiting = [(task, tuple(arguments)) for task, arguments in queued()]
        for task, arguments in reversed(dict.fromkeys(reversed(waiting))) if really else ():
            TASKS[task](*arguments)

    # What must hold

    @invariant()
    def an_address_has_one_owner(self) -> None:
        live = list(Connection.objects.exclude(state=State.ENDED).values_list("server", "host_part"))
        assert len(set(live)) == len(live)
        for machine in self.machines:
            here = [ip for held in machine.desired.held() for ip in held.peer.routed]
            elsewhere = [ip for remote in machine.desired.remotes.all() for ip in remote.routed]
            own = {ip for ip in here if ip != SITE}
            assert len(own) == sum(ip != SITE for ip in here)
            assert len(set(elsewhere)) == len(elsewhere)
            assert not own & set(elsewhere)

    @invariant()
    def a_key_that_was_allowed_stays_spent(self) -> None:
        spent = set(
            SpentKey.objects.filter(connection__public_id__in=self.allowed.values()).values_list(
                "connection__public_id", flat=True
            )
        )
        assert spent == set(self.allowed.values())

    @rule()
    def all_is_quiet(self) -> None:
        """Who was silent for too long is ended; hosts that live say hello and get a full state: then each knows what
        the database says."""
        self._sweep()
        reaper.sweep_pending(self.now + 1000)
        for machine in self.machines:
            if not machine.mute:
                reports.take_report(
                    Host.objects.get(pk=machine.row.pk), {"kind": "hello", "boot": machine.desired.boot}, self.now
                )
        self.control_works()
        for machine in self.machines:
            if machine.mute:
                continue
            machine.collect()
            before = len(machine.mail)
            tasks.converge(machine.row.pk)
            machine.collect()
            machine.deliver_all(before)
            self._is_as_the_database_says(machine)

    def _is_as_the_database_says(self, machine: Machine) -> None:
        live = Connection.objects.exclude(state=State.ENDED).select_related("host", "server")
        mine = {row.public_id: row.wg_public_key for row in live if row.host_id == machine.row.pk}
        assert {held.peer.connection: held.peer.public_key for held in machine.desired.held()} == mine
        carries = self.company.server.attachments.filter(host=machine.row).exists()
        rows = [row for row in live if carries and row.host_id != machine.row.pk and row.state == State.OPEN]
        expected = remotes.of_connections(self.company.server, rows)
        assert sorted(machine.desired.remotes.all(), key=lambda each: each.number) == sorted(
            expected, key=lambda each: each.number
        )

    def teardown(self) -> None:
        for machine in self.machines:
            machine.mute = False
            revive(machine.row)
        self.all_is_quiet()


TASKS: dict[str, Callable[..., None]] = {
    "wgpeers.converge": tasks.converge,
    "wgpeers.spread_remotes": tasks.spread_remotes,
    "wgpeers.enforce": tasks.enforce,
}


def _forget_everything() -> None:
    redis_client().flushall()
    Connection.objects.all().delete()
    for model in (SpentKey, Host, Organization, Server):
        model._default_manager.all().delete()
    redis_client().flushall()
