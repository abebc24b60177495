"""Connects over HTTP, many at once: who gets which address, and what takes the place of what."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
import pytest
from django.db import OperationalError

from core.clock import moment
from servers import addresses
from servers.models import Address, Host, Server, ServerHost
from tests.concurrency import together
from tests.conftest import Clock
from tests.factories import Company, HostStandIn, add_host, silence
from tests.lab import until
from tests.protocol_client import NOW, Identity, make_request, new_wg_key, open_answer, plaintext
from users.models import Device, DeviceKey, Group, Organization, VpnUser
from wgpeers.fleet import messages
from wgpeers.lifecycle import connect as connecting
from wgpeers.lifecycle import queries, reaper
from wgpeers.models import Connection, Decision, SpentKey, State


@pytest.fixture
def device(company: Company) -> tuple[VpnUser, Identity]:
    return company.hire("alice")


def connect(identity: Identity, now: int = NOW, **fields: Any) -> dict[str, Any]:
    """The opened answer of one connect; {"status": …} where it was not 200."""
    request = make_request(identity, plaintext(timestamp=now, **fields), now=now)
    response = request.send()
    if response.status_code != 200:
        return {"status": response.status_code, "error": response.json()["error"]}
    return open_answer(response.json(), identity, request.box_private_key)


def address_of(answer: dict[str, Any]) -> str:
    assert answer["allow"], answer
    return str(answer["configuration"]["address"])


def live() -> list[Connection]:
    return list(Connection.objects.exclude(state=State.ENDED).order_by("pk"))


def as_dicts(answers: list[Any]) -> list[dict[str, Any]]:
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    return answers


def test_fifty_users_at_once_all_get_different_addresses(company: Company, host: HostStandIn) -> None:
    identities = [company.hire(f"user-{number}")[1] for number in range(50)]
    answers = as_dicts(together([partial(connect, identity) for identity in identities]))
    assert len({address_of(answer) for answer in answers}) == 50
    rows = live()
    assert len({row.host_part for row in rows}) == len({row.user_id for row in rows}) == len(rows) == 50
    assert {row.state for row in rows} == {State.OPEN}
    told = host.of("hostnet.add_peer")
    assert len({message["peer"]["public_key"] for message in told}) == len(told) == 50
    assert {ip for message in told for ip in message["peer"]["allowed_ips"]} == {f"{row.address}/32" for row in rows}
    assert len({message["peer"]["version"] for message in told}) == 50


def test_ten_devices_of_one_user_at_once_leave_one_connected(
    company: Company, host: HostStandIn, device: tuple[VpnUser, Identity]
) -> None:
    answers = as_dicts(together([partial(connect, device[1], device_id=f"device-{n}") for n in range(10)]))
    (winner,) = live()
    assert winner.state == State.OPEN
    assert winner.address == "10.9.0.2"
    # Whoever was told "allowed" has the one address; who was overtaken while it waited got a 5xx and tries again.
    allowed = [answer for answer in answers if "configuration" in answer]
    assert {address_of(answer) for answer in allowed} == {"10.9.0.2/24"}
    assert all(answer["status"] >= 500 for answer in answers if "configuration" not in answer)
    assert set(Connection.objects.filter(state=State.ENDED).values_list("end_reason", flat=True)) == {"elsewhere"}


def test_with_multi_device_all_ten_stay(company: Company, host: HostStandIn, device: tuple[VpnUser, Identity]) -> None:
    company.server.multi_device, company.server.max_devices = True, 10
    company.server.save()
    answers = as_dicts(together([partial(connect, device[1], device_id=f"device-{n}") for n in range(10)]))
    assert len({address_of(answer) for answer in answers}) == len(live()) == 10
    assert Address.objects.filter(user=device[0], dynamic=False).count() == 1
    assert Address.objects.filter(user=device[0], dynamic=True).count() == 9


def test_with_a_maximum_of_three_exactly_three_of_ten_get_in(
    company: Company, host: HostStandIn, device: tuple[VpnUser, Identity]
) -> None:
    company.server.multi_device, company.server.max_devices = True, 3
    company.server.save()
    answers = as_dicts(together([partial(connect, device[1], device_id=f"device-{n}") for n in range(10)]))
    assert len(live()) == 3
    refused = [answer for answer in answers if not answer["allow"]]
    assert len(refused) == 7
    assert all("3 devices may be connected" in answer["reason"] for answer in refused)
    said = Decision.objects.filter(code="too_many_devices", layer="connect")
    assert sum(said.values_list("count", flat=True)) == 7
    assert Address.objects.exclude(user=None).count() == 3
    # One of the three may always replace itself.
    again = connect(device[1], device_id=live()[0].device_id)
    assert address_of(again)
    assert len(live()) == 3


def test_ten_times_the_same_key_at_once_is_one_connection(
    company: Company, host: HostStandIn, device: tuple[VpnUser, Identity]
) -> None:
    key = new_wg_key()
    answers = as_dicts(together([partial(connect, device[1], wg_public_key=key) for _ in range(10)]))
    assert len(live()) == 1
    assert SpentKey.objects.count() == 1
    for answer in answers:
        assert answer.get("error") in {None, "in_progress", "key_spent"}
    assert [answer for answer in answers if "configuration" in answer]


def test_the_same_device_replaces_itself_and_keeps_its_address(
    company: Company, host: HostStandIn, device: tuple[VpnUser, Identity], fixed_clock: Clock
) -> None:
    before = address_of(connect(device[1]))
    (old,) = live()
    fixed_clock.advance(60)
    assert address_of(connect(device[1], NOW + 60)) == before == "10.9.0.2/24"
    (new,) = live()
    old.refresh_from_db()
    assert (old.state, old.end_reason) == (State.ENDED, "replaced")
    assert old.ended is not None
    assert old.ended.timestamp() == NOW + 60
    (_, message) = host.of("hostnet.add_peer")
    assert message["peer"]["connection"] == new.public_id
    assert message["replaces"] == [old.public_id]
    # In the one message, so that the address is never without a peer.
    assert not host.of("hostnet.remove_peers")


def test_a_further_device_replaces_itself_and_keeps_its_dynamic_address(
    company: Company, host: HostStandIn, device: tuple[VpnUser, Identity]
) -> None:
    company.server.multi_device = True
    company.server.save()
    assert address_of(connect(device[1], device_id="first")) == "10.9.0.2/24"
    assert address_of(connect(device[1], device_id="second")) == "10.9.0.3/24"
    assert address_of(connect(device[1], device_id="third")) == "10.9.0.4/24"
    assert address_of(connect(device[1], device_id="second")) == "10.9.0.3/24"
    assert Address.objects.get(host_part=3).dynamic
    assert len(live()) == 3


def test_a_new_device_takes_over_without_multi_device(
    company: Company, host: HostStandIn, device: tuple[VpnUser, Identity]
) -> None:
    connect(device[1], device_id="first")
    (old,) = live()
    assert address_of(connect(device[1], device_id="second")) == "10.9.0.2/24"
    old.refresh_from_db()
    assert (old.state, old.end_reason) == (State.ENDED, "elsewhere")
    assert host.of("hostnet.add_peer")[1]["replaces"] == [old.public_id]


def test_a_dynamic_address_returns_to_the_pool_with_the_end_of_its_connection(
    company: Company, host: HostStandIn, device: tuple[VpnUser, Identity]
) -> None:
    company.server.multi_device = True
    company.server.save()
    connect(device[1], device_id="first")
    connect(device[1], device_id="second")
    first, second = live()
    assert connecting.disconnect(second, NOW)
    assert Address.objects.get(host_part=3).user is None
    assert connecting.disconnect(first, NOW)
    assert Address.objects.get(host_part=2).user == device[0]
    assert not connecting.disconnect(first, NOW)  # it was ended already
    assert address_of(connect(company.hire("bob")[1])) == "10.9.0.3/24"


def test_a_device_that_was_on_another_host_is_removed_there(
    company: Company, host: HostStandIn, device: tuple[VpnUser, Identity]
) -> None:
    connect(device[1])
    (old,) = live()
    other = add_host(company.server, "gate-2", address="192.0.2.2")
    # Dead to the control side from here on; its queue is read all the same.
    silence(company.host)
    with HostStandIn(other).running() as second:
        assert address_of(connect(device[1])) == "10.9.0.2/24"
        (new,) = live()
        assert new.host == other
        assert second.of("hostnet.add_peer")[0]["replaces"] == []
    until(lambda: host.of("hostnet.remove_peers"))
    assert host.of("hostnet.remove_peers")[0]["connections"] == [old.public_id]


def test_a_full_network_refuses_and_spends_no_key(company: Company, host: HostStandIn) -> None:
    server = company.server
    server.network, server.wg_network = "10.8.0.0/28", "10.9.0.0/28"
    server.save()
    for number in range(13):
        addresses.static_address(server, company.hire(f"user-{number}")[0])
    _, identity = company.hire("late")
    answer = connect(identity)
    assert answer == {"status": 429, "error": "no_address_left"}
    assert not SpentKey.objects.exists()
    assert not live()


def lose(what: str, company: Company, user: VpnUser) -> None:
    """Take away one thing without which ``user`` may not be connected, as an admin would, and end what there is."""
    another, now = Group.objects.get_or_create(name="Others")[0], moment(NOW)
    device = {"user": user, "device_id": plaintext()["device_id"], "revoked": now}
    changes: dict[str, Callable[[], Any]] = {
        "user disabled": lambda: VpnUser.objects.filter(pk=user.pk).update(enabled=False),
        "user deleted": lambda: VpnUser.objects.filter(pk=user.pk).delete(),
        "organization disabled": lambda: Organization.objects.update(enabled=False),
        "organization taken off": lambda: company.server.organizations.clear(),
        "another group asked for": lambda: company.server.groups.set([another]),
        "taken out of the group": lambda: user.groups.clear(),
        "server stopped": lambda: Server.objects.update(started=False),
        "wireguard turned off": lambda: Server.objects.update(wireguard=False),
        "host turned off": lambda: Host.objects.update(enabled=False),
        "host taken off": lambda: ServerHost.objects.all().delete(),
        "device revoked": lambda: Device.objects.create(**device, first_seen=now, last_seen=now),
        "device's key revoked": lambda: DeviceKey.objects.create(**device, fingerprint="00", created=now),
    }
    changes[what]()
    reaper.enforce(NOW)


LOSSES = (
    *("user disabled", "user deleted", "organization disabled", "organization taken off"),
    *("another group asked for", "taken out of the group", "server stopped", "wireguard turned off"),
    *("host turned off", "host taken off", "device revoked", "device's key revoked"),
)
STEPS = (
    (connecting, "_suitable_hosts"),
    (connecting, "_begin"),
    (connecting, "_start_counting"),
    (messages, "add_and_wait"),
    (connecting, "_open"),
)


@pytest.mark.parametrize("change", LOSSES)
@pytest.mark.parametrize(("module", "step"), STEPS, ids=lambda each: each if isinstance(each, str) else "")
def test_who_loses_a_right_between_two_steps_of_a_connect_is_not_connected(
    company: Company,
    host: HostStandIn,
    device: tuple[VpnUser, Identity],
    change: str,
    module: Any,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever took it has ended their connections by then: one that is made later would stay."""
    group = Group.objects.create(name="Those who may")
    company.server.groups.add(group)
    device[0].groups.add(group)
    real = getattr(module, step)

    def lose_first(*arguments: Any) -> Any:
        monkeypatch.setattr(module, step, real)
        lose(change, company, device[0])
        return real(*arguments)

    monkeypatch.setattr(module, step, lose_first)
    answer = connect(device[1])
    assert answer["status"] == 503
    assert not live()


