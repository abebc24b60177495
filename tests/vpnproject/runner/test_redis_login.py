"""The passwords of our own Redis are made once, and only hashes of them are where Redis reads them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vpnproject.runner import files, redis_login


def test_passwords_are_made_once_and_redis_knows_a_hash(tmp_path: Path) -> None:
    files.make_directories(tmp_path)
    redis_login.prepare(tmp_path)
    control, host = (redis_login.read(tmp_path / name) for name in (redis_login.PASSWORD, redis_login.HOST_PASSWORD))
    assert len(control) >= 40
    assert control != host
    users = (tmp_path / redis_login.USERS).read_text()
    assert users == f"user default on #{hashlib.sha256(control.encode()).hexdigest()} ~* &* +@all\n"
    assert redis_login.host_hash(tmp_path) == hashlib.sha256(host.encode()).hexdigest()
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("redis_password", "host/redis_password")}
    assert set(modes.values()) == {0o600}
    # What Redis has written there since is its own matter.
    (tmp_path / redis_login.USERS).write_text(users + "user host.x on\n")
    redis_login.prepare(tmp_path)
    assert (tmp_path / redis_login.USERS).read_text() == users + "user host.x on\n"
    assert redis_login.read(tmp_path / redis_login.PASSWORD) == control
    assert redis_login.url(tmp_path) == f"unix://default:{control}@{tmp_path}/redis/redis.sock?db=0"


def test_password_that_was_lost_is_made_anew_and_told_to_redis(tmp_path: Path) -> None:
    files.make_directories(tmp_path)
    redis_login.prepare(tmp_path)
    before = (tmp_path / redis_login.USERS).read_text()
    (tmp_path / redis_login.PASSWORD).unlink()
    redis_login.prepare(tmp_path)
    assert (tmp_path / redis_login.USERS).read_text() != before


def test_without_a_password_there_is_none(tmp_path: Path) -> None:
    assert redis_login.read(tmp_path / "redis_password") == ""
