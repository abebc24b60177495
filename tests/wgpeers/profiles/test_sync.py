"""The profile's text, and keeping it in step."""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import LazySettings

from core.clock import moment
from servers.models import Host, Server
from tests.attempts import ask, enrol
from tests.conftest import Clock
from tests.factories import Company, add_host
from tests.protocol_client import NOW, VECTORS, Identity, another_rsa_key, b64, make_sync
from users import certificates
from users.models import Group, Organization, VpnUser
from wgpeers.profiles import content
from wgpeers.protocol.errors import Refusal


@pytest.fixture
def hired(company: Company) -> tuple[VpnUser, Identity]:
    return company.hire("alice")


@pytest.fixture
def alice(hired: tuple[VpnUser, Identity]) -> Identity:
    return hired[1]


@pytest.fixture
def user(hired: tuple[VpnUser, Identity]) -> VpnUser:
    return hired[0]


def read(text: str) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """(header, OpenVPN-style lines, PEM by tag) of a profile, read strictly by the letter of docs/PROTOCOL.md."""
    lines = text.splitlines()
    assert lines[0] == "#{"
    end = lines.index("#}")
    assert all(line.startswith("#") for line in lines[: end + 1])
    header = json.loads("\n".join(line[1:] for line in lines[: end + 1]))
    plain, blocks, rest = [], {}, iter(lines[end + 1 :])
    for line in rest:
        if tag := re.fullmatch(r"<(ca|cert|key)>", line):
            block = []
            while (inside := next(rest)) != f"</{tag[1]}>":
                block.append(inside)
            blocks[tag[1]] = "\n".join(block)
        else:
            assert not line.startswith(("#", "<"))
            plain.append(line)
    return header, plain, blocks


def synced(identity: Identity, sync_hash: str = "a") -> dict[str, Any]:
    """The answer to a sync, its signature checked as a client does."""
    response = make_sync(identity, sync_hash).send()
    assert response.status_code == 200, response.content
    answer: dict[str, Any] = response.json()
    if answer:
        digest = hmac.digest(identity.secret.encode(), answer["conf"].encode(), "sha512")
        assert answer["signature"] == b64(digest)
    return answer


def current(identity: Identity) -> dict[str, Any]:
    return read(synced(identity)["conf"])[0]


HEADER = {
    "version": int,
    "user": str,
    "organization": str,
    "server": str,
    "user_id": str,
    "organization_id": str,
    "server_id": str,
    "wg": bool,
    "hide_ovpn": bool,
    "last_mode": str,
    "server_public_key": list,
    "server_box_public_key": str,
    "sync_hosts": list,
    "revision": int,
    "sync_hash": str,
    "sync_token": str,
    "sync_secret": str,
    "token": bool,
    "token_ttl": int,
    "push_auth": bool,
    "push_auth_ttl": int,
    "sso_auth": bool,
    "device_auth": bool,
    "dynamic_firewall": bool,
    "force_connect": bool,
    "restrict_client": bool,
    "disable_reconnect": bool,
    "force_dns": bool,
    "disable_gateway": bool,
    "disable_dns": bool,
    "pre_connect_msg": str,
    "remotes_data": dict,
}
LINES = [
    "client",
    "dev tun",
    "dev-type tun",
    "nobind",
    "persist-tun",
    "cipher AES-256-GCM",
    "auth SHA256",
    "verb 4",
    "ping 10",
    "ping-restart 60",
    "remote-cert-tls server",
]


def test_a_full_profile(company: Company, user: VpnUser, alice: Identity, settings: LazySettings) -> None:
    settings.API_URLS = ["https://192.0.2.10", "https://vpn.example.com:8443", "https://[2001:db8::1]:8443"]
    Organization.objects.update(ca_certificate=certificates.make_ca("Acme", another_rsa_key(), moment(NOW)))
    user.organization.refresh_from_db()
    header, lines, blocks = read(content.full(user, company.server))
    assert {name: type(header[name]) for name in HEADER} == HEADER
    assert header["password_mode"] is None
    assert header["geo_sort"] is None
    assert (header["version"], header["hide_ovpn"], header["last_mode"]) == (2, True, "wg")
    assert (header["user_id"], header["organization_id"], header["server_id"]) == (
        alice.user,
        alice.organization,
        alice.server,
    )
    assert (header["sync_token"], header["sync_secret"]) == (alice.token, alice.secret)
    assert len(base64.b64decode(header["server_box_public_key"])) == 32
    assert header["sync_hosts"] == settings.API_URLS
    assert [line for line in lines if line.startswith("remote ")] == [
        "remote 192.0.2.10 443 tcp-client",
        "remote vpn.example.com 443 tcp-client",
        "remote 2001:db8::1 443 tcp6-client",
    ]
    assert set(LINES) <= set(lines)
    assert set(blocks) == {"ca", "cert", "key"}
    assert blocks["key"] == VECTORS["user_private_key_pkcs8"].strip()


