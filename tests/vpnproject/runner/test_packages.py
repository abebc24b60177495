"""Every program that is started comes with a Debian package that the script which starts it installs. It cannot see a
name that is only known when it runs; those are found by bin/test --bare."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
RUNNER = PROJECT / "vpnproject" / "runner"
DIRECTORIES = [Path(path) for path in ("/usr/sbin", "/usr/bin", "/sbin", "/bin")]
# Functions whose arguments are a command, or whose first argument is a list with one.
STARTING = {"run", "Popen", "start"}
# What takes another command as its arguments.
PREFIXES = {"env", "setpriv", "nsenter", "unshare", "timeout"}
# Not on the machine: a test lays them over /usr of a namespace.
LAID_OVER = {"resolvectl"}

PARTS = {
    "debian-host.txt": ["servers/hostnet"],
    "debian-run.txt": ["core", "users", "servers", "wgpeers", "vpnproject"],
    "debian-demo.txt": ["core", "users", "servers", "wgpeers", "vpnproject", "client/wgpeer", "tests/lab"],
    "debian-test.txt": ["core", "users", "servers", "wgpeers", "vpnproject", "client", "tests", "bench"],
}


def started(part: Path) -> Iterator[tuple[str, str]]:
    """Each program that a source file below ``part`` starts by a name written there, and where."""
    for file in sorted(part.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in STARTING and node.args:
                if getattr(node.func.value, "id", "") == "liveness":  # type: ignore[attr-defined]
                    continue  # starts a deadline, not a program
                for name in programs(node.args):
                    yield name, f"{file.relative_to(PROJECT)}:{node.lineno}"


def programs(arguments: list[ast.expr]) -> Iterator[str]:
    first = arguments[0]
    if isinstance(first, ast.List | ast.Tuple):
        yield from programs(first.elts) if first.elts else ()
        return
    words = [word.value for word in arguments if isinstance(word, ast.Constant) and isinstance(word.value, str)]
    if isinstance(first, ast.Constant) and words and words[0] == first.value and is_name(words[0]):
        yield words[0]
        if words[0] in PREFIXES:  # the first word that is a program is the command
            yield from [word for word in words[1:] if is_name(word) and path_of(word)][:1]


def is_name(word: str) -> bool:
    return word.replace("-", "").replace("_", "").replace(".", "").isalnum() and not word.startswith("-")


def path_of(name: str) -> Path | None:
    return next((path for each in DIRECTORIES if (path := each / name).exists()), None)


def query(*arguments: str | Path) -> str:
    return subprocess.run(["dpkg-query", *arguments], capture_output=True, text=True, check=False).stdout


@cache
def package_of(name: str) -> str:
    """The package with this program; empty when there is none."""
    for directory in DIRECTORIES:
        for path in (directory / name, (directory / name).resolve()):
            if path.exists() and (found := query("--search", path).strip()):
                return found.splitlines()[-1].partition(":")[0]  # after what is said of diversions
    return ""


@cache
def source_and_priority(package: str) -> tuple[str, str]:
    source, _, priority = query("--show", "--showformat", "${source:Package} ${Priority}", package).partition(" ")
    return source, priority


@pytest.mark.parametrize("name", PARTS)
def test_programs_that_are_started_are_installed_by_whoever_starts_them(name: str) -> None:
    """By a package that is named, or another one of the same source; or they are on the barest of machines."""
    named = (RUNNER / name).read_text().split()
    sources = {source_and_priority(package)[0] for package in named}
    missing = {}
    for part in PARTS[name]:
        for program, where in started(PROJECT / part):
            source, priority = source_and_priority(package_of(program))
            if program not in LAID_OVER and source not in sources and priority != "required" and source != "apt":
                missing[program] = f"{where}, of the package {package_of(program) or '(none)'}"
    assert missing == {}


def test_demo_has_all_that_runs_and_tests_have_all_of_it() -> None:
    run, demo, test = ((RUNNER / name).read_text().split() for name in PARTS if name != "debian-host.txt")
    assert set(run) <= set(demo) <= set(test)


def test_a_program_of_no_named_package_is_seen(tmp_path: Path) -> None:
    source = 'machine.run("env", "-C", "/", "sysctl", "-n")\nsubprocess.Popen(["iperf3", option])\nthread.start()\n'
    assert list(programs(ast.parse(source).body[0].value.args)) == ["env", "sysctl"]  # type: ignore[attr-defined]
    assert list(programs(ast.parse(source).body[1].value.args)) == ["iperf3"]  # type: ignore[attr-defined]
    assert source_and_priority(package_of("bash"))[1] == "required"
