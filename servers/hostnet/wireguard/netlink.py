"""Peers as the kernel's WireGuard reads and writes them: nested netlink attributes, many peers in one message.

Only bytes here, no sockets. pyroute2's own ``wgmsg`` builds an object for every attribute, which for 10,000 peers
costs seconds; the tests hold this codec against it. The numbers are those of <linux/wireguard.h>.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace

from servers.hostnet.netlink_attributes import NESTED, attribute, attributes

from .base import ObservedPeer, PeerChange
from .fields import AllowedIP, allowed_ip, endpoint_bytes, endpoint_text, key_bytes, key_text

PEER_PUBLIC_KEY = 1
PEER_FLAGS = 3
PEER_ENDPOINT = 4
PEER_KEEPALIVE = 5
PEER_LAST_HANDSHAKE = 6
PEER_RX_BYTES = 7
PEER_TX_BYTES = 8
PEER_ALLOWED_IPS = 9
PEER_REMOVE_ME = 1
PEER_REPLACE_ALLOWED_IPS = 2
IP_FAMILY = 1
IP_ADDRESS = 2
IP_PREFIX = 3

# Peers in one message, in bytes. An attribute's length has 16 bits, and the peers are one attribute; half of that
# leaves room for the rest of the message, and keeps the kernel's locks held for a few hundred peers at a time.
BATCH_BYTES = 32768
# Allowed IPs in one peer attribute; a peer with more of them is continued in a further one.
_IPS_IN_ONE = 512


def batches(changes: Iterable[PeerChange], limit: int = BATCH_BYTES) -> Iterator[bytes]:
    """The changes as payloads of WGDEVICE_A_PEERS, in their order, as few as ``limit`` (bytes) allows."""
    batch: list[bytes] = []
    size = 0
    for change in changes:
        for part in _encode(change):
            if batch and size + len(part) > limit:
                yield b"".join(batch)
                batch, size = [], 0
            batch.append(part)
            size += len(part)
    if batch:
        yield b"".join(batch)


def _encode(change: PeerChange) -> Iterator[bytes]:
    """The attributes for one peer: nearly always one."""
    key = attribute(PEER_PUBLIC_KEY, key_bytes(change.public_key))
    if change.remove:
        yield attribute(NESTED, key + attribute(PEER_FLAGS, struct.pack("=I", PEER_REMOVE_ME)))
        return
    networks = [_encode_ip(allowed_ip(text)) for text in change.allowed_ips]
    # Only the first part replaces what the peer had; the following ones add to it.
    first = b"" if change.add else attribute(PEER_FLAGS, struct.pack("=I", PEER_REPLACE_ALLOWED_IPS))
    if change.endpoint:
        first += attribute(PEER_ENDPOINT, endpoint_bytes(change.endpoint))
    if change.keepalive:
        first += attribute(PEER_KEEPALIVE, struct.pack("=H", change.keepalive))
    for start in range(0, max(len(networks), 1), _IPS_IN_ONE):
        part = b"".join(networks[start : start + _IPS_IN_ONE])
        yield attribute(NESTED, key + first + attribute(PEER_ALLOWED_IPS | NESTED, part))
        first = b""


def _encode_ip(network: AllowedIP) -> bytes:
    return attribute(
        NESTED,
        attribute(IP_FAMILY, struct.pack("=H", network.family))
        + attribute(IP_ADDRESS, network.packed)
        + attribute(IP_PREFIX, struct.pack("=B", network.prefix)),
    )


class PeerCollector:
    """Puts the peers of a dump together, message by message.

    A peer whose allowed IPs do not fit into one message is continued in the next one by an attribute that has
    nothing but its key and further allowed IPs.
    """

    def __init__(self) -> None:
        self.peers: dict[str, ObservedPeer] = {}

    def add(self, payload: bytes) -> None:
        """Take in one WGDEVICE_A_PEERS payload. Raise ``ValueError`` where it is broken."""
        for _, data in attributes(memoryview(payload)):
            try:
                peer = _decode(dict(attributes(data)))
            except (KeyError, IndexError, OSError, struct.error):
                raise ValueError("a peer lacks an attribute, or has one that is broken") from None
            begun = self.peers.get(peer.public_key)
            if begun is not None:
                peer = replace(begun, allowed_ips=begun.allowed_ips | peer.allowed_ips)
            self.peers[peer.public_key] = peer


def _decode(fields: dict[int, memoryview]) -> ObservedPeer:
    def number(kind: int) -> int:
        return int.from_bytes(fields.get(kind, b"")[:8], sys.byteorder)

    networks = attributes(fields.get(PEER_ALLOWED_IPS, memoryview(b"")))
    return ObservedPeer(
        public_key=key_text(bytes(fields[PEER_PUBLIC_KEY])),
        allowed_ips=frozenset(_decode_ip(data) for _, data in networks),
        endpoint=endpoint_text(bytes(fields[PEER_ENDPOINT])) if PEER_ENDPOINT in fields else "",
        last_handshake=number(PEER_LAST_HANDSHAKE),  # seconds are the first half of it, nanoseconds the second
        rx_bytes=number(PEER_RX_BYTES),
        tx_bytes=number(PEER_TX_BYTES),
    )


def _decode_ip(data: memoryview) -> str:
    fields = dict(attributes(data))
    (family,) = struct.unpack("=H", fields[IP_FAMILY])
    return str(AllowedIP(family, bytes(fields[IP_ADDRESS]), fields[IP_PREFIX][0]))
