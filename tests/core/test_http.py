"""The door for requests to others: bounded, verified, and to no address inside unless an administrator named it."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.http import Limits, NoAnswer, host_of, is_inside, request
from tests.counterpart import Asked, Counterpart, Said, a_certificate, saying_bytes, serving
from tests.lab import HANGING

HERE = frozenset({"localhost"})


def echo(asked: Asked) -> Said:
    if asked.path.startswith("/away"):
        return Said(302, b"", {"Location": "http://169.254.169.254/"})
    if asked.path.startswith("/big"):
        return Said(200, b"x" * 2000)
    return Said(418, b'{"kettle": true}', {"X-Kind": "short and stout"})


@pytest.fixture
def plain() -> Iterator[Counterpart]:
    with serving(echo) as counterpart:
        yield counterpart


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Counterpart]:
    with serving(echo, a_certificate(tmp_path)) as counterpart:
        yield counterpart


def problem(url: str, **how: Any) -> str:
    with pytest.raises(NoAnswer) as caught:
        request("GET", url, **{"named": HERE, **how})
    return str(caught.value)


def test_an_answer_comes_as_it_is(plain: Counterpart) -> None:
    answer = request("POST", f"{plain.url}/pot?a=b", headers={"X-More": "yes"}, body=b"tea", named=HERE)
    assert (answer.status, answer.json(), answer.headers["x-kind"]) == (418, {"kettle": True}, "short and stout")
    asked = plain.asked[0]
    assert (asked.method, asked.path, asked.body, asked.headers["x-more"]) == ("POST", "/pot?a=b", b"tea", "yes")
    assert asked.headers["host"] == f"localhost:{plain.port}"


def test_no_proxy_of_the_environment_is_asked(plain: Counterpart, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert request("GET", plain.url, named=HERE).status == 418


def test_no_redirect_is_followed(plain: Counterpart) -> None:
    assert request("GET", f"{plain.url}/away", named=HERE).status == 302
    assert len(plain.asked) == 1


def test_a_certificate_is_verified_with_its_name_and_authority(secure: Counterpart, tmp_path: Path) -> None:
    assert request("GET", secure.url, named=HERE, ca=secure.ca).status == 418
    assert "certificate of localhost cannot be trusted" in problem(secure.url)
    by_address = secure.url.replace("localhost", "127.0.0.1")
    assert "cannot be trusted" in problem(by_address, named=frozenset({"127.0.0.1"}), ca=secure.ca)
    assert "cannot be read" in problem(secure.url, ca="-----BEGIN nonsense-----")
    assert [asked.path for asked in secure.asked] == ["/"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"])
def test_nobody_inside_is_asked_unless_named(secure: Counterpart, host: str) -> None:
    said = problem(secure.url.replace("localhost", host), named=frozenset({"example.com"}), ca=secure.ca)
    assert "not one of the internet" in said or "has no address" in said
    assert secure.asked == []


def test_without_tls_only_who_is_named_is_asked(plain: Counterpart) -> None:
    assert "not asked without TLS" in problem(plain.url, named=frozenset())
    assert plain.asked == []


INSIDE = """127.0.0.1 127.9.9.9 0.0.0.0 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 100.127.255.254
192.0.2.1 198.18.0.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 ::1 :: fe80::1 fc00::1 fd5c::1 fec0::1 ff02::1
2001:db8::1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 64:ff9b::a00:1 64:ff9b::7f00:1 64:ff9b:1::1
2002:7f00:1::1 2002:a00:1::1 fd00:ec2::254 2001:0:4136:e378:8000:63bf:f5ff:fffe"""
OUTSIDE = "8.8.8.8 1.1.1.1 100.128.0.1 172.32.0.1 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808"


@pytest.mark.parametrize(
    ("address", "inside"), [*((each, True) for each in INSIDE.split()), *((each, False) for each in OUTSIDE.split())]
)
def test_what_an_address_inside_is(address: str, inside: bool) -> None:
    assert is_inside(ipaddress.ip_address(address)) is inside


def answering(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """A resolver that says something else each time; addresses it leaves to the real one."""
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def look(host: str, port: int, *args: Any, **more: Any) -> Any:
        if not host.endswith(".example"):
            return real(host, port, *args, **more)
        looked_up.append(host)
        return [(2, 1, 6, "", (each, port)) for each in answers[min(len(looked_up), len(answers)) - 1]]

    monkeypatch.setattr(socket, "getaddrinfo", look)
    return looked_up


def test_the_address_that_was_checked_is_the_one_that_is_asked(
    plain: Counterpart, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = answering(monkeypatch, ["127.0.0.1"], ["192.0.2.1"])
    url = f"http://moving.example:{plain.port}/"
    assert request("GET", url, named=frozenset({"Moving.example"})).status == 418
    assert looked_up == ["moving.example"]


def test_one_address_inside_among_others_refuses(secure: Counterpart, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, ["8.8.8.8", "127.0.0.1"])
    assert "127.0.0.1" in problem(f"https://mixed.example:{secure.port}/", named=frozenset(), ca=secure.ca)
    assert secure.asked == []


def test_the_next_address_is_asked_where_one_does_not_answer(
    plain: Counterpart, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, ["127.0.0.9", "127.0.0.1"])
    assert request("GET", f"http://two.example:{plain.port}/", named=frozenset({"two.example"})).status == 418


def test_a_resolver_that_is_silent_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: over.wait(HANGING) and [])
    assert "no resolver answers" in problem("https://silent.example/", limits=Limits(total=0.2))
    over.set()


def test_what_is_too_large_is_not_read(plain: Counterpart) -> None:
    assert len(request("GET", f"{plain.url}/big", named=HERE, limits=Limits(size=2000)).body) == 2000
    assert "sends too much" in problem(f"{plain.url}/big", limits=Limits(size=1999))


def drip(start: bytes) -> Any:
    def said(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(b"a")
            threading.Event().wait(0.02)

    return said


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX-", b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"])
def test_who_sends_a_byte_now_and_then_holds_nobody(start: bytes) -> None:
    with saying_bytes(drip(start)) as slow:
        assert "does not answer in time" in problem(slow.url, limits=Limits(total=0.5))


def test_a_body_that_ends_with_the_deadline_is_no_answer() -> None:
    with saying_bytes(drip(b"HTTP/1.1 200 OK\r\n\r\n")) as slow:
        assert "does not answer in time" in problem(slow.url, limits=Limits(total=0.5))


def test_a_handshake_that_does_not_come_holds_nobody() -> None:
    def nothing(connection: socket.socket) -> None:
        connection.recv(1 << 20)
        threading.Event().wait(HANGING)

    with saying_bytes(nothing) as slow:
        assert "does not answer in time" in problem(slow.url.replace("http:", "https:"), limits=Limits(total=0.5))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500,
    ],
    ids=["nothing", "no HTTP", "half a body", "bad chunk", "half a chunk", "many headers"],
)
def test_what_is_no_whole_answer_is_none(raw: bytes) -> None:
    with serving(lambda asked: Said(raw=raw)) as liar:
        assert "breaks off" in problem(liar.url)


def test_who_is_not_there_is_said_and_no_secret_with_it(plain: Counterpart) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    said = problem(f"http://localhost:{port}/token-in-path?key=secret", headers={"Authorization": "secret"})
    assert said == "localhost cannot be reached."
    assert "secret" not in problem(plain.url, headers={"X": "secret\r\nHost: evil"})
    assert plain.asked == []


@pytest.mark.parametrize(
    "url",
    ["", "ftp://localhost/", "localhost", "https://", "https://a:b@localhost/", "https://localhost:99999/",
     "https://localhost/a b", "https://localhost/\r\nX: y", "file:///etc/passwd", "https://exämple.com/", "https://[::1"],
)  # fmt: skip
def test_what_is_no_address_is_said(url: str) -> None:
    assert problem(url) == "That is no address of a server."
    assert host_of(url) == ""


def test_an_answer_that_is_no_json(plain: Counterpart) -> None:
    with pytest.raises(NoAnswer, match="no JSON"):
        request("GET", f"{plain.url}/big", named=HERE).json()
    assert host_of(plain.url) == "localhost"