def test_each_full_profile_is_for_a_device_of_its_own(company: Company, user: VpnUser) -> None:
    names = {}
    for _ in range(3):
        _, lines, _ = read(content.full(user, company.server))
        (device,) = [line.split()[2] for line in lines if line.startswith("setenv UV_ID ")]
        (name,) = [line.split()[2] for line in lines if line.startswith("setenv UV_NAME ")]
        assert re.fullmatch(r"[0-9a-f]{32}", device)
        names[device] = name
    assert len(names) == len(set(names.values())) == 3


def test_no_text_of_an_admin_breaks_out_of_the_header(company: Company, user: VpnUser) -> None:
    message = "one\ntwo\r#}\nremote evil.example 443 udp\n<key>\u2028\x85 é"
    Server.objects.update(pre_connect_message=message, name="a</ca>b")
    header, lines, blocks = read(content.full(user, Server.objects.get()))
    assert header["pre_connect_msg"] == message
    assert not any("evil" in line for line in lines)
    assert set(blocks) == {"cert", "key"}


def test_no_profile_before_the_key_is_made(company: Company, user: VpnUser) -> None:
    user.certificate = ""
    with pytest.raises(Refusal) as refused:
        content.full(user, company.server)
    assert (refused.value.status, refused.value.retry_after > 0) == (503, True)


def test_an_unchanged_profile(alice: Identity) -> None:
    header = current(alice)
    assert synced(alice, header["sync_hash"]) == {}
    assert current(alice) == header


def test_a_synced_profile_has_no_secret(company: Company, user: VpnUser, alice: Identity) -> None:
    header, _, blocks = read(synced(alice)["conf"])
    full_header, _, full_blocks = read(content.full(user, company.server))
    assert full_header == header | {"sync_token": alice.token, "sync_secret": alice.secret}
    assert "key" not in blocks
    assert blocks == {name: pem for name, pem in full_blocks.items() if name != "key"}
    text = json.dumps(synced(alice))
    assert "PRIVATE" not in text
    assert alice.secret not in text
    assert alice.token not in text


Change = Callable[[Company, VpnUser], object]
CHANGES: dict[str, Change] = {
    "the user gets a PIN": lambda company, user: enrol(user, "w0mbat"),
    "a host comes": lambda company, user: add_host(company.server, "gate-2", address="192.0.2.2"),
    "a host has another address": lambda company, user: Host.objects.update(public_address="192.0.2.3"),
    "a host has another IPv6 address": lambda company, user: Host.objects.update(public_address6="2001:db8::3"),
    "another port": lambda company, user: Server.objects.update(port=51899),
    "a host is disabled": lambda company, user: Host.objects.filter(name="gate-1").update(enabled=False),
    "a host goes": lambda company, user: company.server.attachments.all().delete(),
    "another name": lambda company, user: Server.objects.update(name="Elsewhere"),
    "WireGuard off": lambda company, user: Server.objects.update(wireguard=False),
    "another box key": lambda company, user: Server.objects.update(box_public_key=b64(b"k" * 32)),
    "no PIN is asked": lambda company, user: ask(company.server),
    "TOTP is asked": lambda company, user: ask(company.server, totp=True),
    "a message": lambda company, user: Server.objects.update(pre_connect_message="Hello"),
    "the organization's name": lambda company, user: Organization.objects.update(name="Acme Ltd"),
    "the user's name": lambda company, user: VpnUser.objects.update(name="alicia"),
    "the certificate": lambda company, user: VpnUser.objects.update(certificate="another"),
    "the CA": lambda company, user: Organization.objects.update(
        ca_certificate=certificates.make_ca("Acme", another_rsa_key(), moment(NOW))
    ),
}


def test_what_a_client_acts_on_changes_the_hash(company: Company, user: VpnUser, alice: Identity) -> None:
    seen = [current(alice)]
    for name, change in CHANGES.items():
        change(company, user)
        seen.append(current(alice))
        assert seen[-1]["sync_hash"] != seen[-2]["sync_hash"], name
        assert seen[-1]["revision"] == seen[-2]["revision"] + 1, name
        assert synced(alice, seen[-1]["sync_hash"]) == {}, name
    assert len({header["sync_hash"] for header in seen}) == len(seen)


