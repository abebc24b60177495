"""No test judges how fast the machine is, which another one or a busier hour would fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.time_limits import limits

ROOT = Path(__file__).resolve().parent.parent

# What may stay: the file and the source of each, and why it fails on no machine.
ALLOWED = {
    ("tests/lab/programs.py", "timeout: float"): "what has not ended by then is killed, and nobody asks which it was",
    (
        "tests/factories.py",
        "self._store.brpop([self.host.queue], timeout=0.05)",
    ): "asked again until it is told to stop",
    ("tests/kernel/only_kernel.py", "stop.wait(0.05)"): "the pace of what goes on beside the test",
    ("tests/strangers.py", "asyncio.sleep(PAUSE)"): "the pace of strangers who come back",
    (
        "tests/host/test_connect_storm.py",
        "threading.Event().wait(HELD)",
    ): "longer is just as good",
    ("tests/endurance/admin.py", "time.sleep(1)"): "the pace of somebody who tries again",
    (
        "tests/endurance/faults.py",
        "sqlite3.connect(self._database, timeout=LOCK_WITHIN, isolation_level=None, check_same_thread=False)",
    ): "a fault that does not come about is none",
    ("tests/endurance/run.py", "self._over.wait(LOOK_EVERY)"): "the pace of looking; less often is just as good",
    (
        "tests/vpnproject/test_redis_failover.py",
        "settings.CONFIRM_TIMEOUT = 1.0",
    ): "nothing is confirmed there; who waits that long in vain asks again",
    **{
        (f"tests/users/factors/benches/{name}.py", text): "the answer never comes, or is never believed"
        for name, text in (
            ("radius", "self.at(f'127.0.0.1:{free_port()}', timeout=1)"),
            ("radius", "self.answering(lambda request: [], timeout=1)"),
            ("radius", "self.answering(lambda request: [reply(request, secret='another')], timeout=1)"),
            ("ldap", "self.at(f'ldaps://{listener.host}', Authority.new().pem, timeout=1)"),
        )
    },
    ("tests/core/test_http.py", "threading.Event().wait(0.02)"): "the pace of a slow server; slower is just as good",
    ("client/tests/test_wgpeer_http.py", "time.sleep(0.05)"): "the pace of a slow server; slower is just as good",
    ("client/tests/wgpeer_wire.py", "tap.settimeout(0.1)"): "read again until it is told to stop",
    ("client/tests/wgpeer_wire.py", "self._ending.wait(0.003)"): "the pace of what goes on beside the test",
    ("client/tests/test_wgpeer_tpm.py", "time.sleep(0.02)"): "looked at again until it is so",
    ("client/tests/wgpeer_namespaces.py", "time.sleep(0.05)"): "looked at again until it is so",
    (
        "client/tests/test_wgpeer_linux_tunnel.py",
        "min((later - earlier for earlier, later in pairwise(seen))) < 5",
    ): "WireGuard's own pause; that one of five is shorter is enough",
}


def test_no_test_judges_the_speed_of_the_machine() -> None:
    files = [path for part in ("tests", "client/tests") for path in sorted((ROOT / part).rglob("*.py"))]
    assert len(files) > 150
    found = {
        (path.relative_to(ROOT).as_posix(), limit.text): limit.line
        for path in files
        if path != Path(__file__)
        for limit in limits(path.read_text())
    }
    assert {f"{name}:{found[name, text]}: {text}" for name, text in found.keys() - ALLOWED.keys()} == set()
    assert ALLOWED.keys() - found.keys() == set(), "no longer there, and so no longer to be allowed"


@pytest.mark.parametrize(
    "source",
    [
        "process.wait(5)",
        "process.wait(timeout=2 * PATIENCE)",
        "thread.join(1.5)",
        "connection.settimeout(0.5)",
        "future.result(10)",
        "time.sleep(0.1)",
        "until(ready, 5)",
        "subprocess.run(command, timeout=20)",
        "QUICK = 2 * 2.5\nqueue.get(timeout=QUICK)",
        "def wait(what, timeout=5): ...",
        "def wait(what, *, timeout=5.0): ...",
        "while time.monotonic() < start: ...\ndeadline = time.monotonic() + 5",
        "def test():\n    began = time.monotonic()\n    assert time.monotonic() - began < 5",
        "def test():\n    began = perf_counter()\n    elapsed = perf_counter() - began\n    assert 2 > elapsed",
        "def test():\n    seen = []\n    seen.append(time.time())\n    assert 0 < seen[-1] - seen[0] <= 20",
        "settings.CONFIRM_TIMEOUT = 3.0 if slow else 20.0",
        'monkeypatch.setattr(uapi, "SILENCE", 0.3)',
    ],
)
def test_a_small_limit_is_found(source: str) -> None:
    assert len(limits(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "process.wait(HANGING)",
        "process.wait(timeout=2 * HANGING)",
        "process.wait()",
        "subprocess.run(command, timeout=30)",
        "lock.acquire(timeout=0)",
        '", ".join(names)',
        "client.ask_tcp(address, 80, timeout=NEVER)",
        "server.ping_timeout = 5",
        "PING_TIMEOUT = 8",
        "def test():\n    began = time.monotonic()\n    assert time.monotonic() - began >= 5",
        "def test():\n    assert len(found) < 5",
        "settings.CONFIRM_TIMEOUT = HANGING",
    ],
)
def test_what_says_nothing_of_speed_is_none(source: str) -> None:
    assert limits(source) == []
