"""What requirements.txt installs is enough: nothing that runs leans on a package that only the tests bring."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import HANGING

PROJECT = Path(__file__).resolve().parents[3]

# Everything that bin/run starts, in a Python that has only what requirements.txt brings.
SCRIPT = """
import importlib, re, sys
from importlib import metadata

def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()

def requirements(lines, extras):
    from packaging.requirements import Requirement
    for line in lines:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield requirement

def installed(lines):
    found, todo = set(), [(requirement, {""}) for requirement in requirements(lines, {""})]
    while todo:
        requirement, _ = todo.pop()
        key = (plain(requirement.name), frozenset(requirement.extras))
        if key in found:
            continue
        found.add(key)
        needs = metadata.requires(requirement.name) or []
        todo += [(need, None) for need in requirements(needs, {"", *requirement.extras})]
    return {name for name, _ in found}

lines = [line for line in open("requirements.txt").read().splitlines() if line and not line.startswith("#")]
allowed = installed(lines)
owners = {top: {plain(name) for name in names} for top, names in metadata.packages_distributions().items()}
for name in [name for name in sys.modules if name.partition(".")[0] == "packaging"]:
    del sys.modules[name]

class OnlyRequirements:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in owners and not owners[top] & allowed:
            raise ModuleNotFoundError(f"No module named {name!r} among the requirements", name=top)

sys.meta_path.insert(0, OnlyRequirements())
for module in sys.argv[1:]:
    importlib.import_module(module)
"""


@pytest.mark.parametrize(
    "modules",
    [
        ("vpnproject.wsgi", "vpnproject.urls"),
        ("vpnproject.wsgi_gateway", "vpnproject.urls_gateway"),
        ("vpnproject.celery", "kombu.transport.redis", "celery.bin.worker", "celery.bin.beat"),
        ("servers.hostnet.agent.worker", "servers.hostnet.wireguard.choose", "kombu.transport.redis"),
        ("granian.cli",),
        ("vpnproject.runner.supervisord", "vpnproject.runner.start"),
    ],
    ids=lambda modules: modules[0],
)
def test_what_runs_needs_only_the_requirements(modules: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *modules],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=HANGING,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_bin_run_loads_all_of_itself_by_the_path_that_it_has() -> None:
    """Beside its own package stand files with the names of libraries: ``celery`` is the project's there."""
    names = sorted(path.stem for path in (PROJECT / "vpnproject" / "runner").glob("*.py") if path.stem != "__main__")
    done = subprocess.run(
        [sys.executable, "-c", "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"]
        + [f"runner.{name}" for name in names],
        cwd="/",
        env={"PYTHONPATH": f"{PROJECT / 'vpnproject'}:{PROJECT}", "DJANGO_SETTINGS_MODULE": "vpnproject.settings_test"},
        capture_output=True,
        text=True,
        timeout=HANGING,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
