"""Whether one match of an nftables or iptables rule holds for a packet: yes, no, or not to be known (``None``)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str], list[Any] | None]


@dataclass(frozen=True, slots=True)
class Packet:
    """``protocol`` is tcp, udp or icmp (of either version). ``reply``: of a connection that began the other way;
    else the first packet of one. ``dnat``: its destination was a port forward. ``destination`` ``None``: an address of
    the host's, whichever that is."""

    hook: str
    iif: str
    oif: str
    source: Address
    destination: Address | None
    protocol: str
    dport: int = 0
    sport: int = 0
    reply: bool = False
    dnat: bool = False

    @property
    def version(self) -> int:
        return self.source.version


@dataclass(frozen=True, slots=True)
class InterfaceName:
    text: str


# What can be known of a packet: a name, a number, an address, words of which each would do, or all of a concatenation.
Value = InterfaceName | int | Address | frozenset[str | int] | tuple[Any, ...] | None
NO_SUCH_FIELD = frozenset[str | int]()  # the packet has no such header: nothing matches, and nothing is unlike it
PROTOCOLS: dict[tuple[str, int], frozenset[str | int]] = {
    ("tcp", 4): frozenset({"tcp", 6}),
    ("tcp", 6): frozenset({"tcp", 6}),
    ("udp", 4): frozenset({"udp", 17}),
    ("udp", 6): frozenset({"udp", 17}),
    ("icmp", 4): frozenset({"icmp", 1}),
    ("icmp", 6): frozenset({"ipv6-icmp", "icmpv6", 58}),
}


def holds(match: Mapping[str, Any], packet: Packet, lookup: Lookup) -> bool | None:
    """A ``match`` of nft's JSON."""
    left, right, operator = match["left"], match["right"], match["op"]
    if isinstance(left, Mapping) and "&" in left:
        return _flags_hold(left["&"], right, operator, packet)
    value = value_of(left, packet)
    if value == NO_SUCH_FIELD:
        return False
    if operator in {"==", "in"}:
        return any_of(value, [right], lookup)
    if operator == "!=":
        return _not(any_of(value, [right], lookup))
    if isinstance(value, int) and isinstance(right, int):
        return {"<": value < right, ">": value > right, "<=": value <= right, ">=": value >= right}.get(operator)
    return None


def _not(answer: bool | None) -> bool | None:
    return None if answer is None else not answer


def value_of(left: Any, packet: Packet) -> Value:
    if not isinstance(left, Mapping):
        return None
    (kind, content), *_ = left.items()
    if kind == "meta":
        return _meta(content["key"], packet)
    if kind == "ct":
        return _ct(content, packet)
    if kind == "payload":
        return _payload(str(content.get("protocol", "")), str(content.get("field", "")), packet)
    if kind == "fib" and (content["result"], content["flags"]) in (("type", ["daddr"]), ("type", "daddr")):
        return frozenset({"local" if packet.hook == "input" else "unicast"})
    if kind == "concat":
        parts = tuple(value_of(part, packet) for part in content)
        return NO_SUCH_FIELD if NO_SUCH_FIELD in parts else parts
    return None


def _meta(key: str, packet: Packet) -> Value:
    values: dict[str, Value] = {
        "iifname": InterfaceName(packet.iif),
        "iif": InterfaceName(packet.iif),
        "oifname": InterfaceName(packet.oif),
        "oif": InterfaceName(packet.oif),
        "l4proto": PROTOCOLS[packet.protocol, packet.version],
        "nfproto": frozenset({f"ipv{packet.version}"}),
        "protocol": frozenset({"ip" if packet.version == 4 else "ip6"}),
        "pkttype": frozenset({"host", "unicast"}),
    }
    return values.get(key)


def _ct(content: Mapping[str, Any], packet: Packet) -> Value:
    if content["key"] == "state":
        return frozenset({"established" if packet.reply else "new"})
    if content["key"] == "direction":
        return frozenset({"reply" if packet.reply else "original"})
    if content["key"] == "status":
        seen = {"seen-reply", "assured", "confirmed"} if packet.reply else set()
        return frozenset(seen | ({"dnat"} if packet.dnat else {"none"}))
    return None


def _payload(protocol: str, name: str, packet: Packet) -> Value:
    own = "ip" if packet.version == 4 else "ip6"
    if protocol in {"ip", "ip6"}:
        if protocol != own:
            return NO_SUCH_FIELD
        known = PROTOCOLS[packet.protocol, packet.version]
        fields: dict[str, Value] = {"saddr": packet.source, "daddr": packet.destination}
        return (fields | {"protocol": known, "nexthdr": known}).get(name)
    if protocol in {"icmp", "icmpv6"}:
        if packet.protocol != "icmp" or (protocol == "icmp") != (packet.version == 4):
            return NO_SUCH_FIELD
        echo: frozenset[str | int] = frozenset({"echo-request", 8 if packet.version == 4 else 128})
        return echo if name == "type" else None
    if protocol in {"tcp", "udp", "th"}:
        if packet.protocol == "icmp" or protocol not in {"th", packet.protocol}:
            return NO_SUCH_FIELD
        return {"dport": packet.dport, "sport": packet.sport}.get(name)
    # Headers of protocols that our packets are not.
    return NO_SUCH_FIELD if protocol in {"sctp", "dccp", "esp", "ah", "comp", "udplite", "arp", "vlan"} else None


def any_of(value: Value, rights: Iterable[Any], lookup: Lookup) -> bool | None:
    """Whether ``value`` is one of ``rights``, which may be sets, ranges, prefixes and the like."""
    unknown = False
    for right in rights:
        answer = _is(value, right, lookup)
        if answer:
            return True
        unknown |= answer is None
    return None if unknown else False


