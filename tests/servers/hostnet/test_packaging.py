"""What the host's side says of itself as a package of its own."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HOSTNET = ROOT / "servers" / "hostnet"
PACKAGE = tomllib.loads((HOSTNET / "pyproject.toml").read_text())


def test_it_needs_what_the_whole_needs_in_the_same_versions_and_nothing_of_django() -> None:
    pinned = (ROOT / "requirements.txt").read_text().splitlines()
    assert PACKAGE["tool"]["setuptools"]["dynamic"] == {"dependencies": {"file": ["requirements.txt"]}}
    lines = (HOSTNET / "requirements.txt").read_text().splitlines()
    needed = [line for line in lines if not line.startswith("#")]
    assert [line for line in needed if line not in pinned] == []
    assert {line.partition("==")[0] for line in needed} == {"celery", "packaging", "pynacl", "pyroute2", "redis"}


def test_it_is_of_the_same_version_and_for_the_same_python_as_the_whole() -> None:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {name: PACKAGE["project"][name] for name in ("version", "requires-python")} == {
        name: whole[name] for name in ("version", "requires-python")
    }


def test_no_package_is_forgotten() -> None:
    packages = {".".join(file.parent.relative_to(ROOT).parts) for file in HOSTNET.rglob("*.py")}
    assert {*PACKAGE["tool"]["setuptools"]["packages"]} == packages
