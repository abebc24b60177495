"""What both sides do with networks and addresses of servers."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.hostnet.state.addresses import host_and_port, overlap
from servers.hostnet.state.names import INTERFACE
from servers.hostnet.wireguard.base import WireGuardError
from servers.hostnet.wireguard.fields import check_interface

NETWORKS = st.ip_addresses().flatmap(
    lambda address: st.integers(0, address.max_prefixlen).map(
        lambda length: ipaddress.ip_network((address, length), strict=False)
    )
)


@given(NETWORKS, NETWORKS)
def test_networks_overlap_where_one_begins_within_the_other(
    one: ipaddress.IPv4Network | ipaddress.IPv6Network, other: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> None:
    shared = one.network_address in other or other.network_address in one
    assert overlap(one, other) == overlap(other, one) == shared


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("db1", ("db1", 5432)),
        ("db1.example.com:6000", ("db1.example.com", 6000)),
        ("[fd00::1]", ("fd00::1", 5432)),
        ("[fd00::1]:65535", ("fd00::1", 65535)),
    ],
)
def test_a_server_is_named_with_its_port_or_without(text: str, read: tuple[str, int]) -> None:
    assert host_and_port(text, 5432) == read


@pytest.mark.parametrize(
    "text", ["", ":5432", "db1:", "db1:0", "db1:65536", "fd00::1", "[fd00::1", "a b", "db1\n", "/x"]
)
def test_what_is_neither_host_nor_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither host nor host:port"):
        host_and_port(text, 5432)


@given(st.text(max_size=20))
def test_wireguard_takes_the_names_that_are_interfaces_elsewhere(name: str) -> None:
    taken = True
    try:
        check_interface(name)
    except WireGuardError:
        taken = False
    assert taken == (INTERFACE.fullmatch(name) is not None)
    assert not taken or ("/" not in name and not name.startswith("-"))
