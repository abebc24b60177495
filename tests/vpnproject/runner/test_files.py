"""bin/run's files: private, whole at every moment, and never a secret replaced."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from vpnproject.runner import files
from vpnproject.runner.console import RunError
from vpnproject.runner.privileges import make_users


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_written_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files.write_private(tmp_path / "x", b"1")
    finally:
        os.umask(before)
    assert mode(tmp_path / "x") == 0o600


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_private(tmp_path / "x", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_private(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_secrets_are_made_once(tmp_path: Path) -> None:
    make_users()
    files.make_secrets(tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(made) == {"secret_key", "field_keys"}
    assert all(mode(path) == 0o600 for path in tmp_path.iterdir())
    Fernet(made["field_keys"].strip())
    files.make_secrets(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == made


def test_an_installation_keeps_its_name(tmp_path: Path) -> None:
    name = files.make_instance(tmp_path / "var")
    assert len(name) == 32
    assert files.make_instance(tmp_path / "var") == name
    assert mode(tmp_path / "var") == 0o700


def test_a_lost_field_key_beside_a_database_is_not_replaced(tmp_path: Path) -> None:
    make_users()
    (tmp_path / "database").mkdir()
    (tmp_path / "database" / "db.sqlite3").touch()
    with pytest.raises(RunError, match="restore it from a backup"):
        files.make_secrets(tmp_path)
    assert not (tmp_path / "field_keys").exists()


def test_directories_are_closed_to_others_and_it_is_said(tmp_path: Path) -> None:
    var = tmp_path / "var"
    assert files.make_directories(var) == []
    for name in ("secret_key", "choices.json"):
        (var / name).write_text("x")
        (var / name).chmod(0o644)
    var.chmod(0o755)
    assert set(files.make_directories(var)) == {str(var), str(var / "secret_key"), str(var / "choices.json")}
    assert mode(var) == 0o710
    assert mode(var / "secret_key") == mode(var / "choices.json") == 0o600
    assert files.open_to_others(var) == []


def test_settings_keep_what_a_person_wrote(tmp_path: Path) -> None:
    path = tmp_path / "settings.env"
    path.write_text("# mine\nCLOCK_WINDOW=300\nAPI_URLS=https://old\nDATABASE_URL='postgres:///x'\n")
    assert files.set_settings(path, {"API_URLS": "https://new", "DEBUG": "off"})
    assert path.read_text() == (
        "# mine\nCLOCK_WINDOW=300\nAPI_URLS=https://new\nDATABASE_URL='postgres:///x'\nDEBUG=off\n"
    )
    assert not files.set_settings(path, {"API_URLS": "https://new"})
    assert files.read_settings(path)["DATABASE_URL"] == "postgres:///x"


def test_a_setting_cannot_smuggle_in_another(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="one line"):
        files.set_settings(tmp_path / "settings.env", {"DATABASE_URL": "x\nDEBUG=on"})


@pytest.mark.parametrize("text", ["", "[1]", "{", "\x00"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "choices.json").write_text(text)
    with pytest.raises(RunError, match=r"choices\.json is damaged"):
        files.read_json(tmp_path / "choices.json")


def test_json_comes_back(tmp_path: Path) -> None:
    assert files.read_json(tmp_path / "none.json") == {}
    files.write_json(tmp_path / "some.json", {"port": 443})
    assert files.read_json(tmp_path / "some.json") == {"port": 443}


@pytest.mark.parametrize("path", ["/srv/my vpn", "/srv/50%", "/srv/a;b", '/srv/"q"', "/srv/#1"])
def test_paths_that_supervisor_would_misread_are_refused(path: str) -> None:
    with pytest.raises(RunError, match="special character"):
        files.check_path(Path(path))


def test_paths_too_long_for_a_socket_are_refused() -> None:
    files.check_path(Path("/" + "a" * (files.LONGEST_VAR - 1)))
    with pytest.raises(RunError, match="too long"):
        files.check_path(Path("/" + "a" * files.LONGEST_VAR))
