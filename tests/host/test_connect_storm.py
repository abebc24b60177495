"""Everybody connects at once: each is connected or told when to come again, and pings are answered meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.conf import LazySettings
from django.db import transaction

from core.redis_store import redis_client
from servers.models import Server
from tests.conftest import send_celery_to
from tests.factories import HostStandIn, found
from tests.host.test_front import Site, asked, is_good
from tests.lab import Lab, RedisServer
from tests.processes import environment
from tests.protocol_client import make_request, new_wg_key, plaintext
from tests.stack import Stack
from wgpeers.models import Connection, State

pytestmark = [pytest.mark.host, pytest.mark.django_db(transaction=True)]

CLIENTS, SOURCES = 300, 10
PATIENCE = 1  # seconds
HELD = 3 * PATIENCE  # for so long nobody's connection can be written, so that some wait too long on any machine


@pytest.fixture
def site(transactional_db: None, settings: LazySettings) -> Iterator[Site]:
    with Lab() as lab, RedisServer() as server:
        settings.REDIS_URL = server.url
        send_celery_to(server.url)
        machine = lab.add_host()
        company = found()
        Server.objects.update(network="10.8.0.0/16", wg_network="10.9.0.0/16")  # with room for all of them
        for key in ("alive", "fresh"):
            redis_client().persist(f"{company.host.queue}:{key}")
        impatient = {**environment(), "CONNECT_PATIENCE": str(PATIENCE)}
        with Stack(machine, server, impatient) as stack, HostStandIn(company.host).running():
            try:
                yield Site(lab, machine, stack, company)
            except BaseException:
                print(stack.log())
                raise


def test_all_are_answered_those_who_waited_too_long_with_when_to_come_again(site: Site) -> None:
    _, here = site.company.hire("here")
    mine = new_wg_key()
    assert is_good(site.connect(here, mine))
    people = [site.company.hire(f"user-{number}")[1] for number in range(CLIENTS)]
    keys = [new_wg_key() for _ in people]
    now = int(time.time())
    requests = [
        make_request(person, plaintext(wg_public_key=key, timestamp=now), now=now)
        for person, key in zip(people, keys, strict=True)
    ]

    def send(number: int) -> bytes:
        return asked(site.secure(source=f"127.0.9.{number % SOURCES + 1}"), requests[number].wire())

    over = threading.Event()
    pings: list[bytes] = []

    def ping_all_the_time() -> None:
        while not over.is_set():
            pings.append(site.ping(here, mine))

    pinging = threading.Thread(target=ping_all_the_time)
    pinging.start()
    with ThreadPoolExecutor(CLIENTS) as pool:
        with transaction.atomic():
            Server.objects.update(name="busy")  # now the one write lock is ours
            answering = pool.map(send, range(CLIENTS))
            threading.Event().wait(HELD)
        answers = list(answering)
    over.set()
    pinging.join()
    said = Counter(answer.partition(b"\r\n")[0] for answer in answers)
    assert set(said) == {b"HTTP/1.1 200 OK", b"HTTP/1.1 503 Service Unavailable"}, said
    late = [number for number, answer in enumerate(answers) if not is_good(answer)]
    for number in late:
        head, _, body = answers[number].partition(b"\r\n\r\n")
        assert json.loads(body)["error"] == "busy"
        assert b"retry-after: " in head.lower()
    assert len(pings) > 10
    assert all(map(is_good, pings))
    # Nobody is connected who was told to come again, and each may, with the very same request.
    assert Connection.objects.filter(state=State.OPEN).count() == 1 + CLIENTS - len(late)
    for number in late[:5]:
        assert is_good(send(number))
