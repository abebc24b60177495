"""WireGuard keys: which are none, when one is spent, and when an answer is given again."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection as database
from django.test import override_settings

from core.redis_store import redis_client
from servers.hostnet.state import AddPeer
from servers.models import Host, Server, ServerHost
from tests.attack import at_server, connect, pinged, second_server, unchanged
from tests.conftest import Clock
from tests.factories import Company, HostStandIn, add_host, silence
from tests.lab import HANGING, NEVER, until
from tests.protocol_client import Identity, b64, make_request, new_wg_key, open_answer, plaintext
from users.models import Device
from wgpeers.fleet import messages
from wgpeers.lifecycle import connect as connecting
from wgpeers.lifecycle import liveness
from wgpeers.models import Connection, EndReason, SpentKey, State


@pytest.fixture
def alice(company: Company) -> Identity:
    return company.hire("alice")[1]


def offer(identity: Identity, key: str, **fields: Any) -> Any:
    return make_request(identity, plaintext(wg_public_key=key, **fields)).send()


def refused(response: Any, status: int, code: str) -> None:
    assert (response.status_code, response.json()["error"]) == (status, code)


PRIME = 2**255 - 19
LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    PRIME - 1,
]
USABLE = 2**200 + 12345


NO_KEYS = [
    *[(number.to_bytes(32, "little"), "invalid_key") for number in LOW_ORDER],
    *[((PRIME + number).to_bytes(32, "little"), "invalid_key") for number in (0, 1, 2, 18)],
    ((USABLE | 1 << 255).to_bytes(32, "little"), "invalid_key"),  # the same point as without its highest bit
    (b"\xff" * 32, "invalid_key"),
    (b"k" * 31, "invalid_key"),
    (b"k" * 33, "invalid_key"),
    (b"k", "invalid_key"),
    (b"", "malformed"),  # empty text: the field is missing
    (b"k" * 48, "invalid_key"),
    (b"k" * 64, "malformed"),  # more text than the field may have
]


def test_a_key_that_cannot_be_one(alice: Identity, host: HostStandIn) -> None:
    for raw, code in NO_KEYS:
        with unchanged(host):
            refused(offer(alice, b64(raw)), 400, code)


def test_another_spelling_of_a_key(alice: Identity, host: HostStandIn) -> None:
    """Text that decodes to the same 32 bytes would be a second life for a spent key."""
    key = b64(USABLE.to_bytes(32, "little"))
    loose = key[:-2] + chr(ord(key[-2]) + 1) + "="  # the last two bits of the text stand for nothing
    for spelling in (key[:-1], key + "=", key + " ", " " + key, key.replace("+", "-"), loose, key[:-1] + "A"):
        if spelling != key:
            with unchanged(host):
                refused(offer(alice, spelling), 400, "invalid_key")
    assert offer(alice, key).status_code == 200


def test_the_servers_own_key(company: Company, alice: Identity, host: HostStandIn) -> None:
    with unchanged(host):
        refused(offer(alice, ServerHost.objects.get().public_key), 400, "invalid_key")


def test_a_key_is_spent_for_everybody_and_for_ever(company: Company, alice: Identity, host: HostStandIn) -> None:
    key = new_wg_key()
    connect(alice, wg_public_key=key)
    _, bob = company.hire("bob")
    there = at_server(alice, second_server(company))
    with unchanged(host):
        refused(offer(bob, key), 409, "key_spent")
        refused(offer(alice, key, device_id="another"), 409, "key_spent")
        refused(offer(there, key), 409, "key_spent")
    connecting.disconnect(Connection.objects.get(), 1.0)
    for identity in (alice, bob, there):
        refused(offer(identity, key), 409, "key_spent")
    Connection.objects.all().delete()  # whatever becomes of the history
    refused(offer(alice, key), 409, "key_spent")


def test_a_lost_answer_is_given_again(alice: Identity, host: HostStandIn) -> None:
    key = new_wg_key()
    _, first = connect(alice, wg_public_key=key)
    with unchanged(host):
        _, again = connect(alice, wg_public_key=key)
    assert again == first
    assert again["configuration"]["address"] == "10.9.0.2/24"
    assert Connection.objects.count() == 1
    assert len(host.of("hostnet.add_peer")) == 1


def test_no_answer_is_given_again_after_a_ping(alice: Identity, host: HostStandIn) -> None:
    key = new_wg_key()
    connect(alice, wg_public_key=key)
    assert pinged(alice, key)
    with unchanged(host):
        refused(offer(alice, key), 409, "key_spent")


@pytest.mark.parametrize("session", [0, 60], ids=["silent", "session over"])
def test_no_answer_is_given_again_past_its_end(
    company: Company, alice: Identity, host: HostStandIn, fixed_clock: Clock, session: int
) -> None:
    """Though no sweep has ended it yet: its client would be cut off by the next one."""
    Server.objects.update(session_timeout=session)
    key = new_wg_key()
    _, first = connect(alice, wg_public_key=key)
    fixed_clock.advance((session or company.server.ping_timeout) - 1)
    first["configuration"]["session_left"] = 1 if session else 0
    assert connect(alice, wg_public_key=key)[1] == first
    fixed_clock.advance(1)
    with unchanged(host):
        refused(offer(alice, key), 409, "key_spent")


def test_no_answer_is_given_again_once_the_device_has_a_newer_connection(alice: Identity, host: HostStandIn) -> None:
    key = new_wg_key()
    connect(alice, wg_public_key=key)
    connect(alice)
    with unchanged(host):
        refused(offer(alice, key), 409, "key_spent")


def test_two_users_offer_one_key_at_the_same_moment(company: Company, alice: Identity, host: HostStandIn) -> None:
    _, bob = company.hire("bob")
    requests = [make_request(identity, plaintext(wg_public_key=_SAME)) for identity in (alice, bob)]
    statuses: list[int] = []
    start = threading.Barrier(2)

    def run(request: Any) -> None:
        try:
            start.wait(HANGING)
            statuses.append(request.send().status_code)
        finally:
            database.close()

    threads = [threading.Thread(target=run, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANGING)
    assert sorted(statuses) == [200, 409]
    assert SpentKey.objects.count() == 1
    assert Connection.objects.filter(state=State.OPEN).count() == 1


_SAME = new_wg_key()


def test_an_unconfirmed_key_may_be_offered_again(alice: Identity, host: HostStandIn, settings: LazySettings) -> None:
    settings.CONFIRM_TIMEOUT = NEVER
    host.answer = None
    key = new_wg_key()
    refused(offer(alice, key), 503, "unconfirmed")
    failed = Connection.objects.get()
    assert (failed.state, failed.end_reason) == (State.ENDED, EndReason.UNCONFIRMED)
    assert not SpentKey.objects.exists()
    assert liveness.deadline(failed.public_id) is None
    settings.CONFIRM_TIMEOUT, host.answer = HANGING, "ok"
    _, answer = connect(alice, wg_public_key=key)
    assert answer["allow"] is True
    assert [message["connections"] for message in host.of("hostnet.remove_peers")] == [[failed.public_id]]


def test_a_late_confirmation_does_not_count_for_the_next_attempt(
    alice: Identity, host: HostStandIn, settings: LazySettings
) -> None:
    settings.CONFIRM_TIMEOUT = NEVER
    host.answer = None
    key = new_wg_key()
    refused(offer(alice, key), 503, "unconfirmed")
    _settled(host, "hostnet.add_peer")
    redis_client().rpush(host.of("hostnet.add_peer")[0]["confirm"], "ok")
    refused(offer(alice, key), 503, "unconfirmed")
    assert not Connection.objects.exclude(state=State.ENDED).exists()


@pytest.fixture
def by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equally busy hosts in the order of their names rather than by chance."""
    monkeypatch.setattr(random, "shuffle", lambda hosts: hosts.sort(key=lambda attachment: attachment.host.name))


