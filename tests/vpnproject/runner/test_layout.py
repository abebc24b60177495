"""A var in which all was root's is handed over, once and whole, and nobody's file is given away by a link."""

from __future__ import annotations

import os
import pwd
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from vpnproject.runner import layout, privileges
from vpnproject.runner.console import RunError
from vpnproject.runner.privileges import CONTROL, REDIS

ROWS = 500


@pytest.fixture(scope="module", autouse=True)
def users() -> None:
    privileges.make_users()


@pytest.fixture
def var(tmp_path: Path) -> Iterator[Path]:
    """As an older release left it, with a database whose latest rows are in its log alone."""
    before = os.umask(0o077)
    var = tmp_path / "var"
    for name in ("log", "redis/appendonlydir", "host/keys", "beat", "static/admin"):
        (var / name).mkdir(parents=True)
    for name in ("secret_key", "field_keys", "settings.env", "instance", "certificate.pem", "certificate_key.pem"):
        (var / name).write_text(name)
    (var / "nginx.conf").write_text("x")
    (var / "redis" / "appendonlydir" / "appendonly.aof.1.incr.aof").write_text("x")
    (var / "static" / "admin" / "base.css").write_text("x")
    (var / "host" / "keys" / "wgs1").write_text("x")
    kept = leave_rows(var / "db.sqlite3")
    yield var
    kept.close()
    os.umask(before)


