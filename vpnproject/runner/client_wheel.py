"""The client as a wheel, which web offers to users: a machine of theirs has no checkout of ours.

It is written here, and by no build tool, since that would have to be fetched from somewhere: it is Python alone, so a
wheel is a zip of it with four files beside (packaging.python.org, "Binary distribution format"). The same files always
give the same bytes, so that its SHA-256 is one that people can compare.
"""

from __future__ import annotations

import base64
import hashlib
import io
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import files, layout

DIRECTORY = "client"  # in var
_WHEN = (1980, 1, 1, 0, 0, 0)  # the first that a zip can say
_MODE = 0o644 << 16
_KIND = "Wheel-Version: 1.0\nGenerator: bin/run\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def put(source: Path, var: Path) -> None:
    """Have the wheel of the client in ``source`` in ``var``, and no other one."""
    directory = var / DIRECTORY
    name, data = build(source)
    wheel = directory / name
    if not wheel.exists() or wheel.read_bytes() != data:
        files.write_private(wheel, data, layout.DIRECTORIES[DIRECTORY].of_a_file())
    for other in directory.iterdir():
        if other.name != name:
            other.unlink()


def build(source: Path) -> tuple[str, bytes]:
    """Name and content of the wheel of the project in ``source``, whose pyproject.toml says what belongs to it."""
    settings = tomllib.loads((source / "pyproject.toml").read_text())
    project = settings["project"]
    stem = f"{project['name']}-{project['version']}"
    about = f"{stem}.dist-info"
    content = dict(sorted(_code(source, settings["tool"]["setuptools"])))
    content[f"{about}/METADATA"] = _metadata(project, (source / project["readme"]).read_text()).encode()
    content[f"{about}/WHEEL"] = _KIND.encode()
    content[f"{about}/entry_points.txt"] = _scripts(project["scripts"]).encode()
    content[f"{about}/RECORD"] = _record(content, f"{about}/RECORD").encode()
    return f"{stem}-py3-none-any.whl", _zipped(content)


def _code(source: Path, settings: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    for package in settings["packages"]:
        directory = source / package.replace(".", "/")
        for pattern in ("*.py", *settings["package-data"].get(package, ())):
            for path in directory.glob(pattern):
                yield path.relative_to(source).as_posix(), path.read_bytes()


def _metadata(project: Mapping[str, Any], readme: str) -> str:
    extras = project.get("optional-dependencies", {})
    fields = [
        ("Metadata-Version", "2.1"),
        ("Name", project["name"]),
        ("Version", project["version"]),
        ("Summary", project["description"]),
        ("License", project["license"]["text"]),
        ("Requires-Python", project["requires-python"]),
        *(("Requires-Dist", each) for each in project["dependencies"]),
        *(("Provides-Extra", extra) for extra in extras),
        *(("Requires-Dist", f'{each}; extra == "{extra}"') for extra, some in extras.items() for each in some),
        ("Description-Content-Type", "text/markdown"),
    ]
    return "".join(f"{name}: {value}\n" for name, value in fields) + f"\n{readme}"


def _scripts(scripts: Mapping[str, str]) -> str:
    return "[console_scripts]\n" + "".join(f"{name} = {where}\n" for name, where in scripts.items())


def _record(content: Mapping[str, bytes], own: str) -> str:
    rows = (f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in content.items())
    return "".join(rows) + f"{own},,\n"


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _zipped(content: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            info = zipfile.ZipInfo(name, _WHEN)
            info.external_attr, info.create_system = _MODE, 3
            # Not compressed: what zlib makes of it differs from one machine to the next.
            archive.writestr(info, data, zipfile.ZIP_STORED)
    return buffer.getvalue()
