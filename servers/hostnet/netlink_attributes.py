"""Netlink's attributes as bytes (nlattr in <linux/netlink.h>): what is written, and walking over what is read.

Only bytes here, no sockets. pyroute2 builds an object for every attribute, which costs seconds where there are many.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TypeVar

NESTED = 0x8000
_TYPE = 0x3FFF  # an attribute's type without its two flag bits
_HEADER = struct.Struct("=HH")

Data = TypeVar("Data", bytes, memoryview)


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute: length, type, payload, and padding to four bytes."""
    return _HEADER.pack(_HEADER.size + len(payload), kind) + payload + bytes(-len(payload) % 4)


def attributes(data: Data) -> Iterator[tuple[int, Data]]:
    """Walk over attributes: type and payload of each. Raise ``ValueError`` where lengths do not add up."""
    at = 0
    while at < len(data):
        if len(data) - at < _HEADER.size:
            raise ValueError("an attribute is cut off")
        length, kind = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            raise ValueError("an attribute has a wrong length")
        yield kind & _TYPE, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3
