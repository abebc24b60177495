"""Userspace WireGuard's text protocol: what we send, and how answers are read."""

from __future__ import annotations

import re
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.hostnet.wireguard import keys, uapi
from servers.hostnet.wireguard.base import Device, PeerChange, WireGuardError
from servers.hostnet.wireguard.fields import key_text
from tests.lab import HANGING

KEY = bytes(range(32))
LINE = re.compile(
    r"set=1|public_key=[0-9a-f]{64}|update_only=true|remove=true|protocol_version=1"
    r"|replace_allowed_ips=true|allowed_ip=[0-9a-f.:]+/[0-9]+"
)


def test_a_request_says_just_what_is_to_change() -> None:
    text = uapi.set_request(KEY, 51820, [PeerChange(key_text(KEY), ("10.0.0.5/32", "fd00::5/128"))])
    assert text.decode().splitlines() == [
        "set=1",
        f"private_key={KEY.hex()}",
        "listen_port=51820",
        f"public_key={KEY.hex()}",
        "protocol_version=1",
        "replace_allowed_ips=true",
        "allowed_ip=10.0.0.5/32",
        "allowed_ip=fd00::5/128",
        "",
    ]
    assert uapi.set_request(None, None, ()) == b"set=1\n\n"


def test_a_removal_never_makes_a_peer() -> None:
    lines = uapi.set_request(None, None, [PeerChange(key_text(KEY), remove=True)]).decode().splitlines()
    assert lines == ["set=1", f"public_key={KEY.hex()}", "update_only=true", "remove=true", ""]


@given(
    st.one_of(st.text(), st.just(key_text(KEY))), st.lists(st.text(alphabet="0123456789./:abf\n= \x00٣", max_size=20))
)
def test_no_value_smuggles_in_a_line(key: str, networks: list[str]) -> None:
    try:
        text = uapi.set_request(None, None, [PeerChange(key, tuple(networks))]).decode("ascii")
    except WireGuardError:
        return
    *lines, end, last = text.split("\n")
    assert (end, last) == ("", "")
    assert all(LINE.fullmatch(line) for line in lines)
    assert sum(line.startswith("public_key=") for line in lines) == 1


def answer(*lines: str) -> Device:
    return uapi.parse_answer("wgs0", iter([*lines, "", "private_key=after the end"]))


def test_an_answer_is_read_whole() -> None:
    private, other = keys.make_private(), bytes(32)
    device = answer(
        f"private_key={private.hex()}",
        "listen_port=51820",
        f"public_key={KEY.hex()}",
        "preshared_key=" + "0" * 64,
        "protocol_version=1",
        "endpoint=[2001:db8::7]:4000",
        "last_handshake_time_sec=1700000000",
        "last_handshake_time_nsec=5",
        "tx_bytes=7",
        "rx_bytes=9",
        "persistent_keepalive_interval=0",
        "allowed_ip=10.0.0.5/32",
        "allowed_ip=fd00::5/128",
        f"public_key={other.hex()}",
        "a_field_of_the_future=1",
        "errno=0",
    )
    assert (device.name, device.public_key, device.port) == ("wgs0", keys.public_of(private), 51820)
    assert list(device.peers) == [key_text(KEY), key_text(other)]
    peer = device.peers[key_text(KEY)]
    assert peer.allowed_ips == {"10.0.0.5/32", "fd00::5/128"}
    assert (peer.endpoint, peer.last_handshake) == ("[2001:db8::7]:4000", 1_700_000_000)
    assert (peer.rx_bytes, peer.tx_bytes) == (9, 7)
    assert device.peers[key_text(other)].last_handshake == 0


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("-98", "address already in use"),
        ("-22", "invalid argument"),
        ("22", "invalid argument"),
        ("-55", "cannot name"),
    ],
)
def test_a_refusal_names_the_interface_and_the_reason(code: str, words: str) -> None:
    with pytest.raises(WireGuardError, match=f"wgs0: .*{words}"):
        answer(f"errno={code}")


def test_an_answer_without_its_end_is_an_error() -> None:
    with pytest.raises(WireGuardError, match=r"wgs0: .*broke off"):
        answer(f"public_key={KEY.hex()}", "rx_bytes=9")


def exchange(reply: bytes, request: bytes = b"get=1\n\n", *, read: int = 0) -> Device:
    """Send a request to a process that reads ``read`` bytes of it, answers ``reply`` and hangs up."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs:
            theirs.recv(read or 65536)
            theirs.sendall(reply)

    server = threading.Thread(target=serve)
    server.start()
    try:
        with ours:
            ours.settimeout(HANGING)
            return uapi.request(ours, "wgs0", request)
    finally:
        server.join(HANGING)


def test_a_refusal_in_the_middle_of_a_long_request_still_tells_why() -> None:
    with pytest.raises(WireGuardError, match=r"wgs0: .*address already in use"):
        exchange(b"errno=-98\n\n", b"x" * 5_000_000, read=100)


def test_a_process_that_dies_meanwhile_is_an_error_that_names_the_interface() -> None:
    with pytest.raises(WireGuardError, match="wgs0"):
        exchange(b"")
    with pytest.raises(WireGuardError, match="wgs0"):
        exchange(b"", b"x" * 5_000_000, read=100)


@pytest.mark.parametrize("line", ["private_key={}00", "private_key={}zz", "listen_port={}", "rx_bytes={}", "{}\xff"])
def test_an_answer_that_cannot_be_read_is_not_shown(line: str) -> None:
    private = keys.make_private().hex()
    reply = f"public_key={KEY.hex()}\n{line.format(private)}\nerrno=0\n\n".encode("latin-1")
    with pytest.raises(WireGuardError, match=r"wgs0: .*cannot be read") as raised:
        exchange(reply)
    assert private not in str(raised.value)
    assert raised.value.__suppress_context__


@given(st.binary(max_size=300))
def test_any_answer_is_read_or_refused(reply: bytes) -> None:
    try:
        device = uapi.parse_answer("wgs0", iter(reply.decode("latin-1").split("\n")))
    except (WireGuardError, ValueError):
        return
    assert device.name == "wgs0"


def test_networks_are_added_and_an_endpoint_is_set_without_a_word_of_the_rest() -> None:
    change = PeerChange(key_text(KEY), ("10.0.0.5/32",), add=True, endpoint="[2001:db8::1]:51820", keepalive=25)
    assert uapi.set_request(None, None, [change]).decode().splitlines() == [
        "set=1",
        f"public_key={KEY.hex()}",
        "protocol_version=1",
        "endpoint=[2001:db8::1]:51820",
        "persistent_keepalive_interval=25",
        "allowed_ip=10.0.0.5/32",
        "",
    ]


@pytest.mark.parametrize(
    "endpoint",
    [
        "x:1",
        "192.0.2.1",
        "192.0.2.1:0",
        "192.0.2.1:65536",
        "192.0.2.1:٣",
        "2001:db8::1:5",
        "[::1]:5\nremove=true",
        ":5",
    ],
)
def test_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(WireGuardError, match="not an address and a port"):
        uapi.set_request(None, None, [PeerChange(key_text(KEY), endpoint=endpoint)])