def test_a_device_that_was_replaced_comes_back_once_and_stays_away(
    company: Company, host: HostStandIn, device: tuple[VpnUser, Identity], fixed_clock: Clock
) -> None:
    connect(device[1], device_id="laptop")
    connect(device[1], device_id="phone", now=int(fixed_clock.advance(60)))
    answer = connect(device[1], device_id="laptop", now=int(fixed_clock.advance(13)))
    assert answer == {"allow": False, "reason": answer["reason"], "configuration": None}
    assert "connected with another device" in answer["reason"]
    assert [row.device_id for row in live()] == ["phone"]
    assert Decision.objects.latest("pk").code == "other_device"
    # It has been told; whoever comes now was started by hand.
    assert address_of(connect(device[1], device_id="laptop", now=int(fixed_clock.advance(5))))
    assert [row.device_id for row in live()] == ["laptop"]
    assert not connect(device[1], device_id="phone", now=int(fixed_clock.advance(13)))["allow"]


def test_two_devices_that_reconnect_by_themselves_settle_on_the_last_one(
    company: Company, host: HostStandIn, device: tuple[VpnUser, Identity], fixed_clock: Clock
) -> None:
    """Each comes back 13 s after it was replaced, and stays away once it is refused, as existing clients do."""
    away: set[str] = set()
    changes = 0
    for name in ("laptop", "phone", *["laptop", "phone"] * 10):
        if name in away or [name] == [row.device_id for row in live()]:
            continue
        if connect(device[1], device_id=name, now=int(fixed_clock.advance(13)))["allow"]:
            changes += 1
        else:
            away.add(name)
    assert (changes, away) == (2, {"laptop"})


