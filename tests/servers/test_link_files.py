"""Link files: what is read is what was written, and whatever else is no link file, in words that show no key."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import certificates
from servers import link_files, link_keys
from servers.link_files import LARGEST, LinkFile, LinkFileError, read

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEYS, OTHERS = link_keys.make(NOW), link_keys.make(NOW)
FILE = LinkFile(
    "a1b2",
    False,
    ("198.51.100.1", "vpn.example.com"),
    1194,
    0,
    ("10.9.0.0/24", "fd09::/64"),
    ("10.19.0.0/24",),
    KEYS.client,
)
DATA: dict[str, Any] = json.loads(FILE.to_text())


def refused(data: Any, now: datetime = NOW) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    with pytest.raises(LinkFileError) as error:
        read(raw, now)
    words = str(error.value)
    for secret in (*DATA["keys"]["key"].splitlines()[1:-1], *DATA["keys"]["tls_crypt"].splitlines()[1:-1]):
        assert secret not in words
    return words


@pytest.mark.parametrize(
    "file", [FILE, dataclasses.replace(FILE, listens=True, addresses=(), keys=KEYS.server, mtu=1300)]
)
def test_what_is_read_is_what_was_written(file: LinkFile) -> None:
    assert read(file.to_text().encode(), NOW) == file
    assert KEYS.client.key not in repr(file)
    assert "Static key" not in repr(file)


def test_another_version_and_what_is_no_link_file_are_told_apart() -> None:
    assert "of another version ('2') than the one that is understood here (1)" in refused({**DATA, "version": 2})
    whole = FILE.to_text().encode()
    for raw in (b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 60_000, b'{"format": 1}', whole[: len(whole) // 2]):
        assert "This is no link file" in refused(raw)
    assert "more than 65,536 bytes" in refused(whole + b" " * LARGEST)


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda data: data.pop(name)


def having(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda data: data.update(fields)


def with_keys(**fields: str) -> Callable[[dict[str, Any]], Any]:
    return lambda data: data["keys"].update(fields)


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no port": (without("port"), "port is missing"),
    "no keys": (without("keys"), "keys is missing"),
    "a key less": (lambda data: data["keys"].pop("key"), "key is missing"),
    "a port as text": (having(port="1194"), "port is of another kind"),
    "yes for a port": (having(port=True), "port is of another kind"),
    "a port below": (having(port=1023), "the port of a link"),
    "an MTU": (having(mtu=100), "the MTU of a link"),
    "a file's name as an id": (having(link="../x"), "the id of the link"),
    "no networks": (having(theirs=[]), "theirs are not between 1 and 100 networks"),
    "too many networks": (having(ours=[f"10.0.{n}.0/24" for n in range(101)]), "ours are not between 1 and 100"),
    "no network": (having(theirs=["office"]), "'office' is not a network"),
    "host bits": (having(theirs=["10.9.0.1/24"]), "10.9.0.1/24 has host bits set"),
    "no text for a network": (having(theirs=[1]), "theirs are not between 1 and 100 networks"),
    "both listen": (having(addresses=[]), "one side listens, and the other knows its address"),
    "neither does": (having(listens=True), "one side listens, and the other knows its address"),
    "a line more": (having(addresses=["a\nscript-security 2"]), "the addresses of a link"),
    "one address as text": (having(addresses="192.0.2.1"), "addresses is of another kind"),
    "an address that is none": (having(addresses=["192.0.2.1", 1]), "addresses are of another kind"),
    "too many addresses": (having(addresses=["192.0.2.1"] * 17), "the addresses of a link"),
    "another line in a key": (with_keys(tls_crypt="x\nup /bin/sh"), "a certificate or a key of a link"),
    "no key at all": (with_keys(key=KEYS.client.certificate), "its key cannot be read"),
    "another's key": (with_keys(key=OTHERS.client.key), "its key is not that of its certificate"),
    "another's authority": (with_keys(authority=OTHERS.client.authority), "its certificate is not of its authority"),
    "another name": (with_keys(name="end-of-somebody"), "its certificate is for somebody else"),
    "the other side's": (having(keys=link_keys.plain(KEYS.server)), "its certificate is for somebody else"),
    "half a certificate": (with_keys(certificate=KEYS.client.certificate[:300]), "its certificate cannot be read"),
    "half a static key": (with_keys(tls_crypt=KEYS.client.tls_crypt[:200] + "\n"), "its tls-crypt key is none"),
}


@pytest.mark.parametrize(("change", "words"), BROKEN.values(), ids=BROKEN)
def test_what_could_not_work_is_refused_in_words(change: Callable[[dict[str, Any]], Any], words: str) -> None:
    data = json.loads(FILE.to_text())
    change(data)
    assert f"The link file is broken: {words}" in refused(data) or words in refused(data)


def test_one_that_is_over_or_has_not_begun_is_refused() -> None:
    for now in (NOW + certificates.VALID + timedelta(days=1), NOW - timedelta(days=2)):
        assert "its certificate is not valid now" in refused(DATA, now)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=5,
)


@given(name=st.sampled_from(sorted(DATA)), value=ANYTHING)
def test_whatever_is_in_one_of_its_fields_it_is_read_or_refused(name: str, value: Any) -> None:
    data = {**DATA, name: value}
    try:
        found = read(json.dumps(data).encode(), NOW)
    except LinkFileError:
        return
    assert found.keys == FILE.keys
    assert link_files.read(found.to_text().encode(), NOW) == found
