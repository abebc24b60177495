"""The transport against real servers on loopback, and the whole envelope over it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import wgpeer.api_client
import wgpeer.transport
from wgpeer.api_client import ApiClient, Credentials, DeviceInfo
from wgpeer.clock import Stopped, SystemClock
from wgpeer.envelope import SealedRequest
from wgpeer.profile import ApiHost
from wgpeer.responses import Allowed, NotAllowed, read_configuration
from wgpeer.transport import HttpResponse, HttpTransport, NoResponse, ResolverCache
from wgpeer_fakes import HANGING, VECTORS, allow, http_server, identity, make_profile, open_request, pong, refuse

REQUEST = SealedRequest("GET", "/x", {"Auth-Token": "t"}, b"", None)
KEY = "A" * 43 + "="


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> HttpTransport:
    """The servers here answer at once; on a busy machine that may be late for the limits of real life."""
    for module, name in (
        (wgpeer.transport, "CONNECT_TIMEOUT"),
        (wgpeer.transport, "RESOLVE_TIMEOUT"),
        (wgpeer.api_client, "RESPONSE_TIMEOUT"),
        (wgpeer.api_client, "SYNC_TIMEOUT"),
    ):
        monkeypatch.setattr(module, name, HANGING)
    return HttpTransport(SystemClock())


def test_a_connect_and_a_refusal_over_real_tls(certificate: tuple[Path, Path], transport: HttpTransport) -> None:
    kinds: list[str] = []

    def handler(method: str, path: str, headers: dict[str, str], raw: bytes) -> HttpResponse:
        opened = open_request("", method, path, headers, raw)
        kinds.append(opened.kind)
        return allow(opened) if opened.plaintext["password"] == "1234" else refuse(opened)

    api = ApiClient(make_profile(), identity(), DeviceInfo.gather(), SystemClock(), transport)
    with http_server(handler, tls=certificate) as port:
        host = ApiHost("127.0.0.1", port)
        assert isinstance(api.connect(host, Credentials(KEY, "1234", "t")), Allowed)
        assert isinstance(api.connect(host, Credentials(KEY, "0000", "t")), NotAllowed)
    assert kinds == ["wg", "wg"]


def test_a_ping_over_plain_http_and_a_sync_with_its_query(transport: HttpTransport) -> None:
    paths: list[str] = []

    def handler(method: str, path: str, headers: dict[str, str], raw: bytes) -> HttpResponse:
        paths.append(path)
        opened = open_request("", method, path.split("?")[0], headers, raw)
        return pong(opened) if method == "PUT" else HttpResponse(200, b"{}")

    api = ApiClient(make_profile(), identity(), DeviceInfo(), SystemClock(), transport)
    with http_server(handler) as port:
        plain = json.loads(VECTORS["connect"]["example_response_plaintext"])["configuration"]
        where = read_configuration(plain | {"gateway": "127.0.0.1", "web_port": port})
        assert api.ping(where, KEY, "lo", HANGING, HANGING) is None
        assert api.sync(f"http://127.0.0.1:{port}", "lo") == ""
    assert paths[0] == VECTORS["connect"]["path"]
    assert paths[1].endswith("?ver=2")


@pytest.mark.parametrize("code", [301, 302, 400, 408, 409, 428, 429, 500, 503])
def test_statuses_come_through_and_redirects_are_not_followed(code: int, transport: HttpTransport) -> None:
    with http_server(lambda *_: HttpResponse(code, b"{}", 7)) as port:
        answer = transport.send(f"http://127.0.0.1:{port}", REQUEST, HANGING)
    assert (answer.status, answer.retry_after) == (code, 7.0)


def test_host_header_names_the_host(transport: HttpTransport) -> None:
    seen: list[dict[str, str]] = []

    def handler(_method: str, _path: str, headers: dict[str, str], _raw: bytes) -> HttpResponse:
        seen.append(headers)
        return HttpResponse(200, b"{}")

    with http_server(handler) as port:
        transport.send(f"http://localhost:{port}", REQUEST, HANGING)
        assert seen[0]["Host"] == f"localhost:{port}"
        assert seen[0]["Connection"] == "close"


def test_a_refused_connection_is_not_silence(transport: HttpTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(NoResponse) as caught:
        transport.send(f"https://127.0.0.1:{port}", REQUEST, HANGING)
    assert caught.value.silent is False


@pytest.fixture
def mute() -> Iterator[socket.socket]:
    """Takes connections and says nothing, until it breaks them off. By then a client that knows no limit has waited for
    so long that it hangs, and it sees that the other side ended it: that is no silence."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        breaking = threading.Timer(HANGING, server.shutdown, (socket.SHUT_RDWR,))
        breaking.daemon = True
        breaking.start()
        yield server
        breaking.cancel()


def port_of(server: socket.socket) -> int:
    return int(server.getsockname()[1])


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_mute_server_is_silence_and_is_left(scheme: str, mute: socket.socket, transport: HttpTransport) -> None:
    with pytest.raises(NoResponse) as caught:
        transport.send(f"{scheme}://127.0.0.1:{port_of(mute)}", REQUEST, 0.4)
    assert caught.value.silent is True


def talk(server: socket.socket, pieces: Iterable[bytes]) -> None:
    """Send the pieces, a moment apart, until the client leaves."""
    connection, _ = server.accept()
    with connection, contextlib.suppress(OSError):
        connection.recv(65536)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.05)


def test_a_dripping_server_is_left(transport: HttpTransport) -> None:
    """Each byte comes quickly enough; all of them never end. Were the client not to leave, the server would break off
    after a while, and that is no silence."""
    drops = [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", *[b"x"] * int(HANGING / 0.05)]
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=talk, args=(server, drops), daemon=True)
        thread.start()
        with pytest.raises(NoResponse) as caught:
            transport.send(f"http://127.0.0.1:{port_of(server)}", REQUEST, 0.5)
        thread.join(HANGING)
    assert caught.value.silent is True
    assert not thread.is_alive()


