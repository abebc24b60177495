"""A fleet: 3 hosts and as many simulated clients as the machine can drive, of which a third connect anew at once when
their host has died. The time until all of them are back, against what the rate of connects alone makes of it.

Front, web, gateway web, control worker, beat and Redis are those of bin/run. The hosts are ``bench.fleet_host``: the
worker, with interfaces in memory. The clients (``bench.fleet_clients``, ``fleet_pings``) are what they say to the
server: no packet of theirs goes through a tunnel.
"""

from __future__ import annotations

import dataclasses
import random
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from bench import processors
from bench.figures import Figure
from bench.fleet_clients import INTERVAL, Client, Connecting, Ready
from bench.fleet_pings import Pinging
from bench.fleet_rounds import Phase, Round, costs, figure
from bench.installation import Installation, say
from bench.load import WrongAnswer
from bench.people import allot, found_company, hire, prepare
from servers import heartbeats
from servers.hostnet.state.redis_urls import own_socket
from servers.models import Host, ServerHost
from tests.factories import Company
from tests.lab import until
from tests.protocol_client import new_wg_key
from vpnproject.runner import files, programs, redis_login
from wgpeers.fleet import desired, messages
from wgpeers.models import Connection, State

CLIENTS, HOSTS, ROUNDS = 3000, 3, 3
AT_ONCE = 60  # connects under way where their rate is measured
ALONE = 2 * INTERVAL  # seconds of pings before a host dies
PINGS = 4  # signed for each client and connection in a round; who needs more sends the last one again
WITHIN = 120.0  # seconds after which something hangs


def measure(directory: Path, clients: int = CLIENTS) -> Iterator[Figure]:
    fleet = Fleet(Installation(directory), clients)
    fleet.connect_all()
    rounds, count = [], ROUNDS if clients >= CLIENTS else 1
    for number in range(count):
        rounds.append(fleet.storm(number))
        say(f"fleet: round {number + 1} of {count}: {rounds[-1].words()}")
    fleet.must_be_right()
    for line in costs(rounds):
        say(f"fleet: {line}")
    yield figure(clients, rounds)