def leave_rows(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("CREATE TABLE row (number)")
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO row VALUES (?)", [(number,) for number in range(ROWS)])
    connection.execute("COMMIT")
    return connection  # whose end would put the log into the database


def rows(var: Path) -> int:
    connection = sqlite3.connect(f"file:{var / layout.DATABASE}?mode=rw", uri=True)
    try:
        return int(connection.execute("SELECT count(*) FROM row").fetchone()[0])
    finally:
        connection.close()


def whose(path: Path) -> tuple[str, int]:
    found = path.lstat()
    return pwd.getpwuid(found.st_uid).pw_name, stat.S_IMODE(found.st_mode)


def all_of(var: Path) -> dict[str, tuple[str, int]]:
    return {str(path.relative_to(var)): whose(path) for path in [var, *var.rglob("*")]}


def test_everything_is_given_to_whom_it_belongs(var: Path) -> None:
    layout.settle(var)
    assert all_of(var) == {
        ".": ("root", 0o710),
        "log": ("root", 0o700),
        "host": ("root", 0o700),
        "client": ("root", 0o750),
        "host/keys": ("root", 0o700),
        "host/keys/wgs1": ("root", 0o600),
        "instance": ("root", 0o600),
        "certificate.pem": ("root", 0o644),
        "certificate_key.pem": ("vpn-front", 0o600),
        "secret_key": (CONTROL, 0o600),
        "field_keys": (CONTROL, 0o600),
        "settings.env": (CONTROL, 0o600),
        "database": (CONTROL, 0o700),
        "database/db.sqlite3": (CONTROL, 0o600),
        "database/db.sqlite3-wal": (CONTROL, 0o600),
        "database/db.sqlite3-shm": (CONTROL, 0o600),
        "static": (CONTROL, 0o700),
        "static/admin": (CONTROL, 0o700),
        "static/admin/base.css": (CONTROL, 0o600),
        "redis": (REDIS, 0o710),
        "redis/appendonlydir": (REDIS, 0o700),
        "redis/appendonlydir/appendonly.aof.1.incr.aof": (REDIS, 0o600),
    }
    assert (var.stat().st_gid, (var / "redis").stat().st_gid) == (privileges.gid(REDIS),) * 2
    assert rows(var) == ROWS


def test_a_second_time_nothing_changes(var: Path) -> None:
    layout.settle(var)
    before = all_of(var), {path: path.lstat().st_ino for path in var.rglob("*")}
    layout.settle(var)
    assert (all_of(var), {path: path.lstat().st_ino for path in var.rglob("*")}) == before


def test_what_root_made_by_hand_is_given_too(var: Path) -> None:
    layout.settle(var)
    (var / "database" / "copy").write_text("x")
    (var / "static" / "new").mkdir()
    layout.settle(var)
    assert whose(var / "database" / "copy") == (CONTROL, 0o600)
    assert whose(var / "static" / "new") == (CONTROL, 0o700)


@pytest.mark.parametrize("call", ["mkdir", "rename", "chown", "chmod", "fchown", "fchmod", "fsync"])
def test_a_crash_anywhere_is_finished_by_the_next_start(
    var: Path, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each single change of this kind, in turn, until there is none left."""
    real = getattr(os, call)
    done = False
    for allowed in range(200):
        left = [allowed]

        def failing(*arguments: object, left: list[int] = left, **options: object) -> object:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(*arguments, **options)

        monkeypatch.setattr(os, call, failing)
        try:
            layout.settle(var)
            done = True
        except KeyboardInterrupt:
            assert (var / "db.sqlite3").exists() or not (var / "database").exists() or rows(var) == ROWS
        monkeypatch.setattr(os, call, real)
        if done:
            break
    assert done
    layout.settle(var)
    assert rows(var) == ROWS
    assert not (var / "db.sqlite3").exists()
    assert whose(var / "database" / "db.sqlite3-wal") == (CONTROL, 0o600)


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A file of root's that nobody may get."""
    path = tmp_path / "precious"
    path.write_text("x")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("where", ["database", "static", "redis", "redis/appendonlydir"])
@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_planted_link_gives_nothing_away(var: Path, precious: Path, where: str, link: object) -> None:
    layout.settle(var)
    assert callable(link)
    link(precious, var / where / "planted")
    with pytest.raises(RunError, match="planted"):
        layout.settle(var)
    assert whose(precious) == ("root", 0o600)


def test_a_planted_link_to_a_directory_gives_nothing_away(var: Path, tmp_path: Path) -> None:
    layout.settle(var)
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    (var / "redis" / "planted").symlink_to(outside)
    with pytest.raises(RunError, match="planted"):
        layout.settle(var)
    assert whose(outside) == ("root", 0o700)


@pytest.mark.parametrize("name", ["db.sqlite3", "db.sqlite3-wal"])
def test_an_old_database_that_is_a_link_is_left_where_it_is(var: Path, precious: Path, name: str) -> None:
    (var / name).unlink()
    (var / name).symlink_to(precious)
    with pytest.raises(RunError, match=name):
        layout.settle(var)
    assert (var / name).is_symlink()
    assert whose(precious) == ("root", 0o600)


def test_an_administrators_link_in_the_place_of_the_key_stays_theirs(var: Path, precious: Path) -> None:
    (var / "certificate_key.pem").unlink()
    (var / "certificate_key.pem").symlink_to(precious)
    layout.settle(var)
    assert whose(precious) == ("root", 0o600)


def test_a_secret_with_a_second_name_stops_the_start(var: Path, tmp_path: Path) -> None:
    os.link(var / "secret_key", tmp_path / "second")
    with pytest.raises(RunError, match="secret_key is one file with another"):
        layout.settle(var)


def test_a_file_of_somebody_elses_is_not_taken(var: Path) -> None:
    os.chown(var / "settings.env", 65534, 65534)
    with pytest.raises(RunError, match="belongs to user 65534"):
        layout.settle(var)


def test_a_pipe_in_a_place_of_a_file_does_not_hold_up_the_start(var: Path) -> None:
    layout.settle(var)
    os.mkfifo(var / "database" / "planted")
    with pytest.raises(RunError, match="planted"):
        layout.settle(var)


def test_two_databases_are_a_persons_matter(var: Path) -> None:
    (var / "database").mkdir()
    (var / "database" / "db.sqlite3").write_text("another")
    with pytest.raises(RunError, match="two databases"):
        layout.settle(var)
    (var / "db.sqlite3").unlink()
    layout.settle(var)
    assert (var / layout.DATABASE).read_text() == "another"


def test_a_database_that_root_opens_stays_the_control_sides(var: Path) -> None:
    """As ``manage.py`` by hand: SQLite gives what it makes beside a database to the database's owner."""
    layout.settle(var)
    path = var / "database" / "other.sqlite3"
    leave_rows(path).close()
    layout.settle(var)
    by_root = sqlite3.connect(path, isolation_level=None)
    by_root.execute("CREATE TABLE another (number)")
    try:
        assert {each.name: whose(each)[0] for each in path.parent.glob("other*")} == dict.fromkeys(
            ("other.sqlite3", "other.sqlite3-wal", "other.sqlite3-shm"), CONTROL
        )
    finally:
        by_root.close()
