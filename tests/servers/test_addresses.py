"""Tunnel addresses: each user one of their own, never given twice, in time that does not grow with how full it is."""

from __future__ import annotations

from functools import partial

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from core.crypto import Secret
from servers import addresses, networks
from servers.addresses import NoAddressLeft
from servers.models import Address, Server
from tests.concurrency import together
from tests.factories import Company
from users.models import VpnUser


def people(company: Company, count: int, first: int = 0) -> list[VpnUser]:
    """Users as an import makes them: in bulk."""
    empty = Secret("")
    made = [
        VpnUser(organization=company.organization, name=f"user-{number}", sync_token=empty, sync_secret=empty)
        for number in range(first, first + count)
    ]
    return VpnUser.objects.bulk_create(made)


def size(company: Company, prefix: int) -> Server:
    server = company.server
    server.network, server.wg_network = f"10.8.0.0/{prefix}", f"10.16.0.0/{prefix}"
    server.save()
    return server


def test_a_user_has_one_address_for_good(company: Company) -> None:
    alice, bob = people(company, 2)
    first = addresses.static_address(company.server, alice)
    assert str(first) == "10.9.0.2"
    assert str(addresses.static_address(company.server, bob)) == "10.9.0.3"
    assert addresses.static_address(company.server, alice) == first


def test_fifty_users_at_once_get_fifty_addresses(company: Company) -> None:
    users = people(company, 50)
    given = together([partial(addresses.static_address, company.server, user) for user in users])
    assert sorted(address.host_part for address in given if isinstance(address, Address)) == list(range(2, 52))


def test_fifty_users_at_once_for_the_last_fifty_addresses_that_were_given_back(company: Company) -> None:
    """The hardest case: all of them reach for the same free row, and there is no new one to fall back on."""
    server = size(company, 26)
    users = people(company, 111)
    for host_part, user in enumerate(users[:61], start=2):
        Address.objects.create(server=server, host_part=host_part, user=user if host_part > 51 else None)
    Server.objects.filter(pk=server.pk).update(next_host_part=63)
    given = together([partial(addresses.static_address, server, user) for user in users[61:]])
    assert sorted(address.host_part for address in given if isinstance(address, Address)) == list(range(2, 52))


def test_one_user_asking_twenty_times_at_once_gets_one_address(company: Company) -> None:
    (alice,) = people(company, 1)
    given = together([partial(addresses.static_address, company.server, alice)] * 20)
    assert {str(address) for address in given} == {"10.9.0.2"}
    assert Address.objects.count() == 1


def test_dynamic_addresses_of_one_user_at_once_all_differ_and_return_to_the_pool(company: Company) -> None:
    (alice,) = people(company, 1)
    given = together([partial(addresses.dynamic_address, company.server, alice)] * 20)
    parts = sorted(address.host_part for address in given if isinstance(address, Address))
    assert parts == list(range(2, 22))
    for host_part in parts:
        addresses.release(company.server.pk, host_part)
    assert not Address.objects.exclude(user=None).exists()
    assert addresses.static_address(company.server, alice).host_part == 2


def test_static_addresses_are_not_released_with_a_connection(company: Company) -> None:
    (alice,) = people(company, 1)
    mine = addresses.static_address(company.server, alice)
    addresses.release(company.server.pk, mine.host_part)
    assert addresses.static_address(company.server, alice) == mine
    assert Address.objects.get().user == alice


def test_the_database_itself_refuses_to_give_one_twice(company: Company) -> None:
    alice, bob = people(company, 2)
    Address.objects.create(server=company.server, host_part=7, user=alice)
    with pytest.raises(IntegrityError), transaction.atomic():
        Address.objects.create(server=company.server, host_part=7, user=bob)
    with pytest.raises(IntegrityError), transaction.atomic():
        Address.objects.create(server=company.server, host_part=8, user=alice)
    Address.objects.create(server=company.server, host_part=8, user=alice, dynamic=True)
    Address.objects.create(server=company.server, host_part=9, user=alice, dynamic=True)


def test_a_full_network_says_so_and_has_room_again_after_one_left(company: Company) -> None:
    server = size(company, 28)
    users = people(company, 14)
    given = [addresses.static_address(server, user) for user in users[:13]]
    assert {address.host_part for address in given} == set(range(2, 15))
    for take in (addresses.static_address, addresses.dynamic_address):
        with pytest.raises(NoAddressLeft):
            take(server, users[13])
    users[4].delete()
    assert addresses.static_address(server, users[13]).host_part == 6


