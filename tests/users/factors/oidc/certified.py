"""A certified OpenID provider (npm's oidc-provider) as a process of its own; in ``provider/`` is who is there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from core import http
from tests.lab import HANGING

CLIENT = "vpn"
SECRET = "a secret of forty characters, or nearly so"
PROVIDER = Path(__file__).parent / "provider" / "provider.mjs"
PROJECT = Path(__file__).resolve().parents[4]


@dataclass
class Certified:
    """``redirect``: where it may send browsers back to; ``port`` 0: any, kept when it starts again."""

    redirect: str
    port: int = 0
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def start(self) -> None:
        """With new keys, and without anything that it knew before."""
        self.process = subprocess.Popen(
            command(self.redirect, self.port), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout
        self.port = int(next(self.process.stdout))

    def end(self) -> None:
        if self.process:
            self.process.kill()
            self.process.communicate(timeout=HANGING)

    def tell(self, what: str, name: str) -> None:
        """``disable`` an account, or take it out of all ``groups``."""
        request = http.request("GET", f"{self.url}/test/{what}?{name}", named=frozenset({"localhost"}))
        assert request.status == 200


def command(redirect: str, port: int) -> list[str]:
    if not (PROJECT / "node_modules" / "oidc-provider").exists():
        pytest.fail("The provider is not installed; any bin/test does that, bin/test tests/test_architecture.py say.")
    return ["node", str(PROVIDER), json.dumps({"secret": SECRET, "redirect": redirect, "port": port})]


@contextmanager
def certified(redirect: str) -> Iterator[Certified]:
    provider = Certified(redirect)
    provider.start()
    try:
        yield provider
    finally:
        provider.end()
