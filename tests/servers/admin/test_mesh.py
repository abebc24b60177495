"""Adding a machine in the admin: one command, shown once; and the mesh that machines have among themselves."""

from __future__ import annotations

import re

import pytest
from django.conf import LazySettings
from django.db.models import ProtectedError
from django.test import Client

from core.redis_store import redis_client
from servers import mesh
from servers.admin import mesh as mesh_page
from servers.hostnet.state.joining import Token
from servers.models import Host, JoinToken, Mesh, MeshNode, PortForward, Route, Server
from tests.admin_site import errors, form_data, queued, send, staff
from tests.conftest import Clock
from tests.servers.test_joining import ask, new_key
from users.models import Organization, VpnUser
from wgpeers import tasks

HOSTS, MESH = "/admin/servers/host/", "/admin/servers/mesh/"


@pytest.fixture
def admin(client: Client, transactional_db: None, fixed_clock: Clock, settings: LazySettings) -> Client:
    settings.API_URLS = ["https://vpn.example.com:8443"]
    staff(client, superuser=True)
    return client


@pytest.fixture
def control(admin: Client) -> Host:
    host = Host.objects.create(name="control", public_address="198.51.100.1")
    mesh.control_node(host)
    mesh.note_key(host, new_key())
    return host


def command(page: str) -> tuple[str, Token]:
    """The address and the token of the command that a page shows."""
    found = re.search(r"bin/host join (\S+) (join1-\S+?)</pre>", page)
    assert found is not None, page
    return found[1], Token.parse(found[2])


def test_adding_a_host_makes_a_row_and_shows_one_command(admin: Client, control: Host) -> None:
    data = form_data(admin.get(f"{HOSTS}add/")) | {"name": "Berlin", "public_address": "198.51.100.2"}
    response = admin.post(f"{HOSTS}add/", data)
    assert "no-store" in response["Cache-Control"]
    address, token = command(response.content.decode())
    assert address == "vpn.example.com:8443"
    berlin = Host.objects.get(name="Berlin")
    assert "waits for its machine" in admin.get(f"{HOSTS}{berlin.pk}/change/").content.decode()
    status, said = ask(token)
    assert (status, said["name"]) == (200, "Berlin")
    page = admin.get(f"{HOSTS}{berlin.pk}/change/").content.decode()
    assert token.text not in page
    assert "in the mesh" in page
    assert mesh.addresses(mesh.the_mesh(), berlin.node)[0] in page


def test_host_that_is_there_gets_a_new_command_by_a_button(admin: Client, control: Host) -> None:
    berlin = Host.objects.create(name="Berlin", public_address="198.51.100.2")
    url = f"{HOSTS}{berlin.pk}/do/make_token/"
    first = command(admin.post(url).content.decode())[1]
    second = command(admin.post(url).content.decode())[1]
    assert ask(first)[1]["error"] == "unknown_token"
    assert ask(second)[0] == 200
    # By GET nothing happens.
    JoinToken.objects.all().delete()
    assert admin.get(url).status_code == 302
    assert not JoinToken.objects.exists()


def test_who_may_only_look_gets_no_command(client: Client, control: Host) -> None:
    staff(client, "servers.view_host")
    assert "Join" not in client.get(f"{HOSTS}{control.pk}/change/").content.decode().replace("Joined", "")
    assert client.post(f"{HOSTS}{control.pk}/do/make_token/").status_code == 403
    assert not JoinToken.objects.exists()


