"""Whatever is allotted, given by hand, released and deleted, in whatever order: no address has two users."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from core.crypto import Secret
from servers import addresses, networks
from servers.addresses import NoAddressLeft
from servers.models import Address, Server
from users.models import Organization, VpnUser

USERS = st.integers(0, 17)  # more than the 13 addresses of a /28
PARTS = st.integers(0, 15)


class Network(RuleBasedStateMachine):
    """A /28 with its users. Each run is one transaction that is rolled back."""

    @initialize()
    def begin(self) -> None:
        self.atomic = transaction.atomic()
        self.atomic.__enter__()
        self.organization = Organization.objects.create(name="Machine")
        self.server = Server.objects.create(name="Machine", network="10.8.0.0/28", wg_network="10.9.0.0/28")
        self.users: dict[int, VpnUser] = {}
        self.static: dict[int, int] = {}  # user -> part
        self.dynamic: dict[int, int] = {}  # part -> user

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.atomic.__exit__(None, None, None)

    def user(self, number: int) -> VpnUser:
        if number not in self.users:
            token = Secret("")
            self.users[number] = VpnUser.objects.create(
                organization=self.organization, name=f"user-{number}", sync_token=token, sync_secret=token
            )
        return self.users[number]

    def taken(self) -> set[int]:
        return {*self.static.values(), *self.dynamic}

    @rule(number=USERS)
    def allot(self, number: int) -> None:
        try:
            host_part = addresses.static_address(self.server, self.user(number)).host_part
        except NoAddressLeft:
            assert len(self.taken()) == 13
            assert number not in self.static
            return
        assert self.static.get(number, host_part) == host_part
        assert host_part not in self.taken() - {self.static.get(number)}
        self.static[number] = host_part

    @rule(number=USERS)
    def allot_dynamic(self, number: int) -> None:
        try:
            host_part = addresses.dynamic_address(self.server, self.user(number)).host_part
        except NoAddressLeft:
            assert len(self.taken()) == 13
            return
        assert host_part not in self.taken()
        self.dynamic[host_part] = number

    @rule(number=USERS, host_part=PARTS)
    def give_by_hand(self, number: int, host_part: int) -> None:
        text = networks.address("10.9.0.0/28", host_part)
        possible = 2 <= host_part <= 14 and (host_part not in self.taken() or self.static.get(number) == host_part)
        try:
            addresses.assign(self.server, self.user(number), text)
        except ValidationError:
            assert not possible
            return
        assert possible
        self.static[number] = host_part

    @rule(host_part=PARTS)
    def release(self, host_part: int) -> None:
        addresses.release(self.server.pk, host_part)
        self.dynamic.pop(host_part, None)

    @rule(host_part=PARTS, number=USERS)
    def retake(self, host_part: int, number: int) -> None:
        known = Address.objects.filter(server=self.server, host_part=host_part).exists()
        taken = addresses.retake(self.server, self.user(number), host_part)
        assert taken == (known and host_part not in self.taken())
        if taken:
            self.dynamic[host_part] = number

    @rule(number=USERS)
    def delete(self, number: int) -> None:
        if number in self.users:
            self.users.pop(number).delete()
            self.static.pop(number, None)
            self.dynamic = {host_part: user for host_part, user in self.dynamic.items() if user != number}

    @rule(host_part=PARTS)
    def counter_goes_back(self, host_part: int) -> None:
        """As by a row saved from an old copy: the counter is a hint, the constraint decides."""
        Server.objects.filter(pk=self.server.pk, next_host_part__gt=host_part).update(next_host_part=max(2, host_part))

    @invariant()
    def database_and_model_agree(self) -> None:
        rows = Address.objects.filter(server=self.server).exclude(user=None)
        held = sorted((row.host_part, row.user_id, row.dynamic) for row in rows)
        static = [(host_part, self.users[number].pk, False) for number, host_part in self.static.items()]
        dynamic = [(host_part, self.users[number].pk, True) for host_part, number in self.dynamic.items()]
        assert held == sorted([*static, *dynamic])
        assert len({host_part for host_part, _, _ in held}) == len(held)
        assert all(2 <= host_part <= 14 for host_part, _, _ in held)


def test_no_order_of_events_gives_an_address_twice(db: None) -> None:
    limits = settings(
        max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    run_state_machine_as_test(Network, settings=limits)
