"""Secrets go from one control node to the next, and to nobody else."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from nacl.public import PrivateKey

from tests.lab import PROJECT
from vpnproject.runner import files, handover
from vpnproject.runner.__main__ import main
from vpnproject.runner.console import RunError

SHARED = {
    "DATABASE_URL": "postgres://vpn:geheim@10.0.0.1,10.0.0.2/vpn",
    "REDIS_URL": "sentinel://:topse@10.0.0.1,10.0.0.2,10.0.0.3/vpn",
    "API_URLS": "https://a.example.com,https://b.example.com",
}


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """``var`` of a node that has run."""
    var = tmp_path / "first"
    files.make_directories(var)
    files.make_secrets(var)
    files.set_settings(var / "settings.env", SHARED)
    return var


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return tmp_path / "second"


def handed(first: Path, second: Path) -> str:
    return handover.export_secrets(first, PROJECT, handover.public_key(second))


def contents(var: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(var.iterdir()) if path.is_file()}


def test_a_second_node_gets_what_both_must_have(first: Path, second: Path) -> None:
    names = handover.import_secrets(second, handed(first, second), handover.public_key(first))
    assert names == sorted(SHARED)
    for name in handover.SECRETS:
        assert (second / name).read_text() == (first / name).read_text()
        ours, theirs = (second / name).stat(), (first / name).stat()
        assert (ours.st_mode, ours.st_uid) == (theirs.st_mode, theirs.st_uid)
    assert files.read_settings(second / "settings.env") == SHARED
    files.make_secrets(second)  # as its start does: they stay
    assert (second / "field_keys").read_text() == (first / "field_keys").read_text()


def test_it_may_be_taken_twice(first: Path, second: Path) -> None:
    text = handed(first, second)
    handover.import_secrets(second, text, handover.public_key(first))
    before = contents(second)
    handover.import_secrets(second, text, handover.public_key(first))
    assert contents(second) == before


def test_what_names_a_file_of_the_machine_stays_there_and_its_content_goes(
    first: Path, second: Path, tmp_path: Path
) -> None:
    key = Fernet.generate_key().decode()
    (tmp_path / "elsewhere").write_text(f"{key}\n")
    files.set_settings(first / "settings.env", {"FIELD_KEYS_FILE": str(tmp_path / "elsewhere")})
    names = handover.import_secrets(second, handed(first, second), handover.public_key(first))
    assert "FIELD_KEYS_FILE" not in names
    assert (second / "field_keys").read_text().strip() == key


def test_the_box_shows_nothing_and_opens_for_nobody_else(first: Path, second: Path, tmp_path: Path) -> None:
    text = handed(first, second)
    for secret in ((first / "secret_key").read_text().strip(), "geheim", "topse"):
        assert secret.encode() not in base64.b64decode(text)
    third = tmp_path / "third"
    handover.node_key(third)
    before = contents(third)
    with pytest.raises(RunError, match="cannot be opened"):
        handover.import_secrets(third, text, handover.public_key(first))
    assert contents(third) == before


def test_a_box_of_somebody_elses_making_is_refused(first: Path, second: Path, tmp_path: Path) -> None:
    """Who can swap the file on its way could else have the node use a database of theirs."""
    handover.node_key(second)
    before = contents(second)
    stranger = tmp_path / "stranger"
    files.make_directories(stranger)
    files.make_secrets(stranger)
    files.set_settings(stranger / "settings.env", SHARED)
    with pytest.raises(RunError, match="cannot be opened"):
        handover.import_secrets(second, handed(stranger, second), handover.public_key(first))
    assert contents(second) == before


@pytest.mark.parametrize("text", ["", "x", "not base64 at all, and long enough to be one" * 3, "AAAA" * 40])
def test_what_is_no_box_is_refused_and_changes_nothing(first: Path, second: Path, text: str) -> None:
    handover.node_key(second)
    before = contents(second)
    with pytest.raises(RunError):
        handover.import_secrets(second, text, handover.public_key(first))
    assert contents(second) == before


@pytest.mark.parametrize("key", ["", "x", "A" * 44, base64.b64encode(b"short").decode(), "é" * 44])
def test_what_is_no_key_is_refused(first: Path, key: str) -> None:
    with pytest.raises(RunError, match="not the key of a node"):
        handover.export_secrets(first, PROJECT, key)


def test_its_own_key_is_not_another_nodes(first: Path) -> None:
    with pytest.raises(RunError, match="own key"):
        handover.export_secrets(first, PROJECT, handover.public_key(first))


@pytest.mark.parametrize(
    ("given", "words"),
    [({"DATABASE_URL": "sqlite:////x"}, "SQLite"), ({"REDIS_URL": "unix:///x?db=0"}, "Redis is reached by a socket")],
)
def test_a_node_whose_stores_nobody_shares_hands_nothing_over(
    first: Path, second: Path, given: dict[str, str], words: str
) -> None:
    files.set_settings(first / "settings.env", given)
    with pytest.raises(RunError, match=words):
        handed(first, second)


@pytest.mark.parametrize("what", ["database", "secret_key"])
def test_a_node_that_has_run_by_itself_keeps_what_it_has(first: Path, second: Path, what: str) -> None:
    files.make_directories(second)
    if what == "database":
        (second / "database" / "db.sqlite3").write_bytes(b"x")
    else:
        (second / "secret_key").write_text("mine")
    text, before = handed(first, second), contents(second)
    with pytest.raises(RunError, match="empty --var"):
        handover.import_secrets(second, text, handover.public_key(first))
    assert contents(second) == before


@pytest.fixture
def umask() -> Iterator[None]:
    """What ``main`` sets is this process's, and other tests are in it."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_from_the_command_line(first: Path, second: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(var: Path, *arguments: str) -> tuple[int, str]:
        code = main(["--var", str(var), *arguments])
        return code, capsys.readouterr().out.strip()

    (_, key_one), (_, key_two) = said(first, "--node-key"), said(second, "--node-key")
    assert said(first, "--node-key") == (0, key_one)
    code, box = said(first, "--export-secrets", key_two)
    assert code == 0
    (tmp_path / "box").write_text(f"{box}\n")
    assert said(second, "--import-secrets", str(tmp_path / "box"))[0] == 1
    assert said(second, "--import-secrets", str(tmp_path / "box"), "--from", key_two)[0] == 1
    code, words = said(second, "--import-secrets", str(tmp_path / "box"), "--from", key_one)
    assert (code, "3 settings" in words) == (0, True)
    assert not any(secret in words for secret in ("geheim", "topse"))
    assert said(second, "--import-secrets", str(tmp_path / "nothing"), "--from", key_one)[0] == 1


def test_the_key_is_this_nodes_alone(second: Path) -> None:
    key = handover.node_key(second)
    assert (second / handover.KEY).stat().st_mode & 0o077 == 0
    assert bytes(handover.node_key(second)) == bytes(key) != bytes(PrivateKey.generate())
