"""WireGuard's own packets go where the host would send them if it had no tunnels."""

from __future__ import annotations

import ipaddress
import socket

from hypothesis import given
from hypothesis import strategies as st

from servers.hostnet.outer.ways import LAST, UNREACHABLE, Way, beside
from servers.hostnet.state.addresses import Network
from servers.hostnet.state.host_networks import HostNetwork, Kind, met_by

NETWORKS = [
    ipaddress.ip_network(text)
    for text in ("0.0.0.0/0", "10.0.0.0/8", "10.9.0.0/16", "10.9.0.0/24", "10.9.0.128/25", "192.0.2.0/24",
                 "192.0.2.7/32", "::/0", "fd00::/8", "fd01::/64", "2001:db8::/32")
]  # fmt: skip


def family(network: Network) -> int:
    return socket.AF_INET if network.version == 4 else socket.AF_INET6


ways = st.builds(
    lambda network, metric, link: Way(family(network), str(network), metric, 1, ((link, ""),)),
    st.sampled_from(NETWORKS),
    st.sampled_from([0, 100]),
    st.integers(1, 3),
)


def taken(ways: frozenset[Way], address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Way | None:
    """The longest network wins, and then the lowest metric (of two alike, either)."""
    fits = [way for way in ways if address in ipaddress.ip_network(way.network)]
    return min(fits, key=lambda w: (-ipaddress.ip_network(w.network).prefixlen, w.metric, w), default=None)


@given(st.frozensets(ways, max_size=8), st.sets(st.sampled_from(NETWORKS[1:7] + NETWORKS[8:]), min_size=1), st.data())
def test_every_address_in_a_tunnel_has_the_way_that_the_host_has_to_it(
    host: frozenset[Way], tunnels: set[Network], data: st.DataObject
) -> None:
    table = beside(tunnels, host)
    network = data.draw(st.sampled_from(sorted(tunnels, key=str)))
    address = network[data.draw(st.integers(0, min(network.num_addresses, 2**32) - 1))]
    expected = taken(host, address)
    if expected is not None:
        assert taken(table, address) == expected
    elif any(way.family == family(network) for way in host):
        last = taken(table, address)
        assert last is not None
        assert (last.kind, last.metric) == (UNREACHABLE, LAST)
    else:
        assert taken(table, address) is None


def test_without_tunnels_there_is_no_table() -> None:
    assert beside([], [Way(socket.AF_INET, "0.0.0.0/0", 0, 1, ((1, ""),))]) == frozenset()


@given(st.sampled_from(NETWORKS), st.lists(st.sampled_from(NETWORKS[1:7] + NETWORKS[8:])))
def test_a_tunnel_meets_what_it_shares_an_address_with(network: Network, own: list[Network]) -> None:
    met = met_by(network, [HostNetwork(Kind.ATTACHED, str(each), "eth0") for each in own])
    shared = [each for each in own if each.version == network.version and each.overlaps(network)]
    assert (met.network if met else None) == (str(shared[0]) if shared else None)
