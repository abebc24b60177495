"""The first rows: made once, right for this machine, and never forced back on an administrator."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client

from servers.models import Host, Server
from users.models import Organization, VpnUser
from wgpeers.management import first_rows, one_time_passwords
from wgpeers.models import ProfileLink

pytestmark = pytest.mark.django_db(transaction=True)

MACHINE = first_rows.Machine(
    name="alpha", host_id="", address="198.51.100.7", old_address="", wireguard_port=51820, in_use=()
)
NOW = 1790000000.0


def test_everything_is_there_after_the_first_start_and_only_once() -> None:
    assert len(first_rows.make_admin()) == one_time_passwords.LENGTH
    host = first_rows.make_host(MACHINE)
    link = first_rows.make_server(host, MACHINE, NOW)
    assert link is not None
    assert first_rows.make_admin() == ""
    again = first_rows.make_host(replace(MACHINE, host_id=host.public_id))
    assert again.pk == host.pk
    assert first_rows.make_server(again, MACHINE, NOW) is None
    server = Server.objects.get()
    assert server.running
    assert list(server.hosts.all()) == [host]
    assert list(server.organizations.all()) == [Organization.objects.get()]
    assert (User.objects.count(), VpnUser.objects.count(), ProfileLink.objects.count()) == (1, 1, 1)


def test_the_password_is_stored_as_a_hash_only_and_signs_in() -> None:
    password = first_rows.make_admin()
    admin = User.objects.get()
    assert admin.check_password(password)
    assert password not in admin.password
    assert admin.password.startswith("argon2$")


def test_a_forgotten_password_is_replaced_by_one_that_must_be_changed(capsys: pytest.CaptureFixture[str]) -> None:
    first = first_rows.make_admin()
    user = User.objects.get()
    user.set_password("one of their own")
    user.save()
    call_command("new_password", "admin")
    password = capsys.readouterr().out.strip()
    client = Client()
    assert client.login(username="admin", password=password)
    assert password != first
    assert not Client().login(username="admin", password="one of their own")
    response = client.get("/admin/", secure=True, headers={"Host": "localhost"})
    assert (response.status_code, response["Location"]) == (302, "/admin/password_change/?next=%2Fadmin%2F")


def test_sessions_end_with_the_password_that_was_forgotten() -> None:
    first_rows.make_admin()
    client = Client()
    client.force_login(User.objects.get())
    assert client.get("/admin/logout/", secure=True, headers={"Host": "localhost"}).status_code != 302
    call_command("new_password", "admin")
    assert "/admin/login/" in client.get("/admin/", secure=True, headers={"Host": "localhost"})["Location"]


@pytest.mark.parametrize("name", ["nobody", "retired", "-x", ""])
def test_nobody_else_is_given_a_password(name: str) -> None:
    first_rows.make_admin()
    User.objects.create_user("retired", is_staff=True, is_active=False)
    before = list(User.objects.values_list("username", "password"))
    with pytest.raises(CommandError, match="there are: admin"):
        call_command("new_password", "--", name)
    assert list(User.objects.values_list("username", "password")) == before


def test_an_administrator_of_another_name_is_enough() -> None:
    User.objects.create_superuser("carol", password="x" * 20)
    assert first_rows.make_admin() == ""
    assert User.objects.count() == 1


def test_what_was_deleted_or_renamed_is_not_made_again() -> None:
    host = first_rows.make_host(MACHINE)
    first_rows.make_server(host, MACHINE, NOW)
    VpnUser.objects.all().delete()
    Server.objects.update(name="Office")
    assert first_rows.make_server(host, MACHINE, NOW) is None
    assert not VpnUser.objects.exists()


def test_the_hosts_address_follows_the_machines() -> None:
    host = first_rows.make_host(MACHINE)
    moved = replace(MACHINE, host_id=host.public_id, address="203.0.113.9", old_address="198.51.100.7")
    version = Host.objects.get().version
    first_rows.make_host(moved)
    host.refresh_from_db()
    assert host.public_address == "203.0.113.9"
    assert host.version > version
    six = replace(moved, address="2001:db8::9", old_address="203.0.113.9")
    first_rows.make_host(six)
    host.refresh_from_db()
    assert (host.public_address, host.public_address6) == ("", "2001:db8::9")


def test_an_address_that_was_edited_in_the_admin_stays() -> None:
    host = first_rows.make_host(MACHINE)
    Host.objects.update(public_address="vpn.example.com")
    first_rows.make_host(replace(MACHINE, host_id=host.public_id, address="203.0.113.9", old_address="198.51.100.7"))
    assert Host.objects.get().public_address == "vpn.example.com"


def test_a_second_machine_with_the_same_database_is_a_host_of_its_own() -> None:
    first_rows.make_host(MACHINE)
    second = first_rows.make_host(replace(MACHINE, address="203.0.113.9"))
    assert second.name == "alpha-2"
    assert Host.objects.count() == 2


def test_networks_that_the_machine_routes_are_avoided() -> None:
    assert first_rows.choose_networks([]) == ("10.8.0.0/20", "10.9.0.0/20")
    inside = ipaddress.IPv4Network("10.9.3.0/24")
    assert first_rows.choose_networks([inside]) == ("10.18.0.0/20", "10.19.0.0/20")
    assert first_rows.choose_networks([ipaddress.IPv4Network("10.0.0.0/8")])[0].startswith("172.")


def test_the_routing_table_is_read_as_the_kernel_prints_it(tmp_path: Path) -> None:
    table = tmp_path / "route"
    table.write_text(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        "wgs1\t0000090A\t00000000\t0001\t0\t0\t0\t00F0FFFF\t0\t0\t0\n"
    )
    assert first_rows.routed_networks(tmp_path) == (ipaddress.IPv4Network("192.0.2.0/24"),)
