"""One machine of its own: a process that holds a network and a mount namespace."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from tests.lab.programs import PROJECT
from tests.lab.waiting import HANGING, ONE_TRY

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
# Holds a namespace until its input ends, which it also does when we are killed; then it ends all else in there.
# No link waits for duplicates of its addresses: for that long, IPv6 would not work. A UDP connection is tracked for ten
# minutes instead of half of one, which is less than a busy machine may take to look at it.
# A directory that is removed in one mount namespace takes along what is mounted on it in all others: so the machine's
# own have something in them, and whoever tidies up there leaves them.
HOLDER = """
mount -t sysfs sysfs /sys && mkdir -p /run/wireguard && mount -t tmpfs tmpfs /run/wireguard &&
mkdir -p /etc/unbound /var/lib/unbound /var/lib/vpn-front /run/vpn /run/vpn-gateway &&
for each in /var/lib/vpn-front /run/vpn /run/vpn-gateway /etc/unbound /var/lib/unbound; do
    : > "$each/.not-empty" && mount -t tmpfs -o mode=755 tmpfs "$each" || exit
done && chown unbound /var/lib/unbound && ip link set lo up &&
sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 &&
sysctl -qew net.netfilter.nf_conntrack_udp_timeout=600 net.netfilter.nf_conntrack_udp_timeout_stream=600 &&
echo ready && cat
network=$(readlink /proc/self/ns/net)
for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    [ "$(readlink "$process/ns/net")" = "$network" ] && [ "$pid" != $$ ] && kill -KILL "$pid"
done 2>/dev/null
"""
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A machine of its own: network, and mounts where they must differ. ``name`` is for people only."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", HOLDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            self._holder.kill()
            raise RuntimeError("cannot make a namespace: is this root?")
        self.pid = self._holder.pid

    # Commands

    def command(self, *arguments: str | Path, cwd: Path = PROJECT) -> list[str]:
        """The command line that runs ``arguments`` in here, from anywhere; Ctrl-C ends it also where tests ignore that,
        as they do when a shell started them in the background."""
        enter = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--"]
        return [*enter, "env", "--default-signal=INT", "-C", str(cwd), *(str(argument) for argument in arguments)]

    def run(self, *arguments: str | Path, check: bool = True, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in here to its end. ``text`` is its input. With ``check``, a failure shows what it said."""
        done = subprocess.run(
            self.command(*arguments), input=text, capture_output=True, text=True, timeout=HANGING, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(map(str, arguments))}: {done.stderr.strip() or done.stdout}")
        return done

    def start(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, log: Path | None = None, cwd: Path = PROJECT
    ) -> subprocess.Popen[bytes]:
        """Start a process in here; it ends with the namespace at the latest. Its output goes to ``log``.

        The process returned is the command itself: nsenter and env become it, so its pid may be signalled.
        """
        with open(log or os.devnull, "ab") as output:
            return subprocess.Popen(
                self.command(*arguments, cwd=cwd),
                env=None if env is None else {**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ip(self, *arguments: str) -> str:
        """Run ``ip`` in here; return what it prints."""
        return self.run("ip", *arguments).stdout

    # Sockets of this process that live in here

    def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` in a thread that is in this network; sockets it makes stay here wherever they are used."""
        results: list[T] = []
        errors: list[BaseException] = []

        def enter_and_run() -> None:
            try:
                with open(f"/proc/{self.pid}/ns/net") as network:
                    if _libc.setns(network.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                results.append(function())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=enter_and_run)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def socket(self, address: str, kind: int) -> socket.socket:
        """A socket in here, of the family of ``address``; ``kind`` is ``SOCK_STREAM`` or ``SOCK_DGRAM``."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return self.call(lambda: socket.socket(family, kind))

    def ask_tcp(
        self, address: str, port: int, data: bytes = b"hello", timeout: float = HANGING, source: str = ""
    ) -> bytes | None:
        """What a TCP server answers to ``data``; None when it cannot be reached within ``timeout`` seconds. ``source``
        is the address to ask from, where it matters."""
        with self.socket(address, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            try:
                if source:
                    connection.bind((source, 0))
                connection.connect((address, port))
                connection.sendall(data)
                return connection.recv(65536)
            except OSError:
                return None

    def ask_udp(
        self, address: str, port: int, data: bytes = b"hello", timeout: float = HANGING, source: str = ""
    ) -> bytes | None:
        """What a UDP server answers to ``data``, which is sent again every second; None when nothing comes within
        ``timeout`` seconds, or when a port is said to be closed."""
        deadline = time.monotonic() + timeout
        with self.socket(address, socket.SOCK_DGRAM) as connection:
            if source:
                connection.bind((source, 0))
            while (left := deadline - time.monotonic()) > 0:
                connection.settimeout(min(left, ONE_TRY))
                try:
                    connection.connect((address, port))
                    connection.send(data)
                    return connection.recv(65536)
                except TimeoutError:
                    continue
                except OSError:
                    return None
        return None

    def pings(self, address: str, timeout: float = HANGING) -> bool:
        """Whether an ICMP echo request is answered within ``timeout`` seconds; one is sent every second."""
        limit = f"-W{timeout:g}" if timeout < 1 else f"-w{timeout:.0f}"
        return self.run("ping", "-n", "-c1", limit, address, check=False).returncode == 0

    # What can be seen from outside

    def packets(self, interface: str) -> tuple[int, int]:
        """Packets that ``interface`` received and sent so far."""
        for line in Path(f"/proc/{self.pid}/net/dev").read_text().splitlines():
            name, _, counters = line.partition(":")
            if name.strip() == interface:
                fields = counters.split()
                return int(fields[1]), int(fields[9])
        raise LookupError(f"{self.name} has no interface {interface}")

    def processes(self) -> list[int]:
        """Pids of everything that runs in this network, the holder included."""
        ours = os.stat(f"/proc/{self.pid}/ns/net").st_ino
        return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if _network_of(pid) == ours]

    def close(self) -> None:
        """End every process in here, and with the last of them the namespace. May be called again."""
        if self._holder.poll() is None:
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._holder.wait(HANGING)
        for stream in (self._holder.stdin, self._holder.stdout):
            if stream is not None:
                stream.close()


def _network_of(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:  # it has just ended, or is a process that not even root may look at
        return 0
