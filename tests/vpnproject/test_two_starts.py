"""Two control nodes that are started at the same moment on an empty database set it up once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.lab import PROJECT, PostgresPair, ended_afterwards
from tests.processes import environment


def starting(url: str, redis_url: str, var: Path, address: str) -> subprocess.Popen[bytes]:
    (var / "static").mkdir(parents=True)
    env = {**os.environ, **environment(), "DATABASE_URL": url, "REDIS_URL": redis_url, "VPN_VAR": str(var)}
    command = [sys.executable, "manage.py", "bootstrap", "--public-address", address]
    return subprocess.Popen(command, cwd=PROJECT, env=env, stdout=subprocess.PIPE)


def said(process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    """Its first two lines."""
    assert process.stdout is not None
    return [json.loads(process.stdout.readline() or b'{"event": "nothing"}') for _ in range(2)]


def test_each_finds_or_makes_the_same(transactional_db: None, redis_url: str, tmp_path: Path) -> None:
    with PostgresPair() as pair:
        first = starting(pair.url, redis_url, tmp_path / "a", "192.0.2.1")
        with ended_afterwards(first):
            second = starting(pair.url, redis_url, tmp_path / "b", "192.0.2.2")
            with ended_afterwards(second):
                lines = [said(first), said(second)]
        assert [[line["event"] for line in each] for each in lines] == [["database", "rows"]] * 2, lines
        # The password of the one administrator is told once.
        assert sorted(bool(each[1]["password"]) for each in lines) == [False, True]
        with pair.primary.connect() as connection:
            for table, count in (
                ("auth_user", 1),
                ("users_organization", 1),
                ("servers_server", 1),
                ("servers_host", 2),
            ):
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (count,), table  # noqa: S608
