"""Command line of a run; see ``tests.endurance``. Needs root, in a mount namespace of its own."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import shutil
import site
import subprocess
import sys
import tempfile
from pathlib import Path

import django

from core import clock
from tests.endurance import stepped_clock
from vpnproject.runner import files, redis_login

VAR_SIZE = "400m"  # bin/run asks for 300 that are free


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bin/test --endurance", description=sys.modules["tests.endurance"].__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, help="play this plan (default: another one each time)")
    parser.add_argument("--keep", action="store_true", help="keep the directory, though nothing was wrong")
    return parser.parse_args(arguments)


def prepare(directory: Path) -> None:
    """Make Django that of the installation in ``directory``, whose secrets are made before anything else of it. ``var``
    is a file system of its own, which can be filled without harm to anybody else."""
    var = directory / "var"
    var.mkdir(mode=0o700)
    options = ["-t", "tmpfs", "-o", f"size={VAR_SIZE},mode=0700"]
    subprocess.run(["mount", *options, "tmpfs", str(var)], check=True)
    clock_file = directory / "clock"
    stepped_clock.set_ahead(clock_file, 0)
    _have_every_python_read(clock_file, directory)
    files.make_directories(var)
    files.make_secrets(var)
    redis_login.prepare(var)
    for name in ("SECRET_KEY", "FIELD_KEYS", "DATABASE_URL", "REDIS_URL"):
        os.environ.pop(name, None)
    os.environ |= {"VPN_VAR": str(var), "DJANGO_SETTINGS_MODULE": "vpnproject.settings"}
    django.setup()
    clock.source = stepped_clock.stepped(clock_file)
    # What this process itself could not do at once is noted with the step.
    logging.getLogger().setLevel(logging.CRITICAL)


def _have_every_python_read(clock_file: Path, directory: Path) -> None:
    """Put our line into a file that each Python of the virtual environment reads when it starts; only here, since this
    mount namespace is ours. (The test's own client is installed by such a file.)"""
    read = next(Path(site.getsitepackages()[0]).glob("*wgpeer*.pth"))
    longer = directory / read.name
    longer.write_text(read.read_text().rstrip("\n") + "\n" + stepped_clock.line_for(clock_file))
    subprocess.run(["mount", "--bind", str(longer), str(read)], check=True)


def main(arguments: list[str]) -> int:
    given = parse(arguments)
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    directory = Path(tempfile.mkdtemp(prefix="vpn-endurance-"))
    directory.chmod(0o711)  # every user of the installation reads its clock
    print(f"seed {seed}, {given.minutes:g} minutes; steps and answers: {directory}/steps.jsonl", flush=True)
    prepare(directory)
    from tests.endurance.run import Run  # its models need the settings of this very installation

    failed = Run(directory, seed, given.minutes * 60).carry_out()
    if not failed and not given.keep:
        subprocess.run(["umount", "--lazy", str(directory / "var")], check=True)
        shutil.rmtree(directory)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
