"""The kernel's peers as bytes: what we write pyroute2 reads, and dumps in many messages are put together whole."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.generic.wireguard import wgmsg

from servers.hostnet.netlink_attributes import attribute
from servers.hostnet.wireguard.base import PeerChange, WireGuardError
from servers.hostnet.wireguard.fields import allowed_ip, key_text
from servers.hostnet.wireguard.kernel import DeviceMessage, device_of
from servers.hostnet.wireguard.netlink import BATCH_BYTES, PeerCollector, batches

public_keys = st.binary(min_size=32, max_size=32).map(key_text)
networks = st.one_of(
    st.ip_addresses(v=4).flatmap(lambda ip: st.integers(0, 32).map(lambda bits: f"{ip}/{bits}")),
    # Not the ones that Python and inet_ntop print differently (dotted tails).
    st.integers(1, 2**112)
    .map(lambda n: socket.inet_ntop(socket.AF_INET6, b"\xfd\x01" + n.to_bytes(15, "big")[1:]))
    .flatmap(lambda ip: st.integers(0, 128).map(lambda bits: f"{ip}/{bits}")),
)
changes = st.builds(
    lambda key, ips, remove: PeerChange(key, () if remove else tuple(ips), remove),
    public_keys,
    st.lists(networks, max_size=6, unique=True),
    st.booleans(),
)
counters = st.integers(0, 2**63)


def encode(attrs: list[tuple[str, Any]], message_class: type[Any] = wgmsg) -> bytes:
    message = message_class()
    message["attrs"] = attrs
    message["header"].update({"type": 30, "flags": 2, "pid": 0, "sequence_number": 1})
    message["cmd"], message["version"] = 0, 1
    message.encode()
    return bytes(message.data)


def decode(message_class: type[Any], data: bytes) -> Any:
    message = message_class(data)
    message.decode()
    return message


def read_by_pyroute2(payload: bytes) -> list[tuple[str, int | None, list[str]]]:
    """Key, flags and allowed IPs of each peer in a payload, according to pyroute2's own WireGuard messages."""
    message = decode(wgmsg, encode([("WGDEVICE_A_PEERS", payload)], DeviceMessage))
    return [
        (
            peer.get_attr("WGPEER_A_PUBLIC_KEY").decode(),
            peer.get_attr("WGPEER_A_FLAGS"),
            [ip["addr"] for ip in peer.get_attr("WGPEER_A_ALLOWEDIPS") or ()],
        )
        for peer in message.get_attr("WGDEVICE_A_PEERS")
    ]


@given(st.lists(changes, max_size=30), st.integers(1, 3000))
def test_pyroute2_reads_what_we_write(wanted: list[PeerChange], limit: int) -> None:
    found = [peer for payload in batches(wanted, limit) for peer in read_by_pyroute2(payload)]
    flags = {True: 1, False: 2}  # remove; replace allowed IPs
    assert found == [(peer.public_key, flags[peer.remove], list(peer.allowed_ips)) for peer in wanted]


@given(st.lists(changes, min_size=1, max_size=30), st.integers(1, 3000))
def test_a_batch_is_longer_than_the_limit_only_when_it_is_one_peer(wanted: list[PeerChange], limit: int) -> None:
    for payload in batches(wanted, limit):
        assert len(payload) <= limit or len(read_by_pyroute2(payload)) == 1


def test_ten_thousand_peers_take_few_messages() -> None:
    wanted = [PeerChange(key_text(n.to_bytes(32, "big")), (f"10.0.{n >> 8}.{n & 255}/32",)) for n in range(10_000)]
    payloads = list(batches(wanted))
    assert len(payloads) <= 40
    assert max(map(len, payloads)) <= BATCH_BYTES


def test_only_the_first_part_of_a_long_peer_replaces() -> None:
    ips = tuple(f"fd00::{n:x}/128" for n in range(1, 1301))
    key = key_text(bytes(32))
    parts = [part for payload in batches([PeerChange(key, ips)]) for part in read_by_pyroute2(payload)]
    assert [flags for _, flags, _ in parts] == [2, None, None]
    assert {name for name, _, _ in parts} == {key}
    assert tuple(ip for _, _, found in parts for ip in found) == ips


def kernel_peer(key: str, ips: list[str], **attributes: Any) -> dict[str, Any]:
    """A peer as pyroute2 encodes it, for a dump that a kernel might have sent."""
    split = [allowed_ip(ip) for ip in ips]
    encoded = [
        {
            "attrs": [
                ("WGALLOWEDIP_A_FAMILY", n.family),
                ("WGALLOWEDIP_A_IPADDR", n.packed),
                ("WGALLOWEDIP_A_CIDR_MASK", n.prefix),
            ]
        }
        for n in split
    ]
    attrs: list[tuple[str, Any]] = [("WGPEER_A_PUBLIC_KEY", key)]
    attrs += [(f"WGPEER_A_{name}", value) for name, value in attributes.items()]
    return {"attrs": [*attrs, ("WGPEER_A_ALLOWEDIPS", encoded)]}


