"""The mesh on its way to a host: as JSON, checked there, and kept in a file for the next start."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from servers.hostnet.agent.decoding import FULL_STATE, BadMessage, read
from servers.hostnet.mesh import memory
from servers.hostnet.state import Forward, HostState, Mesh, MeshPeer, Remote, to_json
from servers.hostnet.state.redis_urls import in_mesh, with_password

KEY = base64.b64encode(bytes(range(32))).decode()
RELAYS = ("240.0.0.2/32", "64:ff9b:1:e000::2/128")
PEER = MeshPeer("b", KEY, ("vpn.example.com:51800", "[2001:db8::1]:51800"), ("fd00::2/128",), RELAYS)
MESH = Mesh(("fd00::1/128",), 51800, 0, (PEER,), (9790, 9791), ("[fd00::2]:9791",), ("240.0.0.1/32",))
REMOTE = Remote("c", 1, 1, "red", "b", ("10.9.0.5/32",), forwards=(Forward("tcp", 80, 81, 8080),))
STATE = HostState("a", 7, "boot", 9790, (), mesh=MESH, remotes=(REMOTE,))


def sent(value: HostState) -> Any:
    return json.loads(json.dumps(to_json(value)))


def test_mesh_comes_as_it_was_sent() -> None:
    assert read(FULL_STATE, sent(STATE), "a") == STATE
    assert read(FULL_STATE, sent(replace(STATE, mesh=None)), "a") == replace(STATE, mesh=None)


def test_state_of_a_release_that_knew_no_mesh_is_taken() -> None:
    data = sent(STATE)
    del data["mesh"]
    assert read(FULL_STATE, data, "a") == replace(STATE, mesh=None)


def test_state_of_a_release_that_handed_nothing_on_is_taken() -> None:
    data = sent(STATE)
    for each in (data["mesh"], *data["mesh"]["peers"]):
        del each["relays"]
    del data["remotes"][0]["forwards"]
    mesh = replace(MESH, relays=(), peers=(replace(PEER, relays=()),))
    assert read(FULL_STATE, data, "a") == replace(STATE, mesh=mesh, remotes=(replace(REMOTE, forwards=()),))


@pytest.mark.parametrize(
    "forward",
    [Forward("icmp", 80, 80, 80), Forward("tcp", 0, 80, 80), Forward("tcp", 80, 79, 80), Forward("tcp", 1, 9, 65530)],
)
def test_client_of_another_host_with_ports_that_cannot_be_is_refused(forward: Forward) -> None:
    with pytest.raises(BadMessage):
        read(FULL_STATE, sent(replace(STATE, remotes=(replace(REMOTE, forwards=(forward,)),))), "a")


@pytest.mark.parametrize(
    "mesh",
    [
        replace(MESH, port=0),
        replace(MESH, addresses=()),
        replace(MESH, addresses=("nonsense",)),
        replace(MESH, serves=(70000,)),
        replace(MESH, mtu=100),
        replace(MESH, peers=(PEER, PEER)),
        replace(MESH, peers=(replace(PEER, public_key="short"),)),
        replace(MESH, peers=(replace(PEER, host="../../etc"),)),
        replace(MESH, peers=(replace(PEER, endpoints=("vpn.example.com",)),)),
        replace(MESH, peers=(replace(PEER, endpoints=("a b:5",)),)),
        replace(MESH, peers=(replace(PEER, endpoints=("x\ny:5",)),)),
        replace(MESH, peers=(replace(PEER, addresses=("0.0.0.0/0",)),)),
        replace(MESH, peers=(replace(PEER, addresses=("::/0",)),)),
        replace(MESH, relays=("10.0.0.1/32",)),
        replace(MESH, relays=("240.0.0.1/32", "240.0.0.2/32")),
        replace(MESH, peers=(replace(PEER, relays=("240.0.0.0/4",)),)),
        replace(MESH, peers=(replace(PEER, relays=("2001:db8::1/128",)),)),
    ],
)
def test_mesh_that_cannot_be_is_refused_as_a_whole(mesh: Mesh) -> None:
    with pytest.raises(BadMessage):
        read(FULL_STATE, sent(replace(STATE, mesh=mesh)), "a")


def test_mesh_is_kept_for_root_alone(tmp_path: Path) -> None:
    path = memory.path_in(tmp_path)
    memory.save(path, MESH)
    assert memory.load(path) == MESH
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.stat().st_mtime_ns
    memory.save(path, MESH)
    assert path.stat().st_mtime_ns == before  # each state has it, and most say nothing new
    memory.forget(path)
    assert memory.load(path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"addresses": "fd00::1/128"}', "\x00"])
def test_damaged_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    memory.path_in(tmp_path).write_text(text)
    assert memory.load(memory.path_in(tmp_path)) is None


def test_redis_is_where_the_last_known_mesh_says() -> None:
    url = "redis://host.a:secret@mesh/0"
    assert in_mesh(url, MESH) == "redis://host.a:secret@[fd00::2]:9791/0"
    assert in_mesh(url, None) == url
    assert in_mesh("redis://mesh.example.com/0", MESH) == "redis://mesh.example.com/0"
    assert in_mesh("unix:///run/redis.sock?db=0", MESH) == "unix:///run/redis.sock?db=0"


def test_password_of_a_file_is_put_where_one_is_missing() -> None:
    assert with_password("unix://host.a@/run/redis.sock?db=0", "pw") == "unix://host.a:pw@/run/redis.sock?db=0"
    for whole in ("unix:///run/redis.sock?db=0", "redis://host.a:own@mesh/0"):
        assert with_password(whole, "pw") == whole
