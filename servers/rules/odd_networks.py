"""What works as a network of a tunnel, or behind a client, but is hardly meant. Each oddity has a stable code."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from servers.networks import Network, overlaps, within

from .registry import Oddity

# A tunnel network as large leaves a company nothing else of 10.0.0.0/8, 172.16.0.0/12 or fd00::/8.
LARGE = {4: 13, 6: 31}
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
# Set aside for something else, each with its code and what for.
SET_ASIDE = (
    ("100.64.0.0/10", "shared_address_space", "which providers use between themselves and their customers (RFC 6598)"),
    ("192.0.2.0/24", "documentation_network", "which is for examples in documents (RFC 5737)"),
    ("198.51.100.0/24", "documentation_network", "which is for examples in documents (RFC 5737)"),
    ("203.0.113.0/24", "documentation_network", "which is for examples in documents (RFC 5737)"),
    ("2001:db8::/32", "documentation_network", "which is for examples in documents (RFC 3849)"),
    ("198.18.0.0/15", "benchmark_network", "which is for measuring devices (RFC 2544)"),
    ("169.254.0.0/16", "link_local_network", "addresses that machines give themselves on a link (RFC 3927)"),
)
# What routers for homes, hotels and trains, docker and libvirt begin with.
AT_HOME = (
    "192.168.0.0/24", "192.168.1.0/24", "192.168.2.0/24", "192.168.8.0/24", "192.168.43.0/24", "192.168.86.0/24",
    "192.168.100.0/24", "192.168.122.0/24", "192.168.178.0/24", "10.0.0.0/24", "10.0.1.0/24", "10.1.1.0/24",
    "172.16.0.0/24", "172.17.0.0/16",
)  # fmt: skip


def of_tunnel(field: str, network: Network) -> Iterator[Oddity]:
    """What is odd about ``network`` as a tunnel network of a server."""
    subject = str(network)
    yield from _not_private(field, network)
    if network.prefixlen <= LARGE[network.version]:
        message = f"{network} is very large: nothing else that clients reach can be in it."
        yield Oddity(field, message, "large_network", subject)
    if home := next((each for each in AT_HOME if overlaps(network, each)), None):
        what = "is a network" if str(network) == home else f"overlaps {home}, a network"
        message = (
            f"{network} {what} of many homes and hotels: who is in one cannot use this tunnel, or no printer there."
        )
        yield Oddity(field, message, "usual_home_network", subject)


def of_client(field: str, network: Network) -> Iterator[Oddity]:
    """What is odd about ``network`` behind a client."""
    yield from _not_private(field, network)


def _not_private(field: str, network: Network) -> Iterator[Oddity]:
    for text, code, what in SET_ASIDE:
        if overlaps(network, text):
            yield Oddity(field, f"{network} is in {text}, {what}.", code, str(network))
            return
    if not any(within(network, ipaddress.ip_network(text)) for text in PRIVATE):
        message = f"{network} is public: whoever has it on the Internet cannot be reached from the tunnel any more."
        yield Oddity(field, message, "public_network", str(network))