@pytest.mark.parametrize("raw", [b"", b"junk\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"])
def test_a_broken_response_is_no_response(raw: bytes, transport: HttpTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=talk, args=(server, [raw]), daemon=True)
        thread.start()
        with pytest.raises(NoResponse):
            transport.send(f"http://127.0.0.1:{port_of(server)}", REQUEST, HANGING)
        thread.join(HANGING)


def test_an_endless_response_is_cut(transport: HttpTransport) -> None:
    with (
        http_server(lambda *_: HttpResponse(200, b"x" * (2 * 1024 * 1024))) as port,
        pytest.raises(NoResponse, match="too much"),
    ):
        transport.send(f"http://127.0.0.1:{port}", REQUEST, HANGING)


def test_a_signal_ends_a_request_that_waits(mute: socket.socket) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    clock = SystemClock()
    clock.install()

    def end_it_when_it_has_asked() -> None:
        connection, _ = mute.accept()
        with connection:
            connection.recv(65536)
            os.kill(os.getpid(), signal.SIGTERM)
            done.wait(HANGING)

    done = threading.Event()
    thread = threading.Thread(target=end_it_when_it_has_asked, daemon=True)
    try:
        thread.start()
        with pytest.raises(Stopped):  # without the signal: no response, since the mute server breaks off first
            HttpTransport(clock).send(f"http://127.0.0.1:{port_of(mute)}", REQUEST, 3 * HANGING)
        with pytest.raises(Stopped):
            clock.wait(HANGING)
        with pytest.raises(Stopped), clock.interruptible():
            raise AssertionError("not reached")
    finally:
        done.set()
        thread.join(HANGING)
        for number, handler in before.items():
            signal.signal(number, handler)


def test_addresses_are_remembered_and_asked_for_again_when_none_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answers = [["192.0.2.1"], ["192.0.2.2"], []]

    def fake(host: str, _seconds: float) -> list[str]:
        asked.append(host)
        return answers.pop(0)

    monkeypatch.setattr("wgpeer.transport.resolve", fake)
    resolver = ResolverCache(lambda: 5.0)
    assert resolver.lookup("vpn.example") == ["192.0.2.1"]
    assert resolver.lookup("vpn.example") == ["192.0.2.1"]
    resolver.expire("vpn.example")
    # The old one stays behind the new: a resolver within a tunnel may know only what the tunnel reaches.
    assert resolver.lookup("vpn.example") == ["192.0.2.2", "192.0.2.1"]
    resolver.expire("vpn.example")
    assert resolver.lookup("vpn.example") == [
        "192.0.2.2",
        "192.0.2.1",
    ]  # the resolver is gone: better the old than none
    assert len(asked) == 3


def test_addresses_of_a_dead_host_come_last_and_a_name_is_avoided_that_has_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addresses = {
        "both.example": ["192.0.2.1", "2001:db8::1", "192.0.2.2"],
        "gate1.example": ["192.0.2.1", "2001:db8::1"],
        "gate2.example": ["192.0.2.2"],
    }
    monkeypatch.setattr("wgpeer.transport.resolve", lambda host, _seconds: addresses.get(host, [host]))
    resolver = ResolverCache(lambda: 5.0)
    resolver.prefetch(addresses)
    resolver.avoid(["192.0.2.1", "2001:db8::1"])  # as a configuration has them: address and IPv6 address of the host
    assert resolver.lookup("both.example") == ["192.0.2.2", "192.0.2.1", "2001:db8::1"]
    avoided = {name: resolver.is_avoided(name) for name in [*addresses, "192.0.2.1", "192.0.2.2", "new.example"]}
    assert [name for name, is_so in avoided.items() if is_so] == ["gate1.example", "192.0.2.1"]
    resolver.avoid(["gate2.example"])
    assert resolver.lookup("both.example")[-1] == "192.0.2.2"
    resolver.avoid([])
    assert resolver.lookup("both.example") == addresses["both.example"]


def test_a_wait_is_cut_short_by_a_wake_be_it_before_or_meanwhile() -> None:
    clock = SystemClock()
    for _ in range(3):
        clock.wake()
    assert clock.wait(HANGING)  # hangs if it is not
    assert not clock.wait(0)  # several at once are one
    thread = threading.Thread(target=clock.wake)
    thread.start()
    assert clock.wait(HANGING)
    thread.join(HANGING)


def test_names_are_remembered_all_at_once_and_few_addresses_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(3, timeout=HANGING)
    numbers = iter(range(1, 100))

    def fake(_host: str, _seconds: float) -> list[str]:
        together.wait()  # breaks, and fails the test, unless all three are asked at the same time
        return [f"192.0.2.{next(numbers)}" for _ in range(6)]

    monkeypatch.setattr("wgpeer.transport.resolve", fake)
    resolver = ResolverCache(lambda: 5.0)
    resolver.prefetch(["a.example", "b.example", "a.example", "c.example"])
    first = resolver.lookup("a.example")
    assert len(first) == 6
    together.reset()
    for name in ("a.example", "b.example", "c.example"):
        resolver.expire(name)
    resolver.prefetch(["a.example", "b.example", "c.example"])
    assert len(resolver.lookup("a.example")) == 8
    assert set(first[:2]) <= set(resolver.lookup("a.example"))
    resolver.prefetch([])


def test_an_unknown_name_has_no_answer(transport: HttpTransport) -> None:
    with pytest.raises(NoResponse, match="no address"):
        transport.send("https://nowhere.invalid", REQUEST, HANGING)
