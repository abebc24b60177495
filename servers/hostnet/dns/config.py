"""What unbound is told of one server: its configuration file, in full. Pure, but for reading the host's resolvers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from servers.hostnet.state import Dns, Interface

CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
RESOLV_CONF = Path("/etc/resolv.conf")
TLS_PORT = 853
# An address, also with its interface (fe80::1%eth0): nothing else gets from resolv.conf into a configuration file.
_RESOLVER = re.compile(r"nameserver\s+([0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?)\s*")


def text(interface: Interface, dns: Dns, socket: Path, resolvers: Iterable[str]) -> str:
    """The configuration. ``resolvers`` are asked where ``dns`` names no servers of its own."""
    networks = [str(ipaddress.ip_interface(address).network) for address in interface.addresses]
    gateways = [str(ipaddress.ip_interface(address).ip) for address in interface.addresses]
    linked = [link for link in interface.links if link.zone]
    known = [*networks, *(network for link in linked for network in link.networks)]
    elsewhere = {split.domain for split in dns.splits}
    zones = [dns.zone, *(zone for network in known for zone in reverse_zones(network))]
    # What the server looks up elsewhere it goes on to look up there; clients' names come before it.
    zones += sorted({link.zone for link in linked} - {dns.zone} - elsewhere)
    lines = [
        "# Written by the VPN server for its own unbound; changes are lost.",
        "server:",
        *(f"    {line}" for line in _server(gateways, networks)),
        *(f'    local-zone: "{zone}." static' for zone in zones),
        # What is looked up elsewhere must not fall to a zone that unbound or we answer for.
        *(f'    local-zone: "{each.domain}." transparent' for each in dns.splits if each.domain not in zones),
        "remote-control:",
        "    control-enable: yes",
        "    control-use-cert: no",  # it is a file, which only root reaches
        f'    control-interface: "{socket}"',
    ]
    for split in dns.splits:
        lines += _forward(f"{split.domain}.", split.servers, "")
    others = [each for each in resolvers if each not in gateways]
    lines += _forward(".", dns.servers, dns.tls_name) if dns.servers else _forward(".", others, "")
    return "\n".join(lines) + "\n"


def _server(gateways: list[str], networks: list[str]) -> Iterator[str]:
    yield from (f"interface: {address}" for address in gateways)
    yield "ip-freebind: yes"  # whether the tunnel is there before us or made anew later
    yield from (f"access-control: {network} allow" for network in networks)  # all others are refused
    yield 'directory: ""'
    yield 'chroot: ""'
    yield 'pidfile: ""'
    yield 'username: "unbound"'
    yield "use-syslog: no"
    yield 'logfile: ""'  # standard error, which we read
    yield "verbosity: 0"
    yield "num-threads: 1"
    yield "hide-identity: yes"
    yield "hide-version: yes"
    yield "max-udp-size: 1232"  # fits into any tunnel without fragments
    # No validator: neither our zone nor the inner zones of split DNS are signed, and the servers asked do validate.
    yield 'module-config: "iterator"'
    yield "do-not-query-localhost: no"  # the host's own resolver is often there
    # Inner servers know the reverse names of private networks; and no answer is dropped for a private address in it.
    yield "unblock-lan-zones: yes"
    yield "infra-keep-probing: yes"  # servers behind a tunnel come back, and are then used at once
    yield f'tls-cert-bundle: "{CA_BUNDLE}"'


def _forward(zone: str, servers: Iterable[str], tls_name: str) -> list[str]:
    """Nothing where there are no servers: unbound then asks the root servers and on."""
    suffix = f"@{TLS_PORT}#{tls_name}" if tls_name else ""
    addresses = [f"    forward-addr: {server}{suffix}" for server in servers]
    if not addresses:
        return []
    tls = ["    forward-tls-upstream: yes"] if tls_name else []
    return ["forward-zone:", f'    name: "{zone}"', *tls, *addresses]


def reverse_zones(network: str) -> list[str]:
    """The names below which the addresses of ``network``, and no others, are looked up; without a dot at the end.

    Names end at every octet (at every hex digit in IPv6): a /23 is two of them, a /28 sixteen.
    """
    parsed = ipaddress.ip_network(network)
    digit = 8 if parsed.version == 4 else 4
    length = max(digit, -(-parsed.prefixlen // digit) * digit)
    left_out = (parsed.max_prefixlen - length) // digit
    return [
        ".".join(each.network_address.reverse_pointer.split(".")[left_out:])
        for each in parsed.subnets(new_prefix=max(length, parsed.prefixlen))
    ]


def host_resolvers(path: Path = RESOLV_CONF) -> list[str]:
    """The servers that the host itself asks; none where they cannot be read."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [found[1] for line in lines if (found := _RESOLVER.fullmatch(line)) and _is_address(found[1])]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