class Fleet:
    """Everything runs; nobody is connected yet."""

    def __init__(self, here: Installation, count: int) -> None:
        self._here = here
        here.start_redis()
        here.make_database()
        self._company = found_company()
        self.hosts = _hosts(self._company)
        for host in self.hosts:
            (self._var(host) / "host").mkdir(parents=True)
            files.write_private(self._var(host) / redis_login.HOST_PASSWORD, secrets.token_urlsafe(32).encode())
            here.admit(host, self._var(host))
            self._start(host)
        for name in ("control", "beat"):
            here.start(here.program(name))
        self._gateway, self._web = here.start_gateway(), here.start_web()
        for host in self.hosts:
            self._wait_for(host)
        people = hire(self._company, count)
        allot(self._company, people)
        self._clients = [Client(number, person) for number, person in enumerate(people)]

    def connect_all(self) -> None:
        say(f"fleet: {len(self._clients)} clients connect to {HOSTS} hosts")
        phase = self._connect(self._clients)
        say(f"fleet: {phase.rate:.0f} connects/s, {phase.ms:.1f} ms of processor each")

    def storm(self, number: int) -> Round:
        """One host dies, in turn."""
        connects = self._connect(random.sample(self._clients, max(1, len(self._clients) // 6)))
        dying, victims = self._dying(number)
        self._sign_storm(victims)
        connecting, pinging = Connecting(self._web, victims), Pinging(self._gateway)
        for client in self._clients:
            pinging.add(client, random.uniform(0, INTERVAL))
        first = self._processor()
        time.sleep(ALONE)
        died, second = time.monotonic(), self._processor()
        self._here.running[_program(dying)].kill()
        pinging.drop(victims)
        back = self._all_back(connecting, pinging)
        third = self._processor()
        until(lambda: pinging.heard(self._clients, back), WITHIN, every=1.0)  # seldom: the thread that pings computes
        pinging.stop()
        _must_have_counted(pinging)
        self._start(dying)
        self._wait_for(dying)
        alone = [ping.seconds for ping in pinging.pings if ping.at < died]
        return Round(
            connects,
            Phase(ALONE, len(alone), _less(second, first)),
            Phase(back - died, len(victims), _less(third, second)),
            alone,
            [ping.seconds for ping in pinging.pings if died <= ping.at < back],
            connecting.told,
            pinging.processor,
        )

    def must_be_right(self) -> None:
        """Every client's connection is open, and each host has nothing to do to be as the database says."""
        opened = Connection.objects.filter(state=State.OPEN).values_list("wg_public_key", flat=True)
        if sorted(opened) != sorted(client.key for client in self._clients):
            raise WrongAnswer(f"{len(opened)} connections are open, of {len(self._clients)} clients")
        for host in self.hosts:
            until(partial(self._is_as_it_should_be, host), WITHIN, every=1.0)

    def _is_as_it_should_be(self, host: Host) -> bool:
        state, alive = desired.state_of(host.pk), heartbeats.read([host])[host.pk]
        assert state is not None
        return not messages.ask_plan(host, dataclasses.replace(state, boot=alive["boot"]), WITHIN)

    def _connect(self, clients: Sequence[Client]) -> Phase:
        """As fast as they are answered, and nothing beside."""
        self._sign_asks(clients)
        connecting, before, began = Connecting(self._web, clients, AT_ONCE), self._processor(), time.monotonic()
        last = max(back.at for back in connecting.go())
        phase = Phase(last - began, len(clients), _less(self._processor(), before))
        for client in clients:
            client.connected()
        return phase

    def _all_back(self, connecting: Connecting, pinging: Pinging) -> float:
        """Each pings as soon as it is connected. When the last one was."""
        last = 0.0
        for back in connecting.go():
            client, last = self._clients[back.number], back.at
            client.connected()
            pinging.add(client)
        return last

    def _sign_asks(self, clients: Sequence[Client]) -> None:
        for client in clients:
            client.next_key = new_wg_key()
        wanted = [(client.identity, {"wg_public_key": client.next_key}) for client in clients]
        for client, request in zip(clients, prepare("POST", wanted, int(time.time())), strict=True):
            client.ask = request

    def _sign_storm(self, victims: Sequence[Client]) -> None:
        """Pings of each client; of the victims also those of their next connection."""
        self._sign_asks(victims)
        now, wanted = int(time.time()), []
        for client in self._clients:
            for number in range(PINGS):
                wanted += [
                    (client.identity, {"wg_public_key": key, "timestamp": now + number})
                    for key in filter(None, (client.key, client.next_key))
                ]
        say(f"fleet: signing {len(wanted)} pings and {len(victims)} connects")
        requests = map(Ready.of, prepare("PUT", wanted, now))
        for client in self._clients:
            client.pings, client.next_pings = [], []
            for _ in range(PINGS):
                client.pings.append(next(requests))
                if client.next_key:
                    client.next_pings.append(next(requests))

    def _dying(self, number: int) -> tuple[Host, list[Client]]:
        """Whose turn it is, and its clients. A host that was late to say that it lives may have got none of a few."""
        in_turn = self.hosts[number % HOSTS :] + self.hosts[: number % HOSTS]
        return next((host, mine) for host in in_turn if (mine := self._clients_of(host)))

    def _clients_of(self, host: Host) -> list[Client]:
        keys = set(Connection.objects.filter(host=host, state=State.OPEN).values_list("wg_public_key", flat=True))
        return [client for client in self._clients if client.key in keys]

    def _var(self, host: Host) -> Path:
        return self._here.site.var / "hosts" / host.public_id

    def _start(self, host: Host) -> None:
        site = dataclasses.replace(self._here.site, host_id=host.public_id, host_side=self._var(host))
        environment = {
            **programs.host_environment(site),
            "HOST_REDIS_URL": f"unix://{host.queue}@{own_socket(site.var)}",
        }
        command = (str(site.python), "-m", "bench.fleet_host")
        self._here.start(programs.Program(_program(host), command, environment))

    def _wait_for(self, host: Host) -> None:
        """Until it takes clients in this run of its."""
        process = self._here.running[_program(host)]

        def is_there() -> bool:
            if process.poll() is not None:
                raise WrongAnswer(f"{host.name} ended")
            beat = heartbeats.read([host]).get(host.pk, {})
            row = Host.objects.get(pk=host.pk)
            return beat.get("boot", "") == row.boot and beat.get("version", 0) > 0 and bool(heartbeats.fresh([host]))

        until(is_there, WITHIN)

    def _processor(self) -> dict[str, float]:
        return processors.seconds_by_program({name: each.pid for name, each in self._here.running.items()})


def _hosts(company: Company) -> list[Host]:
    hosts = [company.host]
    for number in range(2, HOSTS + 1):
        hosts.append(Host.objects.create(name=f"bench-{number}", public_address=f"192.0.2.{number}"))
        ServerHost.objects.create(server=company.server, host=hosts[-1], public_key=new_wg_key())
    return hosts


def _program(host: Host) -> str:
    return f"host {host.name}"


def _less(now: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {name: seconds - before.get(name, 0.0) for name, seconds in now.items()}


def _must_have_counted(pinging: Pinging) -> None:
    """Nobody gave up, and no answer said that a connection is gone."""
    wrong = [ping for ping in pinging.pings if ping.answer.status == 200 and not ping.counted()]
    if pinging.lost or wrong:
        raise WrongAnswer(f"{len(pinging.lost)} clients gave up pinging; {len(wrong)} were told that they are gone")
