"""Which address and port bin/run tells clients."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator

import pytest

from vpnproject.runner import network
from vpnproject.runner.console import RunError

V4, V6 = ipaddress.ip_address("198.51.100.7"), ipaddress.ip_address("2606:4700::7")


def source(*found: network.IPAddress) -> object:
    by_family = {socket.AF_INET if address.version == 4 else socket.AF_INET6: address for address in found}
    return by_family.get


def choose(given: str | None, kept: str | None, *found: network.IPAddress) -> network.Address:
    return network.choose_address(given, kept, source(*found))  # type: ignore[arg-type]


def test_an_address_given_now_wins_over_one_given_before_and_both_over_what_is_found() -> None:
    assert choose("vpn.example.com", "192.0.2.9", V4).text == "vpn.example.com"
    assert choose(None, "192.0.2.9", V4) == network.Address("192.0.2.9", given=True)
    assert choose(None, None, V6, V4) == network.Address("198.51.100.7", given=False)
    assert choose(None, None, V6) == network.Address("2606:4700::7", given=False)


def test_without_a_default_route_a_person_must_say() -> None:
    with pytest.raises(RunError, match="--public-address"):
        choose(None, None)


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("[2606:4700:0:0::7]", "2606:4700::7"),
        ("VPN.Example.com.", "vpn.example.com"),
        ("a-b.c3.org", "a-b.c3.org"),
    ],
)
def test_addresses_are_put_in_plain_form(given: str, plain: str) -> None:
    assert network.parse_address(given) == plain


@pytest.mark.parametrize(
    "given", ["", "vpn", "1.2.3", "1.2.3.4.5", "256.1.1.1", "https://a.b", "a..b", "-a.b", "a b.c", "a.b/x", "a.b:443"]
)
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(RunError, match="give an IP address or a DNS name"):
        network.parse_address(given)


@pytest.mark.parametrize(
    ("address", "doubt"),
    [
        ("8.8.8.8", ""),
        ("2606:4700::7", ""),
        ("vpn.example.com", ""),
        ("192.168.1.4", "not a public address"),
        ("fd00::5", "not a public address"),
        ("100.64.3.2", "provider's own NAT"),
        ("127.0.0.1", "only this machine"),
    ],
)
def test_addresses_that_nobody_reaches_are_doubted(address: str, doubt: str) -> None:
    words = network.Address(address, given=False).doubt()
    assert bool(words) == bool(doubt)
    assert doubt in words


def test_ipv6_is_bracketed_in_urls() -> None:
    assert network.Address("2606:4700::7", given=True).in_url == "[2606:4700::7]"
    assert network.Address("198.51.100.7", given=True).in_url == "198.51.100.7"


def test_https_is_taken_if_free() -> None:
    assert network.choose_port(None, None, lambda port: True) == (443, "")


def test_another_port_is_explained() -> None:
    port, words = network.choose_port(None, None, lambda port: port != 443)
    assert port == 8443
    assert "443 is held by" in words
    assert "sync_hosts" in words
    assert "sync_hosts" in network.choose_port(9443, None, lambda port: True)[1]


def test_a_port_that_was_given_or_kept_must_be_free() -> None:
    assert network.choose_port(None, 8443, lambda port: True)[0] == 8443
    assert network.choose_port(9443, 8443, lambda port: True)[0] == 9443
    with pytest.raises(RunError, match="Port 9443 is held by"):
        network.choose_port(9443, None, lambda port: False)
    with pytest.raises(RunError, match="give --port"):
        network.choose_port(None, None, lambda port: False)


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def listener(request: pytest.FixtureRequest) -> Iterator[int]:
    family, address = request.param
    with socket.socket(family) as server:
        server.bind((address, 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_listener_on_any_address_holds_its_port_and_is_named(listener: int) -> None:
    assert not network.port_free(listener)
    assert f"(pid {os.getpid()})" in network.port_holder(listener)


def test_a_port_is_free_again_although_connections_linger() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # this side closes first and keeps TIME_WAIT
        client.close()
    assert network.port_free(port)


def test_a_taken_udp_port_is_passed_over() -> None:
    assert network.choose_wireguard_port(lambda port, kind: port > 51821) == 51822
    with pytest.raises(RunError, match="51820 to 51919"):
        network.choose_wireguard_port(lambda port, kind: False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        assert not network.port_free(taken.getsockname()[1], socket.SOCK_DGRAM)
        assert f"(pid {os.getpid()})" in network.port_holder(taken.getsockname()[1], socket.SOCK_DGRAM)


def test_port_80_is_taken_where_nobody_has_it_and_left_alone_where_that_is_wanted() -> None:
    assert network.choose_plain_port("80", None, 443, lambda port: True) == (80, "")
    assert network.choose_plain_port("80", 80, 443, lambda port: False) == (80, "")  # our own front has it
    port, words = network.choose_plain_port("80", None, 443, lambda port: False)
    assert port == 0
    assert "Port 80 is held by" in words
    assert network.choose_plain_port("0", 80, 443, lambda port: True) == (0, "")
    assert network.choose_plain_port("80", None, 80, lambda port: True) == (0, "")
    for wrong in ("", "eighty", "-1", "70000"):
        with pytest.raises(RunError, match="PLAIN_PORT"):
            network.choose_plain_port(wrong, None, 443, lambda port: True)
