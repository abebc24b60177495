"""enforce: whoever would no longer be allowed is disconnected, and nobody else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.core.exceptions import ValidationError

from core.clock import moment
from servers import addresses
from servers.models import Address, Host, Server, ServerHost
from tests.attempts import ask
from tests.conftest import Clock
from tests.connection_rows import live, messages, queued, reasons
from tests.factories import Company, HostStandIn, add_host, found
from tests.protocol_client import NOW, make_request, new_wg_key, plaintext
from users.models import Device, FactorOverride, Group, Organization, VpnUser
from wgpeers import tasks
from wgpeers.lifecycle import reaper
from wgpeers.models import Connection, Decision, State


@pytest.fixture
def company(transactional_db: None, fixed_clock: Clock) -> Company:
    return found()


@pytest.fixture
def bystander(company: Company) -> Connection:
    """Bob of another organization, on another server and another host: whatever happens to alice, he stays."""
    organization = Organization.objects.create(name="Elsewhere")
    server = Server.objects.create(
        name="Lab", network="10.20.0.0/24", wg_network="10.21.0.0/24", started=True, port=51999
    )
    server.organizations.add(organization)
    host = Host.objects.create(name="gate-9", public_address="192.0.2.9")
    ServerHost.objects.create(server=server, host=host, public_key=new_wg_key())
    bob = VpnUser.objects.create(organization=organization, name="bob")
    return live(company, bob, server=server, host=host)


def grouped(company: Company) -> Group:
    staff = Group.objects.create(name="staff")
    company.server.groups.add(staff)
    VpnUser.objects.get(name="alice").groups.add(staff)
    return staff


def leave_the_group(company: Company) -> None:
    staff = grouped(company)
    VpnUser.objects.get(name="alice").groups.remove(staff)


def delete_the_users_group(company: Company) -> None:
    staff = grouped(company)
    company.server.groups.add(Group.objects.create(name="boss"))
    company.server.groups.remove(staff)
    staff.delete()


def shrink_the_network(company: Company) -> None:
    """Past the checks of the form: alice's address is no longer in it."""
    Address.objects.filter(user__name="alice").update(host_part=200)
    Connection.objects.filter(user__name="alice").update(host_part=200, address="10.9.0.200")
    Server.objects.filter(pk=company.server.pk).update(wg_network="10.9.0.0/28", network="10.8.0.0/28")


def of_server(**fields: object) -> Callable[[Company], object]:
    return lambda company: Server.objects.filter(pk=company.server.pk).update(**fields)


def revoke_the_device(company: Company) -> None:
    """The mark alone, as where whoever revoked it was killed before its connections ended; and that of another."""
    alice = VpnUser.objects.get(name="alice")
    for device_id, revoked in (("device-of-alice", moment(NOW)), ("device-of-bob", None)):
        Device.objects.create(
            user=alice, device_id=device_id, first_seen=moment(NOW), last_seen=moment(NOW), revoked=revoked
        )


CHANGES: list[tuple[Callable[[Company], object], str]] = [
    (lambda company: VpnUser.objects.filter(name="alice").update(enabled=False), "not_permitted"),
    (lambda company: VpnUser.objects.get(name="alice").delete(), "not_permitted"),
    (
        lambda company: VpnUser.objects.filter(name="alice").update(organization=Organization.objects.create(name="X")),
        "not_permitted",
    ),
    (lambda company: Organization.objects.filter(name="Acme").update(enabled=False), "not_permitted"),
    (lambda company: Organization.objects.filter(name="Acme").delete(), "not_permitted"),
    (lambda company: company.server.organizations.clear(), "not_permitted"),
    (lambda company: company.server.groups.add(Group.objects.create(name="staff")), "not_permitted"),
    (leave_the_group, "not_permitted"),
    (revoke_the_device, "device_revoked"),
    (delete_the_users_group, "not_permitted"),
    (of_server(started=False), "server_stopped"),
    (of_server(wireguard=False), "server_stopped"),
    (lambda company: ServerHost.objects.filter(server=company.server).delete(), "server_stopped"),
    (lambda company: Host.objects.filter(pk=company.host.pk).update(enabled=False), "server_stopped"),
    (lambda company: Host.objects.filter(pk=company.host.pk).delete(), "server_stopped"),
    (
        lambda company: addresses.assign(company.server, VpnUser.objects.get(name="alice"), "10.9.0.99"),
        "address_changed",
    ),
    (lambda company: Address.objects.filter(user__name="alice").delete(), "address_changed"),
    (of_server(wg_network="10.99.0.0/24"), "address_changed"),
    (of_server(ipv6=True, network6="fd09::/64"), "address_changed"),
    (shrink_the_network, "address_changed"),
]