def _is(value: Value, right: Any, lookup: Lookup) -> bool | None:
    if isinstance(right, Mapping):
        return _is_compound(value, right, lookup)
    if isinstance(right, list):
        return any_of(value, right, lookup)
    if right == "*":  # any element, or any interface
        return True
    if isinstance(right, str) and right.startswith("@"):
        elements = lookup(right)
        return any_of(value, elements, lookup) if elements is not None else None
    if value is None or isinstance(value, tuple):
        return None
    if isinstance(value, InterfaceName):
        return _is_interface(value.text, str(right))
    if isinstance(value, frozenset):
        return right in value
    if isinstance(value, int):
        return right == value if isinstance(right, int) else None
    return _is_address(value, str(right))


def _is_compound(value: Value, right: Mapping[str, Any], lookup: Lookup) -> bool | None:
    (kind, content), *_ = right.items()
    if kind == "set":
        return any_of(value, content, lookup)
    if kind == "elem":
        return _is(value, content["val"], lookup)
    if kind == "concat" and isinstance(value, tuple) and len(value) == len(content):
        answers = [_is(part, other, lookup) for part, other in zip(value, content, strict=True)]
        return False if False in answers else None if None in answers else True
    if kind == "prefix" and isinstance(value, Address):
        return _within(value, _prefix(content["addr"], content["len"]))
    if kind == "range" and isinstance(value, int):
        return bool(content[0] <= value <= content[1])
    if kind == "range" and isinstance(value, Address):
        return _within(value, _range(content[0], content[1]))
    return None


def _is_interface(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


# Sets of blocked addresses have tens of thousands of elements, which are the same a minute later.
Interval = tuple[int, int, int]  # IP version, first and last address as numbers


@lru_cache(maxsize=1 << 17)
def _prefix(address: str, length: int) -> Interval:
    network = ipaddress.ip_network(f"{address}/{length}", strict=False)
    return network.version, int(network.network_address), int(network.broadcast_address)


@lru_cache(maxsize=1 << 17)
def _range(first: str, last: str) -> Interval:
    return ipaddress.ip_address(first).version, int(ipaddress.ip_address(first)), int(ipaddress.ip_address(last))


def _within(value: Address, interval: Interval) -> bool:
    return interval[0] == value.version and interval[1] <= int(value) <= interval[2]


def _is_address(value: Address, text: str) -> bool | None:
    # Both are in the one form that inet_ntop writes. A name in its place says nothing.
    return text == str(value) or (False if ":" in text or text[:1].isdigit() else None)


def _flags_hold(operands: Sequence[Any], right: Any, operator: str, packet: Packet) -> bool | None:
    """``tcp flags & (fin | syn | rst | ack) == syn`` and the like; other masks are not known."""
    left, mask = operands[0], operands[1]
    payload = left.get("payload", {}) if isinstance(left, Mapping) else {}
    if (payload.get("protocol"), payload.get("field")) != ("tcp", "flags") or operator not in {"==", "!="}:
        return None
    if packet.protocol != "tcp":
        return False
    desired, among = _words(right), _words(mask)
    if desired is None or among is None:
        return None
    same = ({"ack"} if packet.reply else {"syn"}) & among == desired
    return same if operator == "==" else not same


def _words(flags: Any) -> set[str] | None:
    if isinstance(flags, Mapping) and "|" in flags:
        flags = flags["|"]
    if isinstance(flags, str):
        return {flags}
    if isinstance(flags, list):
        parts = [_words(part) for part in flags]
        return None if None in parts else {word for part in parts if part for word in part}
    return set() if flags == 0 else None


# Matches of iptables


def module_holds(name: str, arguments: Sequence[str] | None, packet: Packet) -> bool | None:
    """A match by the iptables module ``name``; ``arguments`` as iptables-save prints them, ``None`` if not known."""
    if name == "comment":
        return True
    if arguments is None:
        return None
    negated, arguments = arguments[:1] == ["!"], [word for word in arguments if word != "!"]
    if name == "physdev" and arguments == ["--physdev-is-bridged"]:
        return negated  # our packets are routed
    if len(arguments) != 2:
        return None
    answer = _module(name, arguments[0], arguments[1], packet)
    return _not(answer) if negated else answer


def _module(name: str, option: str, value: str, packet: Packet) -> bool | None:
    if name == "conntrack" and option in {"--ctstate", "--state"}:
        states = {"ESTABLISHED"} if packet.reply else {"NEW"}
        return bool((states | ({"DNAT"} if packet.dnat else set())) & set(value.split(",")))
    if (name, option) == ("addrtype", "--dst-type"):
        return ("LOCAL" if packet.hook == "input" else "UNICAST") in value.split(",")
    if (name, option) == ("pkttype", "--pkt-type"):
        return value in {"unicast", "host"}
    if name in {"tcp", "udp"} and option in {"--dport", "--sport"}:
        return _among(packet.dport if option == "--dport" else packet.sport, value)
    if name == "multiport" and option in {"--dports", "--sports"}:
        return _among(packet.dport if option == "--dports" else packet.sport, value)
    if (name, option) in {("icmp", "--icmp-type"), ("icmp6", "--icmpv6-type")}:
        return value in {"any", "8" if packet.version == 4 else "128", "echo-request"}
    return None


def _among(port: int, ports: str) -> bool | None:
    try:
        ranges = [tuple(int(end) for end in part.split(":")) for part in ports.split(",")]
    except ValueError:
        return None
    return any(each[0] <= port <= each[-1] for each in ranges)
