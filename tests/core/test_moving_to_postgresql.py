"""What the documentation says of moving an installation from SQLite to PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tests.conftest import Clock
from tests.connection_rows import many
from tests.factories import found
from tests.lab import HANGING, PROJECT, PostgresPair
from tests.processes import environment
from users.models import Group, VpnUser

LEFT_OUT = (
    "--natural-foreign",
    *(f"--exclude={name}" for name in ("contenttypes", "auth.permission", "core.adminsession")),
)


def manage(url: str, *arguments: str) -> str:
    env = {**os.environ, **environment(), **({"DATABASE_URL": url} if url else {})}
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env=env,
        capture_output=True,
        text=True,
        timeout=HANGING,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(dumped: str) -> list[dict[str, Any]]:
    return sorted(json.loads(dumped), key=lambda row: (row["model"], str(row.get("pk"))))


def test_everything_gets_there_as_it_was(transactional_db: None, fixed_clock: Clock, tmp_path: Path) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("it is about moving away from SQLite")
    company = found()
    many(company, 3)
    group = Group.objects.create(name="Staff")
    VpnUser.objects.order_by("pk")[0].groups.add(group)
    path = tmp_path / "all.json"
    dumped = manage("", "dumpdata", *LEFT_OUT)
    path.write_text(dumped)
    before = rows(dumped)
    with PostgresPair() as pair:
        manage(pair.url, "migrate", "--verbosity", "0")
        manage(pair.url, "loaddata", str(path))
        assert rows(manage(pair.url, "dumpdata", *LEFT_OUT)) == before
        # New rows get numbers of their own.
        new = "from users.models import Organization as O; O.objects.create(name='Other'); print(O.objects.count())"
        assert manage(pair.url, "shell", "--no-imports", "-c", new).strip() == "2"
    assert {row["model"] for row in before} >= {"users.vpnuser", "servers.server", "wgpeers.connection"}
