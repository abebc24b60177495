"""The host's side installed alone: a wheel of its own in a fresh environment, without Django, and a worker from it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.conftest import World, world_of
from tests.lab import PROJECT, PYTHON

pytestmark = pytest.mark.host

SOURCES = PROJECT / "servers" / "hostnet"
# Several libraries come from PyPI, or out of pip's cache.
INSTALLING = 600


def pip(python: Path, *arguments: str | Path) -> str:
    command = [python, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALLING, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("installed")


@pytest.fixture(scope="module")
def wheel(directory: Path) -> Path:
    """Made of a copy, since making it leaves files beside the sources."""
    copy = shutil.copytree(SOURCES, directory / "hostnet", ignore=shutil.ignore_patterns("__pycache__"))
    pip(PYTHON, "wheel", "--quiet", "--no-deps", "--wheel-dir", directory, copy)
    (made,) = directory.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def python(directory: Path, wheel: Path) -> Path:
    """A fresh environment's Python, with the wheel and what that asks for."""
    venv.create(directory / "venv", with_pip=True)
    found = directory / "venv" / "bin" / "python"
    pip(found, "install", "--quiet", wheel)
    return found


@pytest.fixture(scope="module")
def world(python: Path, directory: Path) -> Iterator[World]:
    """As elsewhere, with a worker of the installed package, started where none of the project's files are."""
    elsewhere = directory / "elsewhere"
    elsewhere.mkdir()
    with world_of((python, "-m", "servers.hostnet"), elsewhere) as world:
        yield world


def test_wheel_holds_every_file_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {f"servers/hostnet/{file.relative_to(SOURCES)}" for file in SOURCES.rglob("*.py")}


def test_nothing_of_django_comes_with_it(python: Path) -> None:
    installed = {each["name"].lower() for each in json.loads(pip(python, "list", "--format=json"))}
    assert {"hostnet", "celery", "redis", "pyroute2", "pynacl"} <= installed
    assert [name for name in installed if re.search("django|rest|psycopg|granian", name)] == []
    assert "No broken requirements" in pip(python, "check")


def test_worker_of_it_sets_up_its_host(world: World) -> None:
    assert set(world.keys) == {"one", "two"}
    assert world.host.run("wg", "show", "wgs1", "public-key").stdout.strip() == world.keys["one"]
    assert "wgs1_routes4" in world.host.run("nft", "list", "table", "inet", "wgvpn").stdout
    peer = world.make_peer("one", "alice", "10.9.0.5/32")
    assert world.control.add("one", peer) == "ok"
    # It runs from there: the project is neither its directory nor on its path.
    assert world.worker is not None
    process = Path(f"/proc/{world.worker.pid}")
    assert str(PROJECT).encode() not in (process / "cmdline").read_bytes()
    assert not (process / "cwd").resolve().is_relative_to(PROJECT)
