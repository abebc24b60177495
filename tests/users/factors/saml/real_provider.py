"""A SAML provider of others (npm's samlp) as a process of its own, in ``provider.mjs``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from core import http
from tests.lab import HANGING

from .liar import a_key, certificate_of, pem_of

PROGRAM = Path(__file__).parent / "provider.mjs"
PROJECT = Path(__file__).resolve().parents[4]


def command(acs: str, *, port: int = 0, **more: str | None) -> list[str]:
    """``more``: what else the program is told; see there."""
    if not (PROJECT / "node_modules" / "samlp").exists():
        pytest.fail("The provider is not installed; any bin/test does that, bin/test tests/test_architecture.py say.")
    certificate = certificate_of(a_key()).public_bytes(Encoding.PEM).decode()
    said = {"key": pem_of(a_key()), "certificate": certificate, "acs": acs, "port": port, **more}
    return ["node", str(PROGRAM), json.dumps(said)]


@contextmanager
def provider(acs: str, signs: str = "assertion", ours: str | None = None) -> Iterator[str]:
    """Its address: of another site than ``localhost`` is, so that browsers keep our cookies from what it posts."""
    process = subprocess.Popen(
        command(acs, signs=signs, ours=ours), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout
        yield f"http://127.0.0.1:{int(next(process.stdout))}"
    finally:
        process.kill()
        process.communicate(timeout=HANGING)


def metadata_at(address: str) -> str:
    return http.request("GET", f"{address}/metadata", named=frozenset({"127.0.0.1"})).body.decode()
