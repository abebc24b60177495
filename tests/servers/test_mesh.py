"""What machines say of themselves, and whom a change of one concerns."""

from __future__ import annotations

import ipaddress

import pytest

from servers import mesh
from servers.hostnet.state import HostState
from servers.models import Host, MeshNode
from servers.models.mesh import random_network
from tests.conftest import Clock
from tests.servers.test_joining import new_key
from wgpeers.fleet import desired, reports

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def control(fixed_clock: Clock) -> Host:
    host = Host.objects.create(name="control", public_address="198.51.100.1")
    mesh.control_node(host, "a" * 64)
    return host


@pytest.fixture
def berlin(control: Host) -> Host:
    host = Host.objects.create(name="Berlin", public_address="berlin.example.com")
    MeshNode.objects.create(host=host, host_part=2, public_key=new_key(), redis_hash="b" * 64)
    return host


def hello(host: Host, key: object) -> None:
    reports.take_report(host, {"kind": "hello", "boot": "b", "backend": "kernel", "mesh_key": key}, 0.0)


def key_of(host: Host) -> str:
    return MeshNode.objects.get(host=host).public_key


def state(host: Host) -> HostState:
    found = desired.state_of(host.pk)
    assert found is not None
    return found


def test_machine_says_its_key_and_the_others_are_told_where_it_is(control: Host, berlin: Host) -> None:
    assert state(control).mesh is None  # nobody knows its key yet
    key = new_key()
    before = Host.objects.get(pk=berlin.pk).version
    hello(control, key)
    assert Host.objects.get(pk=berlin.pk).version > before
    told = state(berlin).mesh
    assert told is not None
    assert [(peer.host, peer.public_key, peer.endpoints) for peer in told.peers] == [
        (control.public_id, key, ("198.51.100.1:51800",))
    ]
    theirs = state(control).mesh
    assert theirs is not None
    assert theirs.peers[0].endpoints == ("berlin.example.com:51800",)
    assert (theirs.serves, told.serves) == ((9790, 9791), ())
    # Each by its own addresses when it hands on what is another one's, which are the peer's there.
    assert theirs.relays == told.peers[0].relays == ("240.0.0.1/32", "64:ff9b:1:e000::1/128")
    assert told.relays == theirs.peers[0].relays == ("240.0.0.2/32", "64:ff9b:1:e000::2/128")
    # Said again, it is no change.
    before = Host.objects.get(pk=berlin.pk).version
    hello(control, key)
    assert Host.objects.get(pk=berlin.pk).version == before


@pytest.mark.parametrize("key", [None, 5, "", "x", "A" * 43 + "=x", ["key"]])
def test_key_that_is_none_changes_nothing(control: Host, key: object) -> None:
    hello(control, key)
    assert key_of(control) == ""


def test_nobody_joins_by_saying_a_key(control: Host) -> None:
    stranger = Host.objects.create(name="stranger", public_address="198.51.100.9")
    hello(stranger, new_key())
    assert not MeshNode.objects.filter(host=stranger).exists()


def test_nobody_takes_the_key_of_another_machine(control: Host, berlin: Host) -> None:
    hello(control, new_key())
    before = key_of(berlin)
    hello(berlin, key_of(control))
    assert key_of(berlin) == before


def test_new_address_of_a_machine_is_told_to_all_others(control: Host, berlin: Host) -> None:
    before = Host.objects.get(pk=control.pk).version
    berlin.public_address = "198.51.100.77"
    berlin.save()
    assert Host.objects.get(pk=control.pk).version > before
    # One that is in no mesh concerns nobody else.
    before = Host.objects.get(pk=control.pk).version
    Host.objects.create(name="stranger", public_address="198.51.100.9")
    assert Host.objects.get(pk=control.pk).version == before


def test_machine_that_leaves_takes_itself_out_and_nobody_else(control: Host, berlin: Host) -> None:
    reports.take_report(control, {"kind": "left", "boot": "b"}, 0.0)
    assert MeshNode.objects.filter(host=control).exists()  # where Redis is there is nowhere to leave to
    reports.take_report(berlin, {"kind": "left", "boot": "b"}, 0.0)
    assert [node.host for node in MeshNode.objects.all()] == [control]
    assert Host.objects.filter(pk=berlin.pk).exists()


def test_control_node_is_made_once_and_keeps_its_place(control: Host) -> None:
    node = mesh.control_node(control)
    assert (node.host_part, node.redis_hash, node.control) == (1, "a" * 64, True)
    assert mesh.control_node(control, "c" * 64).redis_hash == "c" * 64
    assert MeshNode.objects.count() == 1


def test_networks_made_at_random_are_spelled_as_all_others() -> None:
    for network in {random_network() for _ in range(500)}:  # one in five has a group that begins with a zero
        assert network == str(ipaddress.ip_network(network))
        assert ipaddress.ip_network(network).is_private
