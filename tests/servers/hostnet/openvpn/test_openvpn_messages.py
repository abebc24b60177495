"""An end as it goes to a host, and what openvpn is told of it."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from servers import link_keys
from servers.hostnet.openvpn import config
from servers.hostnet.state import Link, OpenVpn, link_from_json

KEYS = link_keys.make(datetime(2026, 1, 1, tzinfo=UTC))


def end(*addresses: str, keys: link_keys.EndKeys = KEYS.server) -> OpenVpn:
    return OpenVpn("wgo2", 1194, addresses, keys.peer, keys.authority, keys.certificate, keys.key, keys.tls_crypt)


def test_it_goes_to_a_host_and_back() -> None:
    for addresses in ((), ("198.51.100.1",), ("2001:db8::1", "vpn.example.com")):
        link = Link("office", "wgs1", ("10.9.0.0/24",), openvpn=end(*addresses))
        assert link_from_json(dataclasses.asdict(link)) == link
    with_mtu = dataclasses.replace(link, openvpn=dataclasses.replace(end(), mtu=1300))
    assert link_from_json(dataclasses.asdict(with_mtu)) == with_mtu


def test_no_key_is_in_its_repr() -> None:
    said = repr(Link("office", "wgs1", (), openvpn=end()))
    assert "PRIVATE KEY" not in said
    assert "Static key" not in said


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "wgs1"),
        ("device", "wgo1\nup /bin/sh"),
        ("port", 1023),
        ("port", 65536),
        ("mtu", 1279),
        ("mtu", 65536),
        ("addresses", ["host; up"]),
        ("addresses", ["192.0.2.1", "a\nscript-security 2"]),
        ("addresses", ["192.0.2.1"] * 17),
        ("peer", "name\nup x"),
        ("peer", ""),
        *((name, "") for name in ("authority", "certificate", "key", "tls_crypt")),
        *((name, "x</ca>\nscript-security 2\nup /bin/sh\n<ca>") for name in ("authority", "key", "tls_crypt")),
        ("certificate", "AAAA\nup /bin/sh"),
    ],
)
def test_what_would_say_something_else_to_openvpn_is_no_end(field: str, value: Any) -> None:
    data = dataclasses.asdict(Link("office", "wgs1", (), openvpn=end()))
    data["openvpn"][field] = value
    with pytest.raises(ValueError, match="of a link"):
        link_from_json(data)


def test_each_end_asks_for_the_other_side_and_its_name() -> None:
    listens = config.text(end(), Path("/var/x.sock"), 1400)
    sends = config.text(end("198.51.100.1", "2001:db8::1", keys=KEYS.client), Path("/var/x.sock"), 1400)
    assert {"tls-server", "lport 1194", "remote-cert-tls client"} <= {*listens.splitlines()}
    assert {"tls-client", "remote 198.51.100.1 1194", "remote-cert-tls server"} <= {*sends.splitlines()}
    assert sends.index("remote 198.51.100.1 1194") < sends.index("remote 2001:db8::1 1194")
    assert f"verify-x509-name {KEYS.client.name} name" in listens
    assert f"verify-x509-name {KEYS.server.name} name" in sends
    for text in (listens, sends):
        assert {"tls-version-min 1.3", "script-security 0", "user nobody", "tun-mtu 1400"} <= {*text.splitlines()}
