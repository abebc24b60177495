"""The wheel of the client that web offers: whole, always the same, and what a build tool would have made."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from core.client_wheel import Wheel, offered
from tests.lab import HANGING, PROJECT
from vpnproject.runner import client_wheel, files
from vpnproject.runner.announce import announce

CLIENT = PROJECT / "client"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The client's sources as another checkout has them: with other times and modes, and in another place."""
    copied = shutil.copytree(CLIENT, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("*.egg-info", "tests"))
    for path in copied.rglob("*.py"):
        os.utime(path, (time.time() - 1e6,) * 2)
        path.chmod(0o600)
    return copied


def test_the_same_client_makes_the_same_bytes(copy: Path) -> None:
    assert client_wheel.build(copy) == client_wheel.build(CLIENT)
    (copy / "wgpeer" / "text.py").write_text("changed = True\n")
    assert client_wheel.build(copy)[1] != client_wheel.build(CLIENT)[1]


def test_it_has_all_of_the_client_and_nothing_else(tmp_path: Path) -> None:
    name, data = client_wheel.build(CLIENT)
    (tmp_path / name).write_bytes(data)
    with zipfile.ZipFile(tmp_path / name) as wheel:
        packed = {each for each in wheel.namelist() if ".dist-info/" not in each}
    there = (path for path in (CLIENT / "wgpeer").rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert packed == {path.relative_to(CLIENT).as_posix() for path in there}


def test_it_says_of_itself_what_a_build_tool_says(tmp_path: Path) -> None:
    """The client is installed here by setuptools, from the same pyproject.toml."""
    name, data = client_wheel.build(CLIENT)
    (tmp_path / name).write_bytes(data)
    with zipfile.ZipFile(tmp_path / name) as wheel:
        about = next(each for each in wheel.namelist() if each.endswith("/METADATA"))
        ours = Parser().parsestr(wheel.read(about).decode())
    theirs = Parser().parsestr(metadata.distribution("wgpeer").read_text("METADATA") or "")
    assert {name: said(theirs)[name] for name in said(ours)} == said(ours)
    assert ours.get_payload() == (CLIENT / "README.md").read_text()


def said(message: Message) -> dict[str, list[str]]:
    names = set(message.keys()) - {"Metadata-Version"}
    fields = {name: sorted(message.get_all(name, [])) for name in names}
    return {**fields, "Requires-Dist": sorted(str(Requirement(each)) for each in fields["Requires-Dist"])}


def test_pip_installs_it_and_the_command_works(tmp_path: Path) -> None:
    name, data = client_wheel.build(CLIENT)
    (tmp_path / name).write_bytes(data)
    fresh = tmp_path / "fresh"
    venv.create(fresh, symlinks=True)
    python = str(fresh / "bin" / "python")
    # What it needs is there already, from our own environment; it itself is not, whatever that has.
    (link,) = fresh.rglob("site-packages")
    (link / "needed.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet"]
    options = ["--no-index", "--ignore-installed", "--no-deps", "--no-warn-script-location"]
    subprocess.run([*pip, "install", *options, str(tmp_path / name)], check=True, timeout=HANGING)
    command = [str(fresh / "bin" / "wgpeer"), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGING, check=True, cwd=tmp_path)
    assert name == f"wgpeer-{done.stdout.strip()}-py3-none-any.whl"
    where = [python, "-c", "import wgpeer; print(wgpeer.__file__)"]
    found = subprocess.run(where, capture_output=True, text=True, timeout=HANGING, check=True, cwd=tmp_path)
    assert Path(found.stdout.strip()).is_relative_to(fresh)


def test_bin_run_says_the_digest_that_people_compare(tmp_path: Path) -> None:
    files.make_directories(tmp_path / "var")
    client_wheel.put(CLIENT, tmp_path / "var")
    name, data = client_wheel.build(CLIENT)
    lines: list[str] = []
    announce(lines.append, "https://203.0.113.5:8443", tmp_path / "var", {})
    assert f"https://203.0.113.5:8443/client/{name}" in "\n".join(lines)
    assert hashlib.sha256(data).hexdigest() in "\n".join(lines)


def test_var_has_the_wheel_of_this_client_alone(tmp_path: Path) -> None:
    var = tmp_path / "var"
    files.make_directories(var)
    directory = var / client_wheel.DIRECTORY
    (directory / "wgpeer-0.0.1-py3-none-any.whl").write_bytes(b"of an older release")
    client_wheel.put(CLIENT, var)
    name, data = client_wheel.build(CLIENT)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == {name: data}
    assert offered(directory) == Wheel(name, data, hashlib.sha256(data).hexdigest())
    before = (directory / name).stat().st_mtime_ns
    client_wheel.put(CLIENT, var)
    assert (directory / name).stat().st_mtime_ns == before
