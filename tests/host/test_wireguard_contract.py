"""What every WireGuard backend does, tried on real interfaces.

Here that is userspace WireGuard. ``tests/kernel/run`` runs the same tests inside a kernel that has WireGuard, with
WG_BACKEND=kernel.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from servers.hostnet.mesh.plan import take_off
from servers.hostnet.wireguard import keys
from servers.hostnet.wireguard.base import Backend, PeerChange, WireGuardError
from servers.hostnet.wireguard.choose import choose
from servers.hostnet.wireguard.fields import key_text
from tests.host.wgfixtures import inside, interface, ip, make_peers, new_name, new_namespace
from tests.lab import HANGING, NEVER, until

pytestmark = pytest.mark.host

SERVER, CLIENT = "10.77.0.1", "10.77.0.2"
PORT = 51820


@pytest.fixture
def backend() -> Iterator[Backend]:
    with new_namespace():
        yield choose(os.environ.get("WG_BACKEND", "userspace"))


@pytest.fixture
def name(backend: Backend) -> Iterator[str]:
    with interface(backend) as made:
        yield made


def test_a_new_interface_is_listed_and_empty(backend: Backend, name: str) -> None:
    assert backend.list() == [name]
    device = backend.get(name)
    assert (device.name, device.public_key, device.peers) == (name, "", {})


def test_creating_again_changes_nothing(backend: Backend, name: str) -> None:
    (peer,) = make_peers(1)
    backend.set(name, peers=[peer])
    backend.create(name)
    assert list(backend.get(name).peers) == [peer.public_key]


def test_private_key_port_and_mark_are_set(backend: Backend, name: str) -> None:
    private = keys.make_private()
    assert backend.get(name).mark == 0
    backend.set(name, private_key=private, port=PORT, mark=0x77670000)
    device = backend.get(name)
    assert (device.public_key, device.port, device.mark) == (keys.public_of(private), PORT, 0x77670000)


def test_setting_one_thing_leaves_the_others(backend: Backend, name: str) -> None:
    private, peers = keys.make_private(), make_peers(2)
    backend.set(name, private_key=private, port=PORT, mark=7, peers=peers)
    backend.set(name, port=PORT + 1)
    backend.set(name)
    device = backend.get(name)
    assert (device.public_key, device.port, device.mark) == (keys.public_of(private), PORT + 1, 7)
    assert set(device.peers) == {peer.public_key for peer in peers}


def test_ten_thousand_peers_are_set_read_changed_and_removed(backend: Backend, name: str) -> None:
    peers = make_peers(10_000)
    backend.set(name, private_key=keys.make_private(), peers=peers)
    wanted = {peer.public_key: frozenset(peer.allowed_ips) for peer in peers}
    assert _networks(backend, name) == wanted

    changed = peers[5000].public_key
    backend.set(name, peers=[PeerChange(changed, ("10.200.0.1/32",))])
    wanted[changed] = frozenset({"10.200.0.1/32"})
    assert _networks(backend, name) == wanted

    backend.set(name, peers=[PeerChange(peer.public_key, remove=True) for peer in peers[:9000]])
    assert _networks(backend, name) == {peer.public_key: wanted[peer.public_key] for peer in peers[9000:]}


def test_allowed_ips_are_replaced_and_may_be_none(backend: Backend, name: str) -> None:
    (peer,) = make_peers(1)
    backend.set(name, peers=[peer])
    backend.set(name, peers=[PeerChange(peer.public_key, ("10.3.0.0/16", "fd00:3::/64", "0.0.0.0/0", "::/0"))])
    assert _networks(backend, name)[peer.public_key] == {"10.3.0.0/16", "fd00:3::/64", "0.0.0.0/0", "::/0"}
    backend.set(name, peers=[PeerChange(peer.public_key)])
    assert _networks(backend, name) == {peer.public_key: frozenset()}


def test_a_peer_with_thousands_of_allowed_ips_is_read_whole(backend: Backend, name: str) -> None:
    before, between, after = make_peers(3)
    many = tuple(f"fd00:5::{n:x}/128" for n in range(1, 3001))
    backend.set(name, peers=[before, PeerChange(between.public_key, many), after])
    found = _networks(backend, name)
    assert found[between.public_key] == frozenset(many)
    assert set(found) == {before.public_key, between.public_key, after.public_key}


def test_an_address_given_to_another_peer_moves(backend: Backend, name: str) -> None:
    old, new = (key_text(secrets.token_bytes(32)) for _ in range(2))
    backend.set(name, peers=[PeerChange(old, ("10.0.0.9/32",))])
    backend.set(name, peers=[PeerChange(new, ("10.0.0.9/32",))])
    assert _networks(backend, name) == {old: frozenset(), new: {"10.0.0.9/32"}}


def test_network_is_added_beside_others_and_taken_off_whoever_had_it(backend: Backend, name: str) -> None:
    one, two = (peer.public_key for peer in make_peers(2))
    backend.set(name, private_key=keys.make_private())
    backend.set(name, peers=[PeerChange(one, ("10.1.0.1/32", "10.1.0.2/32", "fd00::9/128")), PeerChange(two)])
    backend.set(name, peers=[PeerChange(two, ("10.1.0.1/32", "fd00::8/128"), add=True)])
    backend.set(name, peers=[PeerChange(two, ("10.1.0.3/32",), add=True)])
    found = {key: set(peer.allowed_ips) for key, peer in backend.get(name).peers.items()}
    assert found == {one: {"10.1.0.2/32", "fd00::9/128"}, two: {"10.1.0.1/32", "10.1.0.3/32", "fd00::8/128"}}
    # One network alone is taken off by a peer that nobody is.
    backend.set(name, peers=take_off(["10.1.0.3/32", "fd00::9/128"]))
    found = {key: set(peer.allowed_ips) for key, peer in backend.get(name).peers.items()}
    assert found == {one: {"10.1.0.2/32"}, two: {"10.1.0.1/32", "fd00::8/128"}}


@pytest.mark.parametrize("endpoint", ["192.0.2.1:4711", "[2001:db8::1]:4711"])
def test_endpoint_is_set_and_nothing_else(backend: Backend, name: str, endpoint: str) -> None:
    (peer,) = make_peers(1)
    backend.set(name, private_key=keys.make_private(), peers=[peer])
    backend.set(name, peers=[PeerChange(peer.public_key, add=True, endpoint=endpoint, keepalive=25)])
    (found,) = backend.get(name).peers.values()
    assert (found.endpoint, set(found.allowed_ips)) == (endpoint, set(peer.allowed_ips))
    backend.set(name, peers=[PeerChange(peer.public_key, ("10.1.0.1/32",))])
    assert next(iter(backend.get(name).peers.values())).endpoint == endpoint


def test_removing_a_peer_that_is_not_there_is_no_error(backend: Backend, name: str) -> None:
    stranger, peer = make_peers(2)
    backend.set(name, peers=[peer, PeerChange(stranger.public_key, remove=True)])
    assert set(_networks(backend, name)) == {peer.public_key}


def test_one_bad_peer_stops_the_whole_change(backend: Backend, name: str) -> None:
    peers = make_peers(600)
    bad = PeerChange(peers[-1].public_key, ("10.0.0.1/32\nlisten_port=1",))
    with pytest.raises(WireGuardError, match="not a network"):
        backend.set(name, port=PORT, peers=[*peers[:-1], bad])
    device = backend.get(name)
    assert device.port != PORT
    assert device.peers == {}


@pytest.mark.parametrize("private", [b"", b"\x01" * 31, b"\x01" * 33])
def test_a_private_key_of_the_wrong_length_is_refused(backend: Backend, name: str, private: bytes) -> None:
    with pytest.raises(WireGuardError, match=name):
        backend.set(name, private_key=private)


def test_a_port_that_is_taken_is_refused_in_words(backend: Backend, name: str) -> None:
    ip("link", "set", name, "up")
    until(lambda: backend.get(name).port != 0)  # it is up, and has taken some port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("", 0))
        with pytest.raises(WireGuardError, match=f"{name}: .*address already in use"):
            backend.set(name, port=taken.getsockname()[1], peers=make_peers(10_000))


def test_an_interface_that_is_not_there_is_an_error_that_names_it(backend: Backend) -> None:
    missing = new_name()
    with pytest.raises(WireGuardError, match=missing):
        backend.get(missing)
    with pytest.raises(WireGuardError, match=missing):
        backend.set(missing, private_key=keys.make_private(), port=PORT, peers=make_peers(1))
    backend.delete(missing)


@pytest.mark.parametrize("bad", ["", "-h", "../x", "a b", "a" * 16, "ab\n", "x/y"])
def test_a_name_that_cannot_be_one_is_refused(backend: Backend, bad: str) -> None:
    for call in (backend.create, backend.get, backend.delete, backend.set):
        with pytest.raises(WireGuardError, match="name of an interface"):
            call(bad)


def test_deleting_takes_effect_at_once_and_frees_the_name(backend: Backend) -> None:
    name = new_name()
    for _ in range(10):
        backend.create(name)
        backend.set(name, port=PORT, peers=make_peers(3))
        backend.delete(name)
        assert backend.list() == []
        with pytest.raises(OSError, match="no interface"):
            socket.if_nametoindex(name)


def test_neither_other_peers_nor_the_same_settings_again_touch_a_session(backend: Backend, name: str) -> None:
    server = keys.make_private()
    with tunnel(backend, name, server) as (client, inner, outer):
        assert passes(inner, outer)
        before = backend.get(name).peers[client]
        assert before.last_handshake > 0
        assert before.endpoint.startswith("127.0.0.1:")

        others = make_peers(2000)
        backend.set(name, peers=others)
        backend.set(name, private_key=server, port=PORT, peers=[PeerChange(client, (f"{CLIENT}/32",))])
        backend.set(name, peers=[PeerChange(peer.public_key, remove=True) for peer in others])
        assert passes(inner, outer)

        after = backend.get(name).peers[client]
        assert (after.last_handshake, after.endpoint) == (before.last_handshake, before.endpoint)
        # What came in is one packet of 64 bytes, perhaps a keepalive of 32; a new handshake would be 148 more.
        assert 64 <= after.rx_bytes - before.rx_bytes < 148
        assert after.tx_bytes >= before.tx_bytes

        backend.set(name, peers=[PeerChange(client, remove=True)])
        assert not passes(inner, outer, NEVER)


@contextmanager
def tunnel(backend: Backend, name: str, server: bytes) -> Iterator[tuple[str, socket.socket, socket.socket]]:
    """A client with a tunnel to ``name``, whose private key is ``server``.

    Gives the client's public key, and a UDP socket at its and at our end of the tunnel. The client's interface is
    moved into a namespace of its own: its inside, that is; WireGuard's own packets still go by the loopback of the
    namespace in which it was made.
    """
    client, other = keys.make_private(), new_name()
    backend.set(name, private_key=server, port=PORT, peers=[PeerChange(keys.public_of(client), (f"{CLIENT}/32",))])
    bring_up(name, SERVER)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    with udp_socket(SERVER) as outer, new_namespace() as away:
        with inside(home):
            backend.create(other)
            backend.set(other, private_key=client)
            ip("link", "set", other, "netns", f"/proc/{os.getpid()}/fd/{away}")
        try:
            bring_up(other, CLIENT)
            endpoint = ("endpoint", f"127.0.0.1:{PORT}", "allowed-ips", f"{SERVER}/32")
            subprocess.run(["wg", "set", other, "peer", keys.public_of(server), *endpoint], check=True, timeout=HANGING)
            with udp_socket(CLIENT) as inner, inside(home):
                yield keys.public_of(client), inner, outer
        finally:
            backend.delete(other)
            os.close(home)


def bring_up(name: str, address: str) -> None:
    ip("address", "add", f"{address}/24", "dev", name)
    ip("link", "set", name, "up")


def udp_socket(address: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, 7000))
    return made


def passes(inner: socket.socket, outer: socket.socket, timeout: float = HANGING) -> bool:
    """Whether a packet sent by the client arrives. It is sent once: it waits in WireGuard for the handshake."""
    outer.settimeout(timeout)
    inner.sendto(b"x", (SERVER, 7000))
    try:
        return outer.recv(10) == b"x"
    except TimeoutError:
        return False


def _networks(backend: Backend, name: str) -> dict[str, frozenset[str]]:
    return {key: peer.allowed_ips for key, peer in backend.get(name).peers.items()}
