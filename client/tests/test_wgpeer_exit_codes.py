"""Every exit code that the README documents, from a run that ends with it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from wgpeer import daemon
from wgpeer.transport import HttpResponse
from wgpeer_fakes import HANGING, Handler, http_server, open_request, profile_text, refuse, status

README = " ".join((Path(__file__).parents[1] / "README.md").read_text().split())
Run = Callable[..., int]


def documented() -> dict[int, str]:
    start = README.index("Exit codes:")
    listed = re.findall(r"(\d) ([a-z ]+)", README[start : README.index(".", start)])
    return {int(code): said for code, said in listed}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The command as a process of its own."""

    def command(*arguments: str, user: int | None = None) -> int:
        words = [sys.executable, "-P", "-m", "wgpeer", "--dir", str(tmp_path / "d"), *arguments]
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=HANGING,
            check=False,
            cwd="/",
            stdin=subprocess.DEVNULL,
            user=user,
        )
        assert "Traceback" not in done.stderr
        return done.returncode

    return command


@contextmanager
def api(certificate: tuple[Path, Path], answer: Handler, tmp_path: Path) -> Iterator[str]:
    """A server on loopback, and the file of a profile that knows it alone."""

    def handler(method: str, path: str, headers: dict[str, str], raw: bytes) -> HttpResponse:
        opened = open_request("", method, path.partition("?")[0], headers, raw)
        return HttpResponse(480, b"{}") if method == "GET" else answer(opened)

    with http_server(handler, tls=certificate) as port:
        text = profile_text(sync_hosts=[f"https://127.0.0.1:{port}"]).replace("remote c.example 1194 udp\n", "")
        (tmp_path / "acme.ovpn").write_text(text)
        yield str(tmp_path / "acme.ovpn")


def test_every_documented_exit_code(tmp_path: Path, certificate: tuple[Path, Path], run: Run) -> None:
    seen = {
        0: run("version"),
        1: run("add", "http://vpn.example/k/Short1"),
        2: run("frobnicate"),
        5: run("up"),
        6: run("up", user=65534),
    }
    with api(certificate, refuse, tmp_path) as profile:
        assert run("add", profile) == 0
        seen[3] = run("up")
    with api(certificate, status(503), tmp_path) as profile:
        assert run("add", profile) == 0
        try:
            seen[4] = run("up", "--wait", "2")
        finally:
            assert run("down") == 0
    assert seen == {code: code for code in documented()}


def test_the_codes_are_those_that_the_code_knows() -> None:
    names = {value: name for name, value in vars(daemon).items() if name.startswith("EXIT_")}
    assert documented().keys() == names.keys()


def test_a_status_of_what_is_not_connected_is_not_0(tmp_path: Path, run: Run) -> None:
    (tmp_path / "acme.ovpn").write_text(profile_text())
    assert run("status") == 1
    assert run("add", str(tmp_path / "acme.ovpn")) == 0
    assert run("status", "--json") == 1
    assert run("list", "--json") == 0