def test_a_device_that_comes_back_much_later_was_started_by_hand(
    company: Company, host: HostStandIn, device: tuple[VpnUser, Identity], fixed_clock: Clock
) -> None:
    connect(device[1], device_id="laptop")
    connect(device[1], device_id="phone")
    assert address_of(connect(device[1], device_id="laptop", now=int(fixed_clock.advance(121))))


def test_a_device_whose_successor_has_gone_just_comes_back(
    company: Company, host: HostStandIn, device: tuple[VpnUser, Identity]
) -> None:
    connect(device[1], device_id="laptop")
    connect(device[1], device_id="phone")
    connecting.disconnect(live()[0], NOW)
    assert address_of(connect(device[1], device_id="laptop"))


def test_a_server_can_keep_the_device_that_is_connected(
    company: Company, host: HostStandIn, device: tuple[VpnUser, Identity]
) -> None:
    Server.objects.update(keep_connected_device=True)
    connect(device[1], device_id="laptop")
    answer = connect(device[1], device_id="phone")
    assert "Disconnect that one first" in answer["reason"]
    assert address_of(connect(device[1], device_id="laptop"))  # the same one may always replace itself
    assert [row.device_id for row in live()] == ["laptop"]
    connecting.disconnect(live()[0], NOW)
    assert address_of(connect(device[1], device_id="phone"))


