"""The house stays as it was built: imports run one way, hosts need no Django, and no file grows out of hand."""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command

from tests.lab import HANGING

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("vpnproject", "core", "users", "servers", "wgpeers", "client", "tests", "bench")
LONGEST = 400

# What each part may import of ours. Only vpnproject and the tests know all of them.
MAY_IMPORT = {
    "core": {"core"},
    "users": {"users", "core"},
    "servers/hostnet": {"servers.hostnet"},
    "servers": {"servers", "users", "core"},
    "wgpeers": {"wgpeers", "servers", "users", "core"},
    "client": {"wgpeer"},
}
OURS = ("vpnproject", "core", "users", "servers", "wgpeers", "wgpeer", "client", "tests", "bench")


def sources(part: str) -> list[Path]:
    skip = {"migrations", "tests", "build", "__pycache__"}
    return [
        path
        for path in sorted((ROOT / part).rglob("*.py"))
        if not skip & set(path.relative_to(ROOT).parts[1:]) and not path.name.endswith(".egg-info")
    ]


def names_of(node: ast.Import | ast.ImportFrom, path: Path) -> list[str]:
    """The dotted names that an import in ``path`` names, relative ones made absolute."""
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    package = list(path.relative_to(ROOT).with_suffix("").parts[:-1])
    if package[:1] == ["client"]:
        package = package[1:]
    base = package[: len(package) - node.level + 1] if node.level else []
    module = ".".join([*base, *([node.module] if node.module else [])])
    # "from . import x" names the module x.
    return [f"{module}.{name.name}" for name in node.names]


def imported(path: Path) -> Iterator[str]:
    """The dotted names that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from names_of(node, path)


def within(name: str, parts: set[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def part_of(path: Path) -> str:
    text = path.relative_to(ROOT).as_posix()
    return max((part for part in MAY_IMPORT if text.startswith(f"{part}/")), key=len)


@pytest.mark.parametrize("part", [*MAY_IMPORT])
def test_imports_run_one_way(part: str) -> None:
    files = [path for path in sources(part) if part_of(path) == part]
    assert files
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imported(path)
        if within(name, set(OURS)) and not within(name, MAY_IMPORT[part])
    ]
    assert wrong == []


# What a template is made of, and what code calls one by.
USED_BY_TEMPLATES = re.compile(r"{% *(?:extends|include) +[\"']([^\"']+)")


def templates_of(part: str) -> dict[str, Path]:
    """The part's templates by the name that they are used by. Factors keep theirs in their own folders."""
    found: dict[str, Path] = {}
    for path in (ROOT / part).rglob("*"):
        if path.suffix in (".html", ".css", ".txt") and "hostnet" not in path.parts:
            names = path.relative_to(ROOT).as_posix()
            _, inside, name = names.partition("/templates/")
            found[name if inside else names.removeprefix("users/factors/")] = path
    return found


def templates_used(part: str) -> Iterator[tuple[str, str]]:
    """Each file of the part with the name of a template that it uses."""
    for path in templates_of(part).values():
        for name in USED_BY_TEMPLATES.findall(path.read_text()):
            yield path.relative_to(ROOT).as_posix(), name
    for path in sources(part):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield path.relative_to(ROOT).as_posix(), node.value


@pytest.mark.parametrize("part", ["core", "users", "servers", "wgpeers"])
def test_templates_run_the_same_way(part: str) -> None:
    """A page may stand on one of its own part, or of one that its part may import."""
    lies_in = {
        name: other for other in ("vpnproject", "wgpeers", "servers", "users", "core") for name in templates_of(other)
    }
    used = [(file, name) for file, name in templates_used(part) if name in lies_in]
    assert used
    assert [(file, name) for file, name in used if lies_in[name] not in MAY_IMPORT[part]] == []


# Where files may not import each other in a circle, imports inside functions and under TYPE_CHECKING included.
NO_CIRCLES = ("core", "users", "servers", "wgpeers", "vpnproject", "client/wgpeer")

# Imports of our own inside a function. They hide no circle (the test above counts them); they need a reason each.
LATE = {
    "servers/hostnet/wireguard/choose.py": "a host without the kernel module needs nothing of what that is driven with",
    "vpnproject/runner/__main__.py": "--check must run where what a start needs is not installed yet",
    "users/apps.py": "signals need the models, which are there when the apps are ready",
    "servers/apps.py": "rules and signals need the models, which are there when the apps are ready",
    "wgpeers/apps.py": "signals and jobs need the models, which are there when the apps are ready",
}