@pytest.mark.parametrize("state", [State.OPEN, State.PENDING])
@pytest.mark.parametrize(("change", "reason"), CHANGES)
def test_a_change_ends_exactly_those_whom_it_concerns(
    company: Company, bystander: Connection, change: Callable[[Company], object], reason: str, state: str
) -> None:
    row = live(company, company.hire("alice")[0], state=state)
    assert reaper.enforce(NOW) == 0
    change(company)
    assert reaper.enforce(NOW + 1) == 1
    assert reasons() == {"alice": reason, "bob": "open"}
    decision = Decision.objects.get()
    layer = "own_page" if reason == "device_revoked" else "policy"
    assert (decision.layer, decision.code, decision.user_name) == (layer, reason, "alice (Acme)")
    # Idempotent: a second one finds nothing, tells nobody, writes nothing.
    told = messages(company.host, "hostnet.remove_peers")
    if Host.objects.filter(pk=company.host.pk).exists():
        assert [message["connections"] for message in told] == [[row.public_id]]
    assert reaper.enforce(NOW + 2) == 0
    assert messages(company.host, "hostnet.remove_peers") == []


def test_changes_that_take_nobodys_right_end_nobody(company: Company, bystander: Connection) -> None:
    user, _ = company.hire("alice")
    live(company, user)
    grouped(company)
    company.server.groups.add(Group.objects.create(name="guests"))
    company.server.organizations.add(Organization.objects.create(name="New"))
    VpnUser.objects.update(email="a@example.com")
    add_host(company.server, "gate-2")
    Server.objects.update(port=6000, mtu=1400, multi_device=True)
    ask(company.server, "required", totp=True)
    FactorOverride.objects.create(user=user, kind="totp", state="required")
    assert reaper.enforce(NOW) == 0


def test_multi_device_and_dynamic_addresses_are_left_alone(company: Company) -> None:
    user, _ = company.hire("alice")
    live(company, user)
    live(company, user, host_part=addresses.dynamic_address(company.server, user).host_part)
    assert reaper.enforce(NOW) == 0


def test_ipv6_addresses_compare_as_the_database_spells_them(company: Company, host: HostStandIn) -> None:
    company.server.ipv6, company.server.network6 = True, "2001:db8:0:0:1::/80"
    company.server.save()
    make_request(company.hire("alice")[1], plaintext()).send()
    assert Connection.objects.get().address6 is not None
    assert reaper.enforce(NOW) == 0
    company.server.ipv6 = False
    company.server.save()
    assert reaper.enforce(NOW) == 1


def test_disabling_by_the_model_asks_for_it_after_commit(transactional_db: None, fixed_clock: Clock) -> None:
    company = found()
    user, _ = company.hire("alice")
    live(company, user)
    queued()
    user.enabled = False
    user.save()
    assert ("wgpeers.enforce", []) in queued()
    tasks.enforce()
    assert reasons() == {"alice": "not_permitted"}
    company.organization.enabled = False
    company.organization.save()
    assert ("wgpeers.enforce", []) in queued()


def test_an_address_given_by_hand_asks_for_it_after_commit(transactional_db: None, fixed_clock: Clock) -> None:
    company = found()
    user, _ = company.hire("alice")
    queued()
    addresses.assign(company.server, user, "10.9.0.50")
    assert ("wgpeers.enforce", []) in queued()
    with pytest.raises(ValidationError):
        addresses.assign(company.server, company.hire("bob")[0], "10.9.0.50")
    assert ("wgpeers.enforce", []) not in queued()


def test_the_slow_beat_enforces_too(company: Company) -> None:
    live(company, company.hire("alice")[0])
    VpnUser.objects.update(enabled=False)  # past the models
    tasks.converge_all()
    assert reasons() == {"alice": "not_permitted"}