def test_thirty_at_once_for_the_last_thirteen_addresses(company: Company) -> None:
    server = size(company, 28)
    given = together([partial(addresses.static_address, server, user) for user in people(company, 30)])
    assert sorted(address.host_part for address in given if isinstance(address, Address)) == list(range(2, 15))
    assert [type(error) for error in given if isinstance(error, Exception)] == [NoAddressLeft] * 17


def queries_of_one(server: Server, user: VpnUser, *, dynamic: bool) -> list[str]:
    """The statements, without their numbers, of one allotment."""
    take = addresses.dynamic_address if dynamic else addresses.static_address
    with CaptureQueriesContext(connection) as context:
        take(server, user)
    return [query["sql"].split("WHERE")[0] for query in context.captured_queries]


def fill(server: Server, user: VpnUser, count: int) -> None:
    """All of one user with very many devices: a user may have any number of dynamic addresses."""
    first = networks.FIRST_HOST_PART
    rows = (
        Address(server=server, host_part=host_part, user=user, dynamic=True)
        for host_part in range(first, first + count)
    )
    Address.objects.bulk_create(rows, batch_size=5000)
    Server.objects.filter(pk=server.pk).update(next_host_part=first + count)


def test_an_almost_full_16_costs_no_more_than_an_empty_one(company: Company) -> None:
    server = size(company, 16)
    *newcomers, crowd = people(company, 8)
    fill(server, crowd, 10)
    emptyish = [queries_of_one(server, newcomers[n], dynamic=bool(n % 2)) for n in range(2)]
    Address.objects.all().delete()
    fill(server, crowd, 65_500)
    full = [queries_of_one(server, newcomers[2 + n], dynamic=bool(n % 2)) for n in range(2)]
    assert [len(queries) for queries in full] == [len(queries) for queries in emptyish]
    assert max(map(len, full)) <= 10
    # And where one of 65,500 was given back.
    Address.objects.filter(server=server, host_part=40_000).update(user=None, dynamic=False)
    assert len(queries_of_one(server, newcomers[4], dynamic=False)) <= 10
    assert Address.objects.get(user=newcomers[4]).host_part == 40_000


def test_looking_for_a_free_address_uses_its_index(company: Company) -> None:
    """Of what is free only, so that it does not grow with what is taken."""
    how = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # It scans a table of a few rows whatever indexes there are.
            cursor.execute("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off")
        cursor.execute(f"{how} {addresses._FREE}", [company.server.pk, 1000, 1])
        plan = str(cursor.fetchall())
        if connection.vendor == "postgresql":
            cursor.execute("RESET ALL")
    assert "free_addresses" in plan


def test_an_address_is_returned_as_it_is_stored(company: Company) -> None:
    alice, bob = people(company, 2)
    new = addresses.static_address(company.server, alice)
    assert new == Address.objects.get(user=alice, host_part=new.host_part, dynamic=False)
    again = addresses.static_address(company.server, alice)
    assert (again.pk, again.host_part, again.user_id, again.dynamic) == (new.pk, new.host_part, alice.pk, False)
    assert again.dynamic is False
    addresses.dynamic_address(company.server, bob)
    addresses.release(company.server.pk, 3)
    taken = addresses.dynamic_address(company.server, alice)
    assert (taken.host_part, taken.user_id, taken.dynamic) == (3, alice.pk, True)


def test_the_counter_steps_over_what_was_given_by_hand(company: Company) -> None:
    by_hand, first, second, third = people(company, 4)
    assert str(addresses.assign(company.server, by_hand, "10.9.0.3")) == "10.9.0.3"
    parts = [addresses.static_address(company.server, user).host_part for user in (first, second, third)]
    assert parts == [2, 4, 5]


