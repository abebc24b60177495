"""The checkout as the programs' users find it: they read it, and write nothing in it."""

from __future__ import annotations

import compileall
import os
import sys
from pathlib import Path

from . import mounts, programs
from .console import RunError


def check_reachable(project: Path) -> None:
    """Raise ``RunError`` where the programs' users could not read the code or run its Python."""
    venv = project / ".venv"
    # Whoever has made some of it readable by the owner alone has made all of it so.
    for path in (project, project / "vpnproject", project / "manage.py", venv, *venv.glob("lib/*/site-packages")):
        needed = 0o005 if path.is_dir() else 0o004
        if path.exists() and path.stat().st_mode & needed != needed:
            raise RunError(
                f"{path} can be read by its owner alone, and not all of it runs as root: chmod -R a+rX {project}"
            )
    python = venv / "bin" / "python"
    if closed := mounts.closed_to_others(python if python.exists() else Path(sys.executable)):
        raise RunError(
            f"{python} is {python.resolve()}, and {closed} is closed to all but root, while not all programs run as "
            f"root. Use Debian's Python: rm -r {venv}, then bin/run, which takes /usr/bin/python3."
        )


def compile_code(project: Path) -> None:
    """Compile what is new or changed, for programs that may not write it where the code is."""
    before = os.umask(0o022)
    try:
        for package in programs.PACKAGES:
            compileall.compile_dir(project / package, quiet=2)
    finally:
        os.umask(before)