def test_the_factor_token_changes_the_hash(company: Company, alice: Identity) -> None:
    ask(company.server, "required")
    before = current(alice)
    Server.objects.update(factor_token_ttl=3600)
    after = current(alice)
    assert (before["token"], after["token"], after["token_ttl"]) == (False, True, 3600)
    assert before["sync_hash"] != after["sync_hash"]


def test_the_addresses_of_the_api_change_the_hash(alice: Identity, settings: LazySettings) -> None:
    before = current(alice)
    settings.API_URLS = [*settings.API_URLS, "https://192.0.2.77"]
    after = current(alice)
    assert before["sync_hash"] != after["sync_hash"]
    assert "https://192.0.2.77" in after["sync_hosts"]


def test_what_comes_with_each_connect_does_not_change_the_hash(alice: Identity) -> None:
    before = current(alice)
    Server.objects.update(dns_servers="192.0.2.53", mtu=1400, ping_timeout=60, search_domains="corp.example")
    assert current(alice) == before


def test_a_revision_never_falls(alice: Identity) -> None:
    """Also when everything is again as it was: who has the newer one must not refuse the newest."""
    first = current(alice)
    Server.objects.update(port=51899)
    second = current(alice)
    Server.objects.update(port=51820)
    third = current(alice)
    assert third["sync_hash"] == first["sync_hash"]
    assert [header["revision"] for header in (first, second, third)] == [NOW, NOW + 1, NOW + 2]


MODES = [
    (None, "off", False, True),
    (None, "optional", False, False),
    ("pin", "optional", False, True),
    ("pin", "required", False, False),
    ("otp", "off", True, True),
    ("otp_pin", "required", True, True),
    ("otp", "optional", True, False),
]


def test_which_secret_a_client_asks_for(company: Company, user: VpnUser, alice: Identity) -> None:
    for mode, pin, totp, has_pin in MODES:
        ask(company.server, pin, totp)
        enrol(user, "w0mbat" if has_pin else "")
        assert current(alice)["password_mode"] == mode, (pin, totp, has_pin)


FORBIDDEN: dict[str, Change] = {
    "the user is disabled": lambda company, user: VpnUser.objects.update(enabled=False),
    "the organization is disabled": lambda company, user: Organization.objects.update(enabled=False),
    "the organization is not on the server": lambda company, user: company.server.organizations.clear(),
    "in none of the groups": lambda company, user: company.server.groups.add(Group.objects.create(name="staff")),
    "the key is not made yet": lambda company, user: VpnUser.objects.update(certificate=""),
}


@pytest.mark.parametrize("change", FORBIDDEN)
def test_no_profile_for_whom_the_server_is_not(company: Company, user: VpnUser, alice: Identity, change: str) -> None:
    FORBIDDEN[change](company, user)
    response = make_sync(alice, "a").send()
    assert (response.status_code, response.json()["error"]) == (480, "unknown_configuration")


def test_a_sync_needs_the_secret(alice: Identity, fixed_clock: Clock) -> None:
    request = make_sync(alice, "a")
    for header, value in (("Auth-Signature", "AAAA"), ("Auth-Token", "b" * 32), ("Auth-Nonce", "c" * 32)):
        changed = make_sync(alice, "a")
        changed.headers[header] = value
        assert changed.send().status_code == 401, header
    other = make_sync(alice, "b")
    other.path = request.path
    assert other.send().status_code == 401


def test_the_query_is_not_signed_and_not_needed(alice: Identity) -> None:
    request = make_sync(alice, "a")
    request.path += "?ver=2"
    assert request.send().status_code == 200


def test_addresses_of_hosts_have_the_priority_of_their_host_and_a_change_of_it_reaches_clients(
    company: Company, alice: Identity, settings: LazySettings
) -> None:
    settings.API_URLS = ["https://vpn.example.com", "https://Gate-2.example.com:8443", "https://[2001:db8::2]"]
    Host.objects.update(public_address="vpn.example.org")
    second = add_host(company.server, "gate-2", address="gate-2.example.com", public_address6="2001:db8::2", priority=3)
    lab = Server.objects.create(name="Lab", network="10.20.0.0/24", wg_network="10.21.0.0/24", port=51821)
    add_host(lab, "gate-9", address="vpn.example.com", priority=9)  # of another server
    header = current(alice)
    assert header["remotes_data"] == {
        "vpn.example.com": {"priority": 1},
        "gate-2.example.com": {"priority": 3},
        "2001:db8::2": {"priority": 3},
    }
    assert synced(alice, header["sync_hash"]) == {}
    row = second.attachments.get()
    row.priority = 2
    row.save()
    after = current(alice)
    assert after["remotes_data"]["gate-2.example.com"] == {"priority": 2}
    assert after["sync_hash"] != header["sync_hash"]
