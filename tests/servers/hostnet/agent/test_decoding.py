"""What a host takes for a message, and what it drops."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.hostnet.agent.decoding import (
    ADD_PEER,
    ADD_REMOTES,
    FULL_STATE,
    REMOVE_PEERS,
    REMOVE_REMOTES,
    SHOW_PLAN,
    BadMessage,
    OfLater,
    read,
)
from servers.hostnet.state import (
    AddPeer,
    AddRemotes,
    Dns,
    Forward,
    Gateway,
    HostState,
    Interface,
    Link,
    Peer,
    Probe,
    Remote,
    RemovePeers,
    RemoveRemotes,
    Route,
    ShowPlan,
    Split,
    to_json,
)
from servers.hostnet.state.version import FORMAT

KEY = base64.b64encode(bytes(32)).decode()
PEER = Peer("c1", 7, KEY, ("10.9.0.5/32", "fd01::5/128"))
RED = Interface("wgs1", "red", 51820, ("10.9.0.1/24",), 0, False, 360, (Route("10.0.0.0/8", True),), (PEER,))
STATE = HostState("h1", 10, "boot", 9790, (RED,))
ADD = AddPeer("red", PEER, ("c0",), "host.h1:confirm:c1")
REMOVE = RemovePeers(11, ("c1",), lingers=13.0)
# Everything that a state may have.
GATEWAY = Peer(
    "c2",
    8,
    KEY,
    ("10.9.0.6/32",),
    networks=("192.168.7.0/24", "fd77::/48"),
    probes=(Probe("192.168.7.0/24", "192.168.7.1", 0), Probe("fd77::/48", "fd77::1", 443)),
    forwards=(Forward("tcp", 8000, 8010, 80), Forward("udp", 53, 53, 53)),
    names=("laptop.bob.acme.vpn",),
)
DNS = Dns("vpn", ("9.9.9.9", "2620:fe::fe"), "dns.quad9.net", (Split("corp.example", ("10.0.0.53",)),))
LINK = Link(
    "green",
    "wgs3",
    ("10.19.0.0/24", "fd19::/64"),
    behind=("10.77.0.0/24",),
    routed=(Route("10.51.0.0/24", False), Route("10.60.0.0/24", True, "", "192.168.5.0/24")),
    via="h2",
    offered=(Route("10.1.0.0/16", True, "eth1"),),
    clients=False,
    masquerade=True,
    zone="green.vpn",
)
BLUE = Interface(
    "wgs2",
    "blue",
    51821,
    ("10.9.0.1/24",),
    1400,
    True,
    360,
    (Route("10.1.0.0/16", True, "eth1"), Route("10.2.0.0/16", False, "", "10.3.0.0/16")),
    (GATEWAY, Peer("c3", 9, KEY, ("10.9.0.7/32",), lingers=7.5)),
    restrict=False,
    dns=DNS,
    links=(LINK, Link("red", "wgs1", ("10.9.0.0/24",))),
)
GATEWAYS = (Gateway("fd00::1", 9790), Gateway("10.99.0.2", 9791))
WHOLE = HostState("h1", 11, "boot", 9790, (RED, BLUE), open_foreign_firewalls=True, gateways=GATEWAYS)
LAPTOP = Remote("c9", 5, 77, "red", "h2", ("10.9.0.9/32", "fd01::9/128"), ("192.168.7.0/24",), ("laptop.vpn",))
FAR = dataclasses.replace(STATE, remotes=(LAPTOP, Remote("c8", 6, 78, "red", "")), others=(("h2", 5), ("h3", 0)))
SHOW = ShowPlan(WHOLE, "host.h1:plan:0123abc")


def changed(value: Any, path: str, new: object) -> Any:
    """``value`` with what is at ``path`` (dotted; numbers index lists) replaced."""
    head, _, rest = path.partition(".")
    key = int(head) if isinstance(value, (list, tuple)) else head
    copy = list(value) if isinstance(value, (list, tuple)) else dict(value)
    copy[key] = changed(copy[key], rest, new) if rest else new  # type: ignore[index]
    return copy


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (FULL_STATE, STATE),
        (FULL_STATE, WHOLE),
        (ADD_PEER, ADD),
        (ADD_PEER, AddPeer("blue", GATEWAY)),
        (REMOVE_PEERS, REMOVE),
        (FULL_STATE, FAR),
        (ADD_REMOTES, AddRemotes((LAPTOP,))),
        (REMOVE_REMOTES, RemoveRemotes(("c1", "c2"))),
        (SHOW_PLAN, SHOW),
    ],
)
def test_message_survives_the_wire(task: str, message: Any) -> None:
    assert read(task, json.loads(json.dumps(to_json(message))), "h1") == message


def test_state_of_a_control_side_that_knows_no_links_has_none() -> None:
    data = to_json(STATE)
    del data["interfaces"][0]["links"]
    assert read(FULL_STATE, data, "h1") == STATE


@pytest.mark.parametrize(
    ("field", "new"),
    [
        ("interface", "eth0"),
        ("interface", 'wgs3" accept'),
        ("server", "../x"),
        ("networks", ["0.0.0.0/0"]),
        ("networks", ["10.19.0.1/24"]),
        ("behind", ["::/0"]),
        ("behind", ["10.77.0.0/24 accept"]),
        ("routed", [{"network": "0.0.0.0/0", "nat": True, "nat_interface": "", "netmap": ""}]),
        ("offered", [{"network": "::/0", "nat": True, "nat_interface": "", "netmap": ""}]),
        ("offered", [{"network": "10.1.0.0/16", "nat": True, "nat_interface": 'e" accept', "netmap": ""}]),
        ("via", "h2; x"),
        ("zone", "a zone"),
        ("clients", None),
    ],
)
def test_damaged_link_refuses_the_whole_state(field: str, new: object) -> None:
    data = changed(to_json(WHOLE), f"interfaces.1.links.0.{field}", new)
    if field == "clients":
        del data["interfaces"][1]["links"][0][field]
    with pytest.raises(BadMessage):
        read(FULL_STATE, data, "h1")


def test_addresses_are_taken_in_the_form_in_which_they_are_read_back() -> None:
    data = changed(to_json(STATE), "interfaces.0.peers.0.allowed_ips", ["10.9.0.5", "FD01:0::5/128"])
    data = changed(data, "interfaces.0.addresses", ["FD01:0:0::1/64"])
    state = read(FULL_STATE, data, "h1")
    assert isinstance(state, HostState)
    assert state.interfaces[0].peers[0].allowed_ips == ("10.9.0.5/32", "fd01::5/128")
    assert state.interfaces[0].addresses == ("fd01::1/64",)


@pytest.mark.parametrize(
    ("path", "new"),
    [
        ("host", "h2"),
        ("web_port", 0),
        ("web_port", 65536),
        ("interfaces", None),
        ("interfaces.0.name", "eth0"),
        ("interfaces.0.name", "wgs1; drop"),
        ("interfaces.0.server", "../../etc/passwd"),
        ("interfaces.0.server", ""),
        ("interfaces.0.port", 0),
        ("interfaces.0.mtu", 100),
        ("interfaces.0.ping_timeout", 0),
        ("interfaces.0.addresses.0", "10.9.0.1/24; accept"),
        ("interfaces.0.routes.0.network", "10.0.0.1/8"),
        ("interfaces.0.routes.0.network", "everywhere"),
        ("interfaces.0.peers.0.public_key", "short"),
        ("interfaces.0.peers.0.public_key", KEY + "\nprivate_key=00"),
        ("interfaces.0.peers.0.allowed_ips", []),
        ("interfaces.0.peers.0.allowed_ips", ["10.9.0.5/33"]),
        ("interfaces.0.peers.0.connection", ""),
        ("interfaces.0.peers.0.lingers", -1),
        ("interfaces.0.peers.0.lingers", float("nan")),
        ("interfaces.0.peers.0.lingers", float("inf")),
        ("interfaces.0.peers.0.lingers", 1e9),
        ("interfaces.0.peers.0.lingers", "long"),
        ("interfaces", [to_json(STATE)["interfaces"][0]] * 2),
    ],
)
def test_damaged_full_state_is_refused_whole(path: str, new: object) -> None:
    with pytest.raises(BadMessage):
        read(FULL_STATE, changed(to_json(STATE), path, new), "h1")


@pytest.mark.parametrize("name", ["host.h1:reports", "host.h2:confirm:c1", "host.h1:confirm:c2", "celery", "host.h1"])
def test_confirmation_goes_to_that_connections_list_only(name: str) -> None:
    with pytest.raises(BadMessage):
        read(ADD_PEER, changed(to_json(ADD), "confirm", name), "h1")
    assert read(ADD_PEER, changed(to_json(ADD), "confirm", ""), "h1")


@pytest.mark.parametrize(
    ("path", "new"),
    [
        ("networks.0", "192.168.7.1/24"),
        ("networks.0", "0.0.0.0/0"),
        ("networks.1", "::/0"),
        ("networks.0", "10.0.0.0/8; accept"),
        ("probes.0.address", "gateway"),
        ("probes.0.network", "192.168.7.1/24"),
        ("probes.0.port", 65536),
        ("probes.0.port", -1),
        ("forwards.0.protocol", "tcp drop"),
        ("forwards.0.port", 0),
        ("forwards.0.last", 7999),
        ("forwards.0.last", 65536),
        ("forwards.0.to_port", 0),
        ("forwards.0.to_port", 65530),
        ("names.0", "laptop.bob\nserver:"),
        ("names.0", 'x"'),
        ("names.0", "-x.vpn"),
    ],
)
def test_damaged_peer_is_refused(path: str, new: object) -> None:
    data = to_json(AddPeer("blue", GATEWAY))
    with pytest.raises(BadMessage):
        read(ADD_PEER, changed(data, f"peer.{path}", new), "h1")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "host.h1:reports",
        "host.h2:plan:1",
        "host.h1:plan:",
        "host.h1:plan:a:b",
        "host.h1:plan",
        "host.h1:alive",
        "x",
    ],
)
def test_plan_is_told_to_a_list_of_its_own_only(name: str) -> None:
    with pytest.raises(BadMessage):
        read(SHOW_PLAN, changed(to_json(SHOW), "confirm", name), "h1")


@pytest.mark.parametrize(("path", "new"), [("state.host", "h2"), ("state", None), ("state.interfaces.0.name", "eth0")])
def test_plan_of_a_damaged_state_is_refused(path: str, new: object) -> None:
    with pytest.raises(BadMessage):
        read(SHOW_PLAN, changed(to_json(SHOW), path, new), "h1")


@pytest.mark.parametrize("lingers", [-1, float("nan"), 1e9, "long", None])
def test_a_removal_without_an_end_is_refused(lingers: object) -> None:
    with pytest.raises(BadMessage):
        read(REMOVE_PEERS, changed(to_json(REMOVE), "lingers", lingers), "h1")


def test_an_ended_connection_is_not_added() -> None:
    with pytest.raises(BadMessage):
        read(ADD_PEER, to_json(AddPeer("red", PEER.lingering(13))), "h1")


@pytest.mark.parametrize(
    ("path", "new"),
    [
        ("host", "h 2"),
        ("host", "h2; drop"),
        ("host", ""),
        ("connection", ""),
        ("number", "first"),
        ("version", None),
        ("allowed_ips", []),
        ("allowed_ips.0", "0.0.0.0/0"),
        ("allowed_ips.0", "10.9.0.9/24"),
        ("networks.0", "::/0"),
        ("networks.0", "192.168.7.1/24"),
        ("names.0", "laptop\nserver:"),
    ],
)
def test_damaged_remote_is_refused_alone_and_in_a_state(path: str, new: object) -> None:
    with pytest.raises(BadMessage):
        read(ADD_REMOTES, changed(to_json(AddRemotes((LAPTOP,))), f"remotes.0.{path}", new), "h1")
    if (path, new) != ("host", ""):  # it may wait for its host there, with nothing that is sent to it
        with pytest.raises(BadMessage):
            read(FULL_STATE, changed(to_json(FAR), f"remotes.0.{path}", new), "h1")


@pytest.mark.parametrize(
    ("task", "message"),
    [(FULL_STATE, WHOLE), (ADD_PEER, ADD), (REMOVE_PEERS, REMOVE), (ADD_REMOTES, AddRemotes(())), (SHOW_PLAN, SHOW)],
)
def test_what_needs_a_later_release_is_refused_in_words_and_what_only_has_more_is_taken(
    task: str, message: Any
) -> None:
    later = changed(to_json(message), "format", FORMAT + 1)
    assert read(task, later, "h1") == OfLater(FORMAT + 1, getattr(message, "confirm", ""))
    assert read(task, {**to_json(message), "of a later release": [1]}, "h1") == message
    # Whatever else it says, no other list is written to.
    for name in ("host.h1:reports", "host.h2:confirm:c1", "host.h1:confirm:", "celery", 7):
        assert read(task, {**later, "confirm": name}, "h1") == OfLater(FORMAT + 1, "")


def with_more(value: Any) -> Any:
    """As a later release may write it: one more field in each object, at every depth."""
    if isinstance(value, dict):
        return {**{name: with_more(each) for name, each in value.items()}, "of_a_later_release": {"x": [1]}}
    return [with_more(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(
    ("task", "message"),
    [
        *((FULL_STATE, WHOLE), (ADD_PEER, ADD), (REMOVE_PEERS, REMOVE), (SHOW_PLAN, SHOW), (FULL_STATE, FAR)),
        (ADD_REMOTES, AddRemotes((LAPTOP,))),
    ],
)
def test_fields_that_are_not_known_are_left_unread_at_every_depth(task: str, message: Any) -> None:
    assert read(task, with_more(to_json(message)), "h1") == read(task, to_json(message), "h1")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
paths = ["host", "version", "interfaces", "interfaces.0", "interfaces.0.peers", "interfaces.0.peers.0.version"]
paths += ["interfaces.0.routes", "interfaces.0.addresses", "interfaces.0.peers.0.allowed_ips", "interfaces.0.port"]


@given(st.sampled_from(paths), json_values)
def test_no_value_raises_anything_but_bad_message(path: str, new: object) -> None:
    try:
        message = read(FULL_STATE, changed(to_json(STATE), path, new), "h1")
    except BadMessage:
        return
    assert isinstance(message, HostState)


@given(st.sampled_from([FULL_STATE, ADD_PEER, REMOVE_PEERS, SHOW_PLAN, "celery.chord", ""]), json_values)
def test_nothing_at_all_is_refused(task: str, data: object) -> None:
    with pytest.raises(BadMessage):
        read(task, data, "h1")