@pytest.mark.usefixtures("by_name")
@pytest.mark.parametrize("answer", ["error: no such interface", None])
def test_the_next_host_is_asked_in_the_same_request(
    company: Company, alice: Identity, host: HostStandIn, monkeypatch: pytest.MonkeyPatch, answer: str | None
) -> None:
    if answer is None:
        wait_shortly_for(host.host, monkeypatch)
    host.answer = answer
    with HostStandIn(add_host(company.server, "gate-2", address="192.0.2.2")).running() as second:
        _, got = connect(alice)
        assert got["configuration"]["hostname"] == "192.0.2.2"
        assert len(second.of("hostnet.add_peer")) == 1
    row = Connection.objects.get()
    assert (row.state, row.host) == (State.OPEN, second.host)
    _settled(host, "hostnet.remove_peers")
    (removal,) = host.of("hostnet.remove_peers")
    assert removal["connections"] == [row.public_id]
    # Never older than the add that it takes back, or the host would keep the peer.
    assert removal["version"] >= host.of("hostnet.add_peer")[0]["peer"]["version"]


def wait_shortly_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never answers. Every other host is given all the time that it takes."""
    real = messages.add_and_wait

    def add_and_wait(to: Host, message: AddPeer) -> bool:
        with override_settings(CONFIRM_TIMEOUT=NEVER if to == host else HANGING):
            return real(to, message)

    monkeypatch.setattr(messages, "add_and_wait", add_and_wait)


def _settled(host: HostStandIn, task: str) -> None:
    """Wait until the stand-in has read what the request has sent before it answered."""
    until(lambda: host.of(task))


@pytest.mark.usefixtures("by_name")
def test_when_no_host_confirms(company: Company, alice: Identity, host: HostStandIn, settings: LazySettings) -> None:
    key = new_wg_key()
    host.answer = "error: no"
    with HostStandIn(add_host(company.server, "gate-2"), "error: no").running() as second:
        response = offer(alice, key)
        _settled(host, "hostnet.remove_peers")
        _settled(second, "hostnet.remove_peers")
    refused(response, 503, "unconfirmed")
    row = Connection.objects.get()
    assert (row.state, row.end_reason) == (State.ENDED, EndReason.UNCONFIRMED)
    assert not SpentKey.objects.exists()
    for each in (host, second):
        assert [message["connections"] for message in each.of("hostnet.remove_peers")] == [[row.public_id]]


def test_no_host_is_alive(company: Company, alice: Identity, host: HostStandIn) -> None:
    silence(company.host)
    with unchanged(host):
        refused(offer(alice, new_wg_key()), 503, "no_host")
    Host.objects.update(enabled=False)
    with unchanged(host):
        refused(offer(alice, new_wg_key()), 503, "no_host")


@pytest.mark.parametrize("change", [{"started": False}, {"wireguard": False}])
def test_a_stopped_server(company: Company, alice: Identity, host: HostStandIn, change: dict[str, bool]) -> None:
    type(company.server).objects.update(**change)
    with unchanged(host):
        response = offer(alice, new_wg_key())
    refused(response, 429, "server_stopped")
    assert int(response["Retry-After"]) > 0


def test_refusals_of_a_person_are_sealed(company: Company, host: HostStandIn) -> None:
    """A person must act: allow false, in words, under the HMAC and in the box; the key is not spent."""
    user, alice = company.hire("alice")
    type(user).objects.update(enabled=False)
    request = make_request(alice)
    with unchanged(host):
        answer = open_answer(request.send().json(), alice, request.box_private_key)
    assert answer == {
        "allow": False,
        "reason": "Your account is disabled. Ask your administrator.",
        "configuration": None,
    }


def test_a_machine_with_an_odd_name_connects_and_is_shown_without_what_cannot_be_printed(
    company: Company, host: HostStandIn
) -> None:
    _, identity = company.hire("odd")
    name = "Élodie\u00a0\u200d's laptop\x00\n" + "x" * 300
    response = make_request(identity, plaintext(device_hostname=name, device_name=name)).send()
    assert response.status_code == 200
    device = Device.objects.get(user__name="odd")
    assert device.hostname.startswith("Élodie's laptopx")
    assert len(device.hostname) == 255
    assert len(device.name) == 128