def test_control_node_is_joined_by_a_superuser_alone_and_where_its_stores_are_shared(
    admin: Client, control: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    berlin = Host.objects.create(name="Berlin", public_address="198.51.100.2")
    page, url = f"{HOSTS}{berlin.pk}/change/", f"{HOSTS}{berlin.pk}/do/make_control_token/"
    shown = admin.get(page).content.decode()
    assert "Join a machine" in shown
    assert "Join a control node" in shown
    said = admin.post(url, follow=True).content.decode()
    assert "Redis is reached by a socket" in said
    assert not JoinToken.objects.exists()
    monkeypatch.setattr(mesh_page, "what_keeps_to_one_machine", list)
    response = admin.post(url)
    assert "no-store" in response["Cache-Control"]
    shown = response.content.decode()
    assert re.search(r"sudo bin/run --join vpn\.example\.com:8443 join1-\S{70,}</pre>", shown)
    assert "every secret of this installation" in shown
    assert JoinToken.objects.get().control
    JoinToken.objects.all().delete()
    other = Client()
    staff(other, "servers.view_host", "servers.change_host")
    assert "Join a control node" not in other.get(page).content.decode()
    assert other.post(url).status_code == 403
    assert not JoinToken.objects.exists()


def test_removing_a_host_takes_it_out_of_the_mesh(admin: Client, control: Host) -> None:
    berlin = Host.objects.create(name="Berlin", public_address="198.51.100.2")
    assert ask(command(admin.post(f"{HOSTS}{berlin.pk}/do/make_token/").content.decode())[1])[0] == 200
    before = Host.objects.get(pk=control.pk).version
    admin.post(f"{HOSTS}{berlin.pk}/delete/", {"post": "yes"})
    assert [node.host for node in MeshNode.objects.all()] == [control]
    assert mesh.mesh_of(control) is None
    assert Host.objects.get(pk=control.pk).version > before
    # The others are told once it was dismissed.
    assert "wgpeers.dismiss" in queued()
    redis_client().delete("control")
    tasks.dismiss(berlin.public_id, 9, "boot")
    assert queued() == ["wgpeers.converge"]


def test_host_by_way_of_which_others_reach_redis_stays(admin: Client, control: Host) -> None:
    berlin = Host.objects.create(name="Berlin", public_address="198.51.100.2")
    assert ask(command(admin.post(f"{HOSTS}{berlin.pk}/do/make_token/").content.decode())[1])[0] == 200
    url = f"{HOSTS}{control.pk}/delete/"
    assert "other machines reach the control side by way of it alone" in admin.get(url).content.decode()
    admin.post(url, {"post": "yes"})
    with pytest.raises(ProtectedError, match="remove their hosts first"):
        control.delete()
    with pytest.raises(ProtectedError):
        Host.objects.all().delete()
    assert Host.objects.count() == 2
    berlin.delete()
    control.delete()
    assert not MeshNode.objects.exists()


def test_mesh_is_one_row_that_is_changed_and_neither_added_nor_deleted(admin: Client, control: Host) -> None:
    assert Mesh.objects.count() == 1
    assert admin.get(f"{MESH}add/").status_code == 403
    page = f"{MESH}1/change/"
    shown = admin.get(page).content.decode()
    assert "control side" in shown
    assert "Who reaches whom" in shown
    old = mesh.the_mesh().network
    assert errors(send(admin, page, network="10.77.0.0/16")) == {}
    row = mesh.the_mesh()
    assert (row.network, row.former) == ("10.77.0.0/16", old)
    # Both hold for a while, so that machines hear of it by the way they know.
    assert mesh.addresses(row, control.node) == ["10.77.0.1", old.replace("::/64", "::1")]


def test_network_of_before_ends_by_itself(admin: Client, control: Host, fixed_clock: Clock) -> None:
    send(admin, f"{MESH}1/change/", network="10.77.0.0/16")
    fixed_clock.advance(mesh.FORMER_FOR - 1)
    mesh.forget_former(fixed_clock.now)
    assert len(mesh.addresses(mesh.the_mesh(), control.node)) == 2
    fixed_clock.advance(2)
    before = Host.objects.get(pk=control.pk).version
    mesh.forget_former(fixed_clock.now)
    assert mesh.addresses(mesh.the_mesh(), control.node) == ["10.77.0.1"]
    assert Host.objects.get(pk=control.pk).version > before


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("nonsense", "not a network"),
        ("10.77.0.1/24", "host bits"),
        ("10.77.0.0/30", "too small"),
        ("127.0.0.0/8", "cannot be used"),
        ("fe80::/64", "cannot be used"),
        ("224.0.0.0/8", "cannot be used"),
        ("10.8.0.0/16", "of server office"),
        ("10.9.0.0/24", "of server office"),
        ("10.50.0.0/16", "a route of server office"),
        ("10.60.0.0/16", "overlaps 10.60.1.0/24 on eth1 of host Paris"),
        ("192.0.2.0/24", "overlaps 192.0.2.7, the public address of host Paris"),
    ],
)
def test_network_that_cannot_be_the_meshs_is_refused(admin: Client, control: Host, network: str, words: str) -> None:
    server = Server.objects.create(name="office", network="10.8.0.0/24", wg_network="10.9.0.0/24")
    Route.objects.create(server=server, network="10.50.3.0/24")
    has = [["attached", "10.60.1.0/24", "eth1"], ["address", "10.78.0.2/32", "wgm0"]]
    Host.objects.create(name="Paris", public_address="192.0.2.7", networks=has)
    before = mesh.the_mesh().network
    said = errors(send(admin, f"{MESH}1/change/", network=network))
    assert words in " ".join(said["network"])
    assert mesh.the_mesh().network == before


def test_port_that_a_server_or_a_forward_has_is_refused_and_so_is_the_other_way_round(
    admin: Client, control: Host
) -> None:
    server = Server.objects.create(name="office", network="10.8.0.0/24", wg_network="10.9.0.0/24", port=51820)
    user = VpnUser.objects.create(organization=Organization.objects.create(name="Org"), name="alice")
    PortForward.objects.create(server=server, user=user, protocol="udp", port=51999, to_port=1)
    page = f"{MESH}1/change/"
    assert "server office" in errors(send(admin, page, port=51820))["port"][0]
    assert "forwarded to alice" in errors(send(admin, page, port=51999))["port"][0]
    said = errors(send(admin, f"/admin/servers/server/{server.pk}/change/", port=51800))
    assert said["port"] == ["UDP port 51800 is that of the mesh."]
    network = str(mesh.the_mesh().network)
    said = errors(send(admin, f"/admin/servers/server/{server.pk}/change/", ipv6=True, network6=network))
    assert "network of the mesh" in said["network6"][0]