def test_an_address_that_is_still_being_given_up_keeps_nobody_else_out(company: Company, host: HostStandIn) -> None:
    """Three users are gone, and nobody has come to end their connections: their addresses are free and taken."""
    for number in range(3):
        connect(company.hire(f"user-{number}")[1])
    VpnUser.objects.filter(name__in=["user-0", "user-1", "user-2"]).delete()
    assert Address.objects.filter(user=None).count() == 3
    assert address_of(connect(company.hire("new")[1])) == "10.9.0.5/24"
    reaper.enforce(NOW)
    assert address_of(connect(company.hire("newer")[1])) == "10.9.0.2/24"


@pytest.mark.parametrize(
    ("fault", "times", "error"),
    [
        (psycopg.errors.DeadlockDetected, 1, ""),
        (psycopg.errors.DeadlockDetected, 2, "in_progress"),
        (psycopg.errors.AdminShutdown, 1, "store_down"),
    ],
)
def test_whom_a_deadlock_ended_tries_once_more(
    host: HostStandIn,
    device: tuple[VpnUser, Identity],
    monkeypatch: pytest.MonkeyPatch,
    fault: type[psycopg.Error],
    times: int,
    error: str,
) -> None:
    """PostgreSQL ends one of two connects that wait for each other; see also ``test_storm``."""
    faults, insert = [fault("…")] * times, queries.insert_connection

    def insert_connection(connection: Connection) -> None:
        insert(connection)
        if faults:
            raise OperationalError from faults.pop()

    monkeypatch.setattr(queries, "insert_connection", insert_connection)
    answer = make_request(device[1], plaintext()).send()
    assert answer.json().get("error", "") == error
    assert Connection.objects.count() == SpentKey.objects.count() == (not error)


def test_one_user_cannot_take_the_addresses_of_those_who_have_none(company: Company, host: HostStandIn) -> None:
    """13 addresses, and three other users who have not been connected yet."""
    server = company.server
    server.network, server.wg_network, server.multi_device, server.max_devices = (
        "10.8.0.0/28",
        "10.9.0.0/28",
        True,
        1000,
    )
    server.save()
    _, greedy = company.hire("greedy")
    others = [company.hire(f"user-{number}")[1] for number in range(3)]
    answers = [connect(greedy, device_id=f"device-{number}") for number in range(13)]
    assert [answer.get("error") for answer in answers] == [None] * 10 + ["no_address_left"] * 3
    assert all(address_of(connect(other)) for other in others)


def test_ipv6_has_the_same_host_part(company: Company, host: HostStandIn, device: tuple[VpnUser, Identity]) -> None:
    company.server.ipv6, company.server.network6 = True, "fd09::/64"
    company.server.save()
    configuration = connect(device[1])["configuration"]
    assert (configuration["address"], configuration["address6"]) == ("10.9.0.2/24", "fd09::2/64")
    assert host.of("hostnet.add_peer")[0]["peer"]["allowed_ips"] == ["10.9.0.2/32", "fd09::2/128"]
