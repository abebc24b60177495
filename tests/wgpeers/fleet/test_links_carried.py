"""Which hosts carry a link that is by OpenVPN, what each of them is told, and who takes over."""

from __future__ import annotations

import dataclasses

import pytest

from core import task_names
from core.redis_store import redis_client
from servers import carriers, outside_links
from servers.hostnet.agent import decoding
from servers.hostnet.state import Link, to_json
from servers.models import Carrier, Host, MeshNode, OutsideLink, Server, ServerHost, ServerLink
from tests.connection_rows import queued
from tests.factories import Company, add_host, revive, silence
from tests.protocol_client import NOW, new_wg_key
from wgpeers import tasks
from wgpeers.fleet.desired import state_of


@dataclasses.dataclass
class Four:
    """The company's server is on ``here``, the other one on ``there``; each in order of priority."""

    ours: Server
    theirs: Server
    here: list[Host]
    there: list[Host]

    def link(self, host: Host) -> Link:
        """As ``host`` is told of it."""
        state = state_of(host.pk)
        assert state is not None
        assert decoding.read(decoding.FULL_STATE, to_json(state), state.host) == state
        (interface,) = state.interfaces
        (link,) = interface.links
        return link

    def told(self) -> set[str]:
        """The hosts that hear of what the next look has found."""
        queued()
        tasks.take_reports()
        found = {arguments[0] for task, arguments in queued() if task == task_names.CONVERGE}
        return set(Host.objects.filter(pk__in=found).values_list("name", flat=True))


@pytest.fixture
def four(company: Company) -> Four:
    theirs = Server.objects.create(
        name="Lab", network="10.18.0.0/24", wg_network="10.19.0.0/24", port=51821, started=True
    )  # fmt: skip
    here = [company.host, add_host(company.server, "gate-2", address="192.0.2.2", priority=2)]
    there = [add_host(theirs, f"lab-{number}", address=f"192.0.2.1{number}", priority=number) for number in (1, 2)]
    for part, host in enumerate((*here, *there), 1):
        MeshNode.objects.create(host=host, host_part=part, public_key=new_wg_key())
    return Four(company.server, theirs, here, there)


@pytest.fixture
def link(four: Four) -> ServerLink:
    row = ServerLink(first=four.ours, second=four.theirs, carrier=Carrier.OPENVPN)
    row.full_clean()
    row.save()
    return row


def test_one_host_of_each_has_the_end_and_the_others_their_way_to_it(four: Four, link: ServerLink) -> None:
    for hosts in (four.here, four.there):
        first, other = (four.link(host) for host in hosts)
        assert first.openvpn is not None
        assert (first.via, first.there) == ("", False)
        assert (other.openvpn, other.via, other.there) == (None, hosts[0].public_id, True)
        assert (other.networks, other.behind) == (first.networks, first.behind)
    listens, sends = four.link(four.here[0]).openvpn, four.link(four.there[0]).openvpn
    assert listens is not None
    assert listens.listens
    assert sends is not None
    assert sends.addresses == tuple(host.public_address for host in four.here)


def test_when_the_one_that_carries_it_falls_silent_another_does_and_keeps_it(four: Four, link: ServerLink) -> None:
    four.told()
    assert four.told() == set()
    silence(four.here[0])
    assert four.told() == {"gate-1", "gate-2", "lab-1", "lab-2"}
    assert four.told() == set()
    now = four.link(four.here[1])
    assert now.openvpn is not None
    assert four.link(four.here[0]).via == four.here[1].public_id
    sends = four.link(four.there[0]).openvpn
    assert sends is not None
    assert sends.addresses == (four.here[1].public_address, four.here[0].public_address)
    # Back to who is before it by priority; among equals it stays.
    ServerHost.objects.filter(server=four.ours).update(priority=1)
    revive(four.here[0])
    assert four.told() == set()
    ServerHost.objects.filter(server=four.ours, host=four.here[1]).update(priority=2)
    assert four.told() == {"gate-1", "gate-2", "lab-1", "lab-2"}
    assert four.link(four.here[0]).openvpn is not None


def test_all_are_told_the_same_whenever_they_are_told(four: Four, link: ServerLink) -> None:
    """Who is told between a silence and the next look must not hear of another host than the rest did."""
    four.told()
    silence(four.here[0])
    assert four.link(four.here[0]).openvpn is not None
    assert four.link(four.here[1]).via == four.here[0].public_id


def test_a_worker_that_begins_anew_keeps_it_and_one_that_is_being_emptied_hands_it_on(
    four: Four, link: ServerLink
) -> None:
    four.told()
    redis_client().set(f"{four.here[0].queue}:alive", '{"boot": "b", "version": 0}', ex=60)
    assert four.told() == set()
    revive(four.here[0])
    Host.objects.filter(pk=four.here[0].pk).update(draining=True)
    assert four.told() == {"gate-1", "gate-2", "lab-1", "lab-2"}
    Host.objects.filter(pk=four.here[1].pk).update(enabled=False)
    assert four.told() == {"gate-1", "gate-2", "lab-1", "lab-2"}


def test_a_host_that_is_no_more_the_servers_does_not_carry_it(four: Four, link: ServerLink) -> None:
    four.told()
    four.ours.attachments.filter(host=four.here[0]).delete()
    assert four.link(four.here[1]).openvpn is not None  # before anybody has looked
    four.told()
    four.ours.attachments.all().delete()
    four.told()
    state = state_of(four.there[0].pk)
    assert state is not None
    assert state.interfaces[0].links == ()
    link.delete()
    four.told()
    assert not [name for name in redis_client().hgetall(carriers.CHOSEN) if "link" in str(name)]


def test_a_link_to_another_installation_is_carried_by_one_as_well(four: Four) -> None:
    row = OutsideLink(server=four.ours, name="Acme", ours=four.ours.wg_network, theirs="10.60.0.0/24")
    row.full_clean()
    row.save()
    outside_links.make_file(row, NOW)
    four.told()
    first, other = (four.link(host) for host in four.here)
    assert first.openvpn is not None
    assert (other.openvpn, other.via, other.there, other.outside) == (None, four.here[0].public_id, True, True)
    silence(four.here[0])
    assert four.told() == {"gate-1", "gate-2"}
    assert four.link(four.here[1]).openvpn is not None
    state = state_of(four.here[0].pk)
    assert state is not None
    interface = dataclasses.replace(state.interfaces[0], links=(dataclasses.replace(other, via=""),))
    with pytest.raises(decoding.BadMessage):
        decoding.read(decoding.FULL_STATE, to_json(dataclasses.replace(state, interfaces=(interface,))), state.host)
