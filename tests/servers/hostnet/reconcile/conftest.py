"""The host that the tests of this directory apply to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.hostnet.reconcile.applied import Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "keys")
