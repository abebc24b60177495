"""What certificates of others are verified with: read once, and again when the system's change."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from core import trusted
from core.http import NoAnswer, request
from tests.counterpart import Said, a_certificate, serving

HERE = frozenset({"localhost"})


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's, for this test."""
    file, empty = tmp_path / "bundle.pem", tmp_path / "none"
    empty.mkdir()
    file.write_text(a_certificate(tmp_path, "another.example")[1])
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.setenv("SSL_CERT_DIR", str(empty))
    return file


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was read, as often as it was."""
    found: list[str] = []
    real = ssl.create_default_context

    def counted(*, cadata: str | None = None) -> ssl.SSLContext:
        found.append(cadata or "system")
        return real(cadata=cadata)

    monkeypatch.setattr(ssl, "create_default_context", counted)
    trusted._given.cache_clear()
    return found


def put(file: Path, text: str) -> None:
    """As systems do it: another file in the place of the one that was."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def write(file: Path, text: str) -> None:
    """In place, and later than before by the file system's clock."""
    before = file.stat().st_mtime_ns
    file.write_text(text)
    os.utime(file, ns=(before + 1, before + 1))


def test_the_systems_are_read_once(bundle: Path, readings: list[str]) -> None:
    first = trusted.context()
    assert all(trusted.context() is first for _ in range(20))
    assert len(readings) == 1


@pytest.mark.parametrize("change", [put, write])
def test_a_changed_bundle_counts_from_the_next_request_on(
    bundle: Path, tmp_path: Path, change: Callable[[Path, str], None]
) -> None:
    certificate = a_certificate(tmp_path)
    other = bundle.read_text()
    with serving(lambda asked: Said(204), certificate) as server:

        def ask() -> int:
            return request("GET", server.url, named=HERE).status

        with pytest.raises(NoAnswer, match="cannot be trusted"):
            ask()
        change(bundle, other + certificate[1])
        assert ask() == 204
        change(bundle, other)
        with pytest.raises(NoAnswer, match="cannot be trusted"):
            ask()


def test_another_bundle_is_another_one(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trusted.context()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
    assert trusted.context() is not first


def test_each_authority_that_was_given_is_read_once_and_stands_for_itself(readings: list[str], tmp_path: Path) -> None:
    one, other = a_certificate(tmp_path, "one.example")[1], a_certificate(tmp_path, "other.example")[1]
    assert trusted.context(one) is trusted.context(one) is not trusted.context(other)
    assert len(readings) == 2
    with pytest.raises((ssl.SSLError, ValueError)):
        trusted.context("nonsense")
    assert trusted.context(one).verify_mode == ssl.CERT_REQUIRED
    assert trusted.context(one).check_hostname
