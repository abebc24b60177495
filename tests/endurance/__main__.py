"""Command line of a run; see ``tests.endurance``. Needs root, in a mount namespace of its own."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import django

from tests.endurance.plan import OPTIONAL
from vpnproject.runner import files

VAR_SIZE = "400m"  # bin/run asks for 300 that are free


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bin/test --endurance", description=sys.modules["tests.endurance"].__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, help="play this plan (default: another one each time)")
    parser.add_argument("--with", dest="optional", action="append", default=[], choices=OPTIONAL, metavar="FAULT")
    return parser.parse_args(arguments)


def prepare(directory: Path) -> None:
    """Make Django that of the installation in ``directory``, whose secrets are made before anything else of it. ``var``
    is a file system of its own, which can be filled without harm to anybody else."""
    var = directory / "var"
    var.mkdir(mode=0o700)
    options = ["-t", "tmpfs", "-o", f"size={VAR_SIZE},mode=0700"]
    subprocess.run(["mount", *options, "tmpfs", str(var)], check=True)
    files.make_directories(var)
    files.make_secrets(var)
    for name in ("SECRET_KEY", "FIELD_KEYS", "DATABASE_URL", "REDIS_URL"):
        os.environ.pop(name, None)
    os.environ |= {"VPN_VAR": str(var), "DJANGO_SETTINGS_MODULE": "vpnproject.settings"}
    django.setup()
    # What this process itself could not do at once is noted with the step.
    logging.getLogger().setLevel(logging.CRITICAL)


def main(arguments: list[str]) -> int:
    given = parse(arguments)
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    directory = Path(tempfile.mkdtemp(prefix="vpn-endurance-"))
    print(f"seed {seed}, {given.minutes:g} minutes; steps and answers: {directory}/steps.jsonl", flush=True)
    prepare(directory)
    from tests.endurance.run import Run  # its models need the settings of this very installation

    return Run(directory, seed, given.minutes * 60, given.optional).carry_out()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
