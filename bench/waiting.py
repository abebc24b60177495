"""Pings and other users' connects while 100 connects wait for a push: each of another user who is asked on their phone
and does not answer, by a stand-in of Duo's service. Those who wait come from as many addresses."""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from bench.figures import Figure, spread
from bench.installation import Installation, say
from bench.load import Run, Target, WrongAnswer, drive
from bench.people import found_company, hire, open_connections, seem_alive, sign
from core.crypto import Secret
from tests.counterpart import Said, serving
from tests.factories import HostStandIn
from tests.lab import until
from tests.protocol_client import Identity, new_wg_key
from tests.users.factors.duo_service import IKEY, SKEY, DuoService, ok
from users.models import FactorOverride, Provider, VpnUser

PEOPLE = 100
ROUNDS = 3
PINGS, CONNECTS = 600, 150  # in one run
AT_ONCE = 4  # under way at any time
WAITING, WARM_UP = 100, 20
WAITERS = WARM_UP + ROUNDS * WAITING


def measure(directory: Path) -> Iterator[Figure]:
    here = Installation(directory)
    here.start_redis()
    here.make_database()
    now = int(time.time())
    company = found_company()
    people = hire(company, PEOPLE + 2 * ROUNDS * CONNECTS + WAITERS)
    keys = open_connections(company, people[:PEOPLE], now)
    _ask_for_push(people[-WAITERS:])
    say("waiting: signing")
    pinging = [
        (person, {"wg_public_key": key, "timestamp": now - 100 + number})
        for number in range(2 * ROUNDS * PINGS // PEOPLE)
        for person, key in zip(people[:PEOPLE], keys, strict=True)
    ]
    pings = iter(sign("PUT", pinging, now))
    posts = sign("POST", [(person, {"wg_public_key": new_wg_key()}) for person in people[PEOPLE:]], now)
    connects, waiters = iter(posts[:-WAITERS]), iter(posts[-WAITERS:])
    seem_alive(company.host)
    phones = Phones()
    with serving(phones.service) as duo, HostStandIn(company.host).running():
        secrets = Secret.of(json.dumps({"secret_key": SKEY}))
        says = {"address": duo.url, "integration_key": IKEY, "username": "name"}
        Provider.objects.create(kind="duo", name="Duo", settings=says, secrets=secrets)
        gateway, web = (
            here.start_gateway(),
            here.start_web(CONFIRM_TIMEOUT="60", PENDING_TIMEOUT="600", CONNECT_PATIENCE="60"),
        )
        yield from _rounds(gateway, web, phones, pings, connects, waiters)


class Phones:
    """On which everybody is asked, and nobody answers until they are ``hung_up``: then all say no."""

    def __init__(self) -> None:
        self.service = DuoService(time.time(), auth=self._wait)
        self.hung_up = threading.Event()

    def _wait(self, sent: dict[str, str]) -> Said:
        self.hung_up.wait()
        return ok(result="deny", status="deny", status_msg="Login request denied.")

    def ringing(self) -> int:
        return sum(path == "/auth/v2/auth" for path, _ in self.service.asked)


def _ask_for_push(people: Sequence[Identity]) -> None:
    users = VpnUser.objects.filter(public_id__in=[person.user for person in people])
    FactorOverride.objects.bulk_create(FactorOverride(user=user, kind="duo", state="required") for user in users)


def _rounds(
    gateway: Target,
    web: Target,
    phones: Phones,
    pings: Iterator[bytes],
    connects: Iterator[bytes],
    waiters: Iterator[bytes],
) -> Iterator[Figure]:
    """Each without who waits, then with them."""
    pinged: dict[str, list[Run]] = {"alone": [], "beside": []}
    connected: dict[str, list[Run]] = {"alone": [], "beside": []}

    def run(when: str) -> None:
        pinged[when].append(drive(gateway, list(islice(pings, PINGS)), AT_ONCE))
        connected[when].append(drive(web, list(islice(connects, CONNECTS)), AT_ONCE))
        words = f"pings' p99 {_late(pinged[when][-1]):.1f} ms, {connected[when][-1].rate:.0f} connects/s {when}"
        say(f"waiting: round {len(pinged[when])} of {ROUNDS}: {words}")

    with _waiting(web, phones, list(islice(waiters, WARM_UP))):
        pass
    for _ in range(ROUNDS):
        run("alone")
        with _waiting(web, phones, list(islice(waiters, WAITING))):
            run("beside")
    late = {when: [_late(each) for each in runs] for when, runs in pinged.items()}
    rate = {when: [each.rate for each in runs] for when, runs in connected.items()}
    note = f"p99 ms {spread(late['beside'])} with {WAITING} waiting, {spread(late['alone'])} without"
    yield Figure("ping_p99_with_waiting_factors", _ratio(late), "ratio", 2.0, at_most=True, note=note)
    note = f"connects/s {spread(rate['beside'])} with {WAITING} waiting, {spread(rate['alone'])} without"
    yield Figure("connect_rate_with_waiting_factors", _ratio(rate), "ratio", 0.5, at_most=False, note=note)


def _ratio(values: Mapping[str, Sequence[float]]) -> float:
    """Of neighbours in time, the median."""
    return statistics.median(x / y for x, y in zip(values["beside"], values["alone"], strict=True))


@contextmanager
def _waiting(web: Target, phones: Phones, requests: Sequence[bytes]) -> Iterator[None]:
    """All of ``requests`` wait for their phones; in the end all are refused."""
    phones.hung_up.clear()
    phones.service.asked.clear()
    phones.service.now = time.time()
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda n=n, request=request: answers.append(_exchange(web, n, request)), daemon=True)
        for n, request in enumerate(requests)
    ]
    for thread in threads:
        thread.start()
    until(lambda: answers or phones.ringing() == len(requests), timeout=60)
    yield
    if answers:
        raise WrongAnswer(f"{len(answers)} connects did not wait, for example {answers[0][-200:]!r}")
    phones.hung_up.set()
    for thread in threads:
        thread.join()
    if not all(answer.startswith(b"HTTP/1.1 200") for answer in answers):
        raise WrongAnswer("a connect that waited was not answered")


def _exchange(web: Target, number: int, request: bytes) -> bytes:
    """From an address of its own: the front counts by address."""
    assert web.tls is not None
    with (
        socket.create_connection(("127.0.0.1", web.port), 120, (f"127.0.1.{number + 1}", 0)) as plain,
        web.tls.wrap_socket(plain, suppress_ragged_eofs=True) as secure,
    ):
        secure.sendall(request)
        return b"".join(iter(lambda: secure.recv(65536), b""))


def _late(run: Run) -> float:
    return 1000 * run.percentile(99)