def test_an_address_given_by_hand_replaces_the_one_before_which_is_free_again(company: Company) -> None:
    alice, bob = people(company, 2)
    addresses.static_address(company.server, alice)
    addresses.assign(company.server, alice, "10.9.0.200")
    assert str(addresses.static_address(company.server, alice)) == "10.9.0.200"
    assert str(addresses.static_address(company.server, bob)) == "10.9.0.2"
    addresses.assign(company.server, alice, " 10.9.0.200 ")  # the same again is no change
    assert Address.objects.filter(user=alice).count() == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.9.0.1", "10.9.0.1 is the gateway's own address."),
        ("10.9.0.0", "first or last address"),
        ("10.9.0.255", "first or last address"),
        ("10.9.1.2", "10.9.1.2 is not in 10.9.0.0/24."),
        ("10.8.0.2", "10.8.0.2 is not in 10.9.0.0/24."),
        ("ten", "'ten' is not an IPv4 address."),
        ("fd09::2", "'fd09::2' is not an IPv4 address."),
        ("10.9.0.2/24", "'10.9.0.2/24' is not an IPv4 address."),
        ("", "'' is not an IPv4 address."),
        ("10.9.0.5", "10.9.0.5 belongs to user-1."),
        ("10.9.0.6", "10.9.0.6 belongs to user-0."),
    ],
)
def test_what_cannot_be_given_by_hand_is_refused_in_words(company: Company, text: str, words: str) -> None:
    alice, bob = people(company, 2)
    addresses.assign(company.server, bob, "10.9.0.5")
    Address.objects.create(server=company.server, host_part=6, user=alice, dynamic=True)
    addresses.assign(company.server, alice, "10.9.0.9")
    with pytest.raises(ValidationError) as refused:
        addresses.assign(company.server, alice, text)
    assert words in refused.value.messages[0]
    assert str(addresses.static_address(company.server, alice)) == "10.9.0.9"


def test_one_address_given_by_hand_to_ten_users_at_once_is_one_users(company: Company) -> None:
    users = people(company, 10)
    given = together([partial(addresses.assign, company.server, user, "10.9.0.77") for user in users])
    assert len([address for address in given if isinstance(address, Address)]) == 1
    assert all("belongs to" in error.messages[0] for error in given if isinstance(error, ValidationError))
    assert Address.objects.exclude(user=None).count() == 1


def test_giving_by_hand_never_takes_what_a_connect_allots_at_the_same_moment(company: Company) -> None:
    users = people(company, 20)
    freed = people(company, 10, first=50)
    for user in freed:
        addresses.static_address(company.server, user)
    Address.objects.update(user=None)
    by_hand = [partial(addresses.assign, company.server, user, f"10.9.0.{2 + n}") for n, user in enumerate(users[:10])]
    by_itself = [partial(addresses.static_address, company.server, user) for user in users[10:]]
    given = together([*by_hand, *by_itself])
    for user, answer in zip(users, given, strict=True):
        if isinstance(answer, Address):
            assert Address.objects.get(server=company.server, user=user).host_part == answer.host_part
        else:
            assert isinstance(answer, ValidationError)
    assert all(isinstance(answer, Address) for answer in given[10:])


def test_a_deleted_users_addresses_are_free_again(company: Company) -> None:
    alice, bob = people(company, 2)
    addresses.static_address(company.server, alice)
    addresses.dynamic_address(company.server, alice)
    alice.delete()
    assert [
        addresses.static_address(company.server, bob).host_part,
        addresses.dynamic_address(company.server, bob).host_part,
    ] == [
        2,
        3,
    ]


def test_addresses_beyond_a_network_made_smaller_are_not_given(company: Company) -> None:
    server = size(company, 24)
    (alice,) = people(company, 1)
    Address.objects.create(server=server, host_part=200)
    Server.objects.filter(pk=server.pk).update(next_host_part=201)
    server = size(company, 28)
    with pytest.raises(NoAddressLeft):
        addresses.static_address(server, alice)


def test_each_server_has_addresses_of_its_own(company: Company) -> None:
    other = Server.objects.create(name="Lab", network="10.20.0.0/24", wg_network="10.21.0.0/24")
    (alice,) = people(company, 1)
    assert str(addresses.static_address(company.server, alice)) == "10.9.0.2"
    assert str(addresses.static_address(other, alice)) == "10.21.0.2"


def test_retaking_a_dynamic_address_works_only_while_it_is_free(company: Company) -> None:
    alice, bob = people(company, 2)
    host_part = addresses.dynamic_address(company.server, alice).host_part
    assert not addresses.retake(company.server, bob, host_part)
    addresses.release(company.server.pk, host_part)
    assert addresses.retake(company.server, alice, host_part)
    assert not addresses.retake(company.server, bob, host_part)