def module_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts = parts[1:] if parts[0] == "client" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files_imported(path: Path, files: dict[str, Path]) -> set[str]:
    """The modules among ``files`` that an import in ``path`` runs: with a module also the packages that it lies in,
    but not those around ``path`` itself, which have begun before it."""
    mine = module_of(path)
    found = set()
    for name in imported(path):
        module = name if name in files else name.rpartition(".")[0]
        packages = {module.rsplit(".", count)[0] for count in range(1, module.count(".") + 1)}
        found |= {module} | {package for package in packages if not mine.startswith(f"{package}.")}
    return (found & files.keys()) - {mine}


def circles(graph: dict[str, set[str]]) -> set[str]:
    """The nodes that cannot be put in an order: whatever lies on a circle, or only leads from one to another."""
    left = {node: set(others) for node, others in graph.items()}
    while True:
        done = {node for node, others in left.items() if not others & left.keys()}
        done |= left.keys() - {other for others in left.values() for other in others}
        if not done:
            return set(left)
        left = {node: others for node, others in left.items() if node not in done}


def test_a_circle_is_found() -> None:
    assert circles({"top": {"a"}, "a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == {"a", "b", "c"}


def test_no_files_import_each_other_in_a_circle() -> None:
    files = {module_of(path): path for part in NO_CIRCLES for path in sources(part)}
    assert "servers.rules.registry" in files
    graph = {module: files_imported(path, files) for module, path in files.items()}
    assert "servers.models.server" in graph["servers.models"]
    assert {module: graph[module] & circles(graph) for module in circles(graph)} == {}


def test_nothing_of_ours_is_imported_inside_a_function() -> None:
    late = set()
    for path in (path for part in NO_CIRCLES for path in sources(part)):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                inside = [node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
                if any(within(name, set(OURS)) for node in inside for name in names_of(node, path)):
                    late.add(path.relative_to(ROOT).as_posix())
    assert late == LATE.keys()


def test_from_above_hostnet_only_its_messages_are_used() -> None:
    """The control side speaks to hosts through the desired state and nothing else of theirs."""
    used = {
        (path.relative_to(ROOT).as_posix(), name)
        for part in ("core", "users", "servers", "wgpeers")
        for path in sources(part)
        if part_of(path) != "servers/hostnet"
        for name in imported(path)
        if name.startswith("servers.hostnet")
    }
    assert used
    assert [(path, name) for path, name in used if not name.startswith("servers.hostnet.state.")] == []


# What asks by HTTP beside the one door, each for something of ours alone.
ASKS_ITSELF = {
    "servers/hostnet/command/asking.py": "a machine asks the control side that an administrator's command names",
    "vpnproject/runner/probes.py": "whether our own web answers, on the loopback interface",
    "vpnproject/runner/supervise.py": "the supervisor's socket in a file",
}
HTTP_CLIENTS = {"http.client", "urllib.request", "requests", "urllib3", "httpx", "httpx2", "aiohttp"}


def test_the_servers_of_others_are_asked_by_one_door() -> None:
    parts = ("core", "users", "servers", "wgpeers", "vpnproject")
    asking = {
        path.relative_to(ROOT).as_posix()
        for part in parts
        for path in sources(part)
        if any(within(name, HTTP_CLIENTS) for name in imported(path))
    }
    assert asking == {"core/http.py", *ASKS_ITSELF}


@pytest.mark.parametrize("part", ["servers/hostnet", "client"])
def test_no_django_is_imported_by(part: str) -> None:
    names = {"django", "rest_framework", "environ"}
    assert [f"{path}: {name}" for path in sources(part) for name in imported(path) if within(name, names)] == []


LOADED = "print(sorted({name.split('.')[0] for name in sys.modules} & {'core', 'users', 'wgpeers', 'vpnproject'}))"
WORKER_MODULE = "servers.hostnet.agent.worker"
WORKER = {
    "without Django": f"import sys; sys.modules['django'] = None; import {WORKER_MODULE}; {LOADED}",
    # Kombu looks whether Django's lazy texts are there; settings, models and a database are what must not be.
    "beside Django": f"import sys, {WORKER_MODULE}; print(sorted({{'django.conf', 'django.db'}} & {{*sys.modules}}))",
}


@pytest.mark.parametrize("where", [*WORKER])
def test_the_host_worker_really_loads(where: str, tmp_path: Path) -> None:
    """Also where the environment names a Django project, as a careless unit file might."""
    environment = {
        "PATH": os.environ["PATH"],
        "DJANGO_SETTINGS_MODULE": "vpnproject.settings",
        "HOST_ID": "a1b2c3",
        "HOST_REDIS_URL": f"unix://{tmp_path}/redis.sock?db=0",
        "HOST_VAR": str(tmp_path),
    }
    command = [sys.executable, "-c", WORKER[where]]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=HANGING, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


# Parts in which no file imports itself, by whatever way round; and no package of them another that imports it.
WITHOUT_CIRCLES = ("servers/hostnet",)


def modules_of(part: str) -> dict[str, Path]:
    """The files of a part by dotted name; a package is its ``__init__``."""
    found = {}
    for path in sources(part):
        names = list(path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return found


def imports_of(part: str) -> dict[str, set[str]]:
    """By module, the modules of the same part that it imports, also inside functions and under TYPE_CHECKING."""
    modules = modules_of(part)
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        # "from package import name" names a module of it, or else something in the package itself.
        named = {name if name in modules else name.rpartition(".")[0] for name in imported(path)}
        graph[module] = named & modules.keys() - {module}
    return graph


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """One way that leads back to its start, or nothing."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if found := walk(other, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


@pytest.mark.parametrize("part", WITHOUT_CIRCLES)
def test_no_file_imports_itself_by_a_way_round(part: str) -> None:
    graph = imports_of(part)
    assert any(graph.values())
    assert circle_in(graph) == []


@pytest.mark.parametrize("part", WITHOUT_CIRCLES)
def test_no_packages_import_each_other(part: str) -> None:
    """The packages right below the part; a file that lies there itself counts as one."""
    depth = part.count("/") + 2
    graph: dict[str, set[str]] = {}
    for module, others in imports_of(part).items():
        package = ".".join(module.split(".")[:depth])
        graph.setdefault(package, set()).update(".".join(other.split(".")[:depth]) for other in others)
    assert circle_in({package: others - {package} for package, others in graph.items()}) == []


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b", "c"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, ["b", "c", "b"]),
    ],
)
def test_circles_are_found(graph: dict[str, set[str]], found: list[str]) -> None:
    assert circle_in(graph) == found


def test_no_file_is_longer_than_can_be_read_in_one_sitting() -> None:
    files = [path for part in PACKAGES for path in sources(part) if part != "tests"]
    assert len(files) > 50
    long = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in files}
    assert {name: lines for name, lines in long.items() if lines > LONGEST} == {}


def test_every_migration_is_made(db: None) -> None:
    out = io.StringIO()
    try:
        call_command("makemigrations", check=True, dry_run=True, stdout=out)
    except SystemExit:
        pytest.fail(out.getvalue())


def test_requirements_are_pinned_to_one_version_each() -> None:
    lines = [
        line.split("#")[0].strip()
        for name in ("requirements.txt", "requirements-dev.txt")
        for line in (ROOT / name).read_text().splitlines()
    ]
    named = [line for line in lines if line and not line.startswith("-")]
    assert named
    assert [line for line in named if line.count("==") != 1] == []
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"] == ">=3.11"


def patterns() -> Iterator[tuple[str, str]]:
    """Each regular expression of the product that is written out, and where; the client shares no code with it."""
    for path in (path for part in ("vpnproject", "core", "users", "servers", "wgpeers") for path in sources(part)):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) != "re.compile":
                continue
            if isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value), f"{path.relative_to(ROOT)}:{node.lineno}"


def test_no_pattern_is_written_twice() -> None:
    """What a name may be is decided in one place; a second one would be forgotten at the next change."""
    found: dict[str, list[str]] = {}
    for pattern, where in patterns():
        found.setdefault(pattern, []).append(where)
    assert len(found) > 20
    assert [places for places in found.values() if len(places) > 1] == []


def test_whether_networks_overlap_is_asked_in_one_place() -> None:
    """Python's own raises where one is IPv4 and the other IPv6: whoever asks it must know that they are not."""
    asked = {
        path.relative_to(ROOT).as_posix()
        for part in ("vpnproject", "core", "users", "servers", "wgpeers")
        for path in sources(part)
        if ".overlaps(" in re.sub(r"networks\.overlaps\(", "", path.read_text())
    }
    of_one_family = {"servers/hostnet/firewall/sets.py", "wgpeers/management/first_rows.py"}
    assert asked == {"servers/hostnet/state/addresses.py", *of_one_family}
