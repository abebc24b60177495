"""Profiles: parsed, refused in words, written and read again, and what a sync may change."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wgpeer.profile import ApiHost, ProfileError, merge, parse, parse_host, render
from wgpeer_fakes import DEVICE_ID, IDS, PEM, RSA_KEY, VECTORS, make_profile, profile_text


def test_a_profile_is_read() -> None:
    profile = make_profile()
    assert profile.ids == IDS
    assert profile.device_id == DEVICE_ID
    assert profile.device_name == "wandering-heron-4821"
    assert profile.sync_hosts == (ApiHost("a.example"), ApiHost("b.example", 8443))
    assert profile.remotes == (ApiHost("c.example"),)  # a remote of three words is not one
    assert profile.rsa_key().private_numbers() == RSA_KEY.private_numbers()
    assert profile.title == "alice at acme, server office"


def test_windows_line_ends_and_pkcs8_are_read_too() -> None:
    assert make_profile().ids == parse(profile_text().replace("\n", "\r\n")).ids
    assert parse(profile_text(key=VECTORS["user_private_key_pkcs8"].strip())).rsa_key()


def test_what_is_written_is_what_was_read() -> None:
    profile = make_profile(pre_connect_msg="grüß\u2028dich", extra={"a": [1]})
    assert parse(render(profile)) == profile
    assert render(profile).startswith("#{\n#")


def test_nothing_secret_is_shown() -> None:
    shown = repr(make_profile())
    assert VECTORS["sync_secret"] not in shown
    assert "PRIVATE" not in shown


BAD: dict[str, str] = {
    "empty": "",
    "binary": "\x00\x01",
    "no header": "client\n",
    "header without end": '#{\n#"a": 1\n',
    "header not json": '#{\n#"a"\n#}\n',
    "header line without mark": '#{\n"a": 1\n#}\n',
    "deep json": "#{\n#" + '"a":' + "[" * 100_000 + "\n#}\n",
    "id with a slash": profile_text(user_id="../../etc"),
    "id missing": profile_text(drop=("server_id",)),
    "id a number": profile_text(server_id=7),
    "no box key": profile_text(drop=("server_box_public_key",)),
    "short box key": profile_text(server_box_public_key="AAAA"),
    "odd box key": profile_text(server_box_public_key="?" * 44),
    "no token": profile_text(drop=("sync_token",)),
    "no secret": profile_text(drop=("sync_secret",)),
    "secret with a header in it": profile_text(sync_token="a" * 32 + "\r\nX: y"),
    "no key": profile_text(key=None),
    "bad key": profile_text(key="-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----"),
    "another kind of key": profile_text(key=VECTORS["device_private_key_pkcs8"].strip()),
    "no device id": profile_text(lines="setenv UV_NAME x\n"),
    "odd device id": profile_text(lines="setenv UV_ID zz\nsetenv UV_NAME x\n"),
    "no device name": profile_text(lines=f"setenv UV_ID {DEVICE_ID}\n"),
    "http host": profile_text(sync_hosts=["http://a.example"]),
    "host with a path": profile_text(sync_hosts=["https://a.example/x"]),
    "host with a user": profile_text(sync_hosts=["https://me@a.example"]),
    "host not a text": profile_text(sync_hosts=[7]),
    "hosts not a list": profile_text(sync_hosts="https://a.example"),
    "bad port": profile_text(sync_hosts=["https://a.example:99999"]),
    "unended block": profile_text().replace("</key>", ""),
    "hash with a slash": profile_text(sync_hash="a/../b"),
    "not for wireguard": profile_text(wg=False),
    "too large": profile_text(filler="x" * 300_000),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_profile_is_refused_in_words(name: str) -> None:
    with pytest.raises(ProfileError) as caught:
        parse(BAD[name])
    message = str(caught.value)
    assert len(message) > 10
    assert VECTORS["sync_secret"] not in message
    assert PEM not in message


def test_api_hosts() -> None:
    assert parse_host("https://[fd00::1]:8443").url == "https://[fd00::1]:8443"
    assert parse_host("https://Vpn.Example").url == "https://vpn.example"
    assert parse_host("https://192.0.2.1/").url == "https://192.0.2.1"


header_values = st.none() | st.booleans() | st.integers() | st.text(max_size=30) | st.lists(st.text(max_size=10))


@settings(max_examples=120, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*make_profile().header, "x", "pre_connect_msg"]), header_values, min_size=1, max_size=3
    )
)
def test_any_header_is_a_profile_or_an_error_in_words(changes: dict[str, Any]) -> None:
    try:
        profile = parse(profile_text(**changes))
    except ProfileError:
        return
    assert parse(render(profile)) == profile
    assert all(part.isalnum() for part in profile.ids)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=300), st.integers(0, 3000), st.integers(0, 300))
def test_any_text_is_a_profile_or_an_error_in_words(noise: str, where: int, cut: int) -> None:
    whole = profile_text()
    for text in (noise, whole[:where] + noise + whole[where + cut :]):
        message = ""
        try:
            profile = parse(text)
        except ProfileError as error:
            message = str(error)
        assert message or len(profile.device_id) == 32


def test_a_sync_that_changes_nothing_is_nothing() -> None:
    mine = make_profile()
    text = profile_text(drop=("sync_token", "sync_secret"), key=None)
    assert merge(mine, text) is None


def test_a_sync_without_its_own_certificates_keeps_ours() -> None:
    mine = make_profile()
    header = json.loads("".join(line[1:] for line in render(mine).split("\n") if line.startswith("#")))
    header = {name: value for name, value in header.items() if name not in ("sync_token", "sync_secret")}
    header |= {"revision": 9}
    text = "\n".join("#" + line for line in json.dumps(header, indent=4).split("\n")) + "\nremote d.example 1 udp\n"
    merged = merge(mine, text)
    assert merged is not None
    assert (merged.ca, merged.cert, merged.key) == (mine.ca, mine.cert, mine.key)
    assert merged.remotes == (ApiHost("d.example"),)
    assert merged.device_id == DEVICE_ID
    assert parse(render(merged)) == merged