@given(st.data(), st.dictionaries(public_keys, st.lists(networks, max_size=8, unique=True), max_size=12))
def test_a_dump_in_many_messages_loses_nothing(data: st.DataObject, peers: dict[str, list[str]]) -> None:
    """Cut as the kernel cuts: between peers, and within one, which then goes on with its key and more allowed IPs."""
    numbers = {key: (data.draw(counters), data.draw(counters), data.draw(counters)) for key in peers}
    messages: list[list[dict[str, Any]]] = [[]]
    for key, ips in peers.items():
        if data.draw(st.booleans()):
            messages.append([])
        cuts = sorted(data.draw(st.lists(st.integers(0, len(ips)), max_size=2)))
        parts = [ips[start:end] for start, end in zip([0, *cuts], [*cuts, len(ips)], strict=True)]
        seen, rx, tx = numbers[key]
        first = {"LAST_HANDSHAKE_TIME": {"tv_sec": seen, "tv_nsec": 5}, "RX_BYTES": rx, "TX_BYTES": tx}
        messages[-1].append(kernel_peer(key, parts[0], **first))
        messages += [[kernel_peer(key, part)] for part in parts[1:]]

    raw = [encode([("WGDEVICE_A_IFNAME", "wgs0"), ("WGDEVICE_A_PEERS", part)]) for part in messages]
    device = device_of("wgs0", [decode(DeviceMessage, message) for message in raw])
    assert {key: peer.allowed_ips for key, peer in device.peers.items()} == {
        key: frozenset(ips) for key, ips in peers.items()
    }
    assert {k: (p.last_handshake, p.rx_bytes, p.tx_bytes) for k, p in device.peers.items()} == numbers


@pytest.mark.parametrize(
    ("address", "text"), [("192.0.2.7", "192.0.2.7:51820"), ("2001:db8::7", "[2001:db8::7]:51820")]
)
def test_endpoints_are_written_as_addresses_with_ports(address: str, text: str) -> None:
    endpoint = {"addr": address, "port": 51820}
    if ":" in address:
        endpoint |= {"flowinfo": 0, "scope_id": 0}
    key = key_text(b"\x07" * 32)
    raw = encode([("WGDEVICE_A_PEERS", [kernel_peer(key, [], ENDPOINT=endpoint)])])
    assert device_of("wgs0", [decode(DeviceMessage, raw)]).peers[key].endpoint == text


def test_device_attributes_come_from_the_first_message() -> None:
    key = key_text(b"\x07" * 32)
    first = encode([("WGDEVICE_A_LISTEN_PORT", 51820), ("WGDEVICE_A_PUBLIC_KEY", key), ("WGDEVICE_A_PRIVATE_KEY", key)])
    device = device_of("wgs0", [decode(DeviceMessage, raw) for raw in (first, encode([]))])
    assert (device.name, device.port, device.public_key) == ("wgs0", 51820, key)


@given(st.binary(max_size=200))
def test_broken_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    for payload in (data, attribute(0, data), attribute(0, attribute(1, bytes(32)) + data)):
        try:
            PeerCollector().add(payload)
        except ValueError as error:
            assert str(error)  # noqa: PT017  # either outcome is right: any other error is not


@pytest.mark.parametrize(
    "bad", ["10.0.0.1", "10.0.0.1/33", "::1/129", "10.0.0.1/-1", "10.0.0.1/+8", "a/8", "", "/8", "10.0.0.1/ 8"]
)
def test_what_is_no_network_is_refused(bad: str) -> None:
    with pytest.raises(WireGuardError, match="not a network"):
        list(batches([PeerChange(key_text(bytes(32)), (bad,))]))


@pytest.mark.parametrize(
    "bad", ["", "x", "A" * 43, "A" * 44, "A" * 42 + "B=", "A" * 43 + "=\n", "é" * 44, "A" * 86 + "=="]
)
def test_what_is_no_public_key_is_refused(bad: str) -> None:
    """Among them one whose last bits are not zero: the same key under a second name."""
    with pytest.raises(WireGuardError, match="not a WireGuard public key"):
        list(batches([PeerChange(bad)]))


@pytest.mark.parametrize("endpoint", ["192.0.2.1:51820", "[2001:db8::1]:51820"])
def test_endpoint_and_keepalive_are_written_as_they_are_read(endpoint: str) -> None:
    change = PeerChange(key_text(bytes(range(32))), ("10.0.0.5/32",), add=True, endpoint=endpoint, keepalive=25)
    (payload,) = batches([change])
    collector = PeerCollector()
    collector.add(payload)
    (peer,) = collector.peers.values()
    assert (peer.endpoint, set(peer.allowed_ips)) == (endpoint, {"10.0.0.5/32"})
    (found,) = decode(wgmsg, encode([("WGDEVICE_A_PEERS", payload)], DeviceMessage)).get_attr("WGDEVICE_A_PEERS")
    assert found.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") == 25
    assert found.get_attr("WGPEER_A_FLAGS") is None  # what it had stays


def test_peer_that_gets_more_than_fits_keeps_what_it_had() -> None:
    many = tuple(f"10.0.{n >> 8}.{n & 255}/32" for n in range(2000))
    change = PeerChange(key_text(bytes(32)), many, add=True)
    found = [peer for payload in batches([change]) for peer in read_by_pyroute2(payload)]
    assert {flags for _, flags, _ in found} == {None}
    assert [ip for _, _, ips in found for ip in ips] == list(many)
