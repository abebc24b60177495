"""Networks of namespaces on one machine, for tests and demonstrations. Needs root.

    with Lab() as lab:
        host, client = lab.add_host(), lab.add_client()
        lan = lab.add_lan(host)
        with Echo(lan, lan.address, 7000):
            answer = client.ask_tcp(lan.address, 7000)

A namespace here is a process that holds a network and a mount namespace, not a file. Whatever dies, be it the test
itself by SIGKILL, nothing stays behind: the processes in a namespace are found by it and ended. Each has a
``/run/wireguard`` of its own, because WireGuard's sockets are files, which network namespaces would share; so it
has unbound's directories and the front's.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import redis
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

T = TypeVar("T")

PROJECT = Path(__file__).resolve().parent.parent
# Time limits are this many times as long where the whole machine is emulated (tests/kernel).
PATIENCE = float(os.environ.get("LAB_PATIENCE", "1"))
# Seconds after which what is waited for is taken to hang. It judges no speed: a test that passes never waits so long,
# and however busy the machine is, this is enough.
HANGING = 120.0 * PATIENCE
# Seconds to wait for an answer that must not come, and for one that is asked for again and again until it comes.
NEVER, ONE_TRY = 0.3 * PATIENCE, 1.0 * PATIENCE
CLONE_NEWNET = 0x40000000
# Holds a namespace until its input ends, which it also does when we are killed; then it ends all else in there.
# No link waits for duplicates of its addresses: for that long, IPv6 would not work.
HOLDER = """
mount -t sysfs sysfs /sys && mkdir -p /run/wireguard && mount -t tmpfs tmpfs /run/wireguard &&
mkdir -p /etc/unbound /var/lib/unbound /var/lib/vpn-front &&
mount -t tmpfs -o mode=755 tmpfs /var/lib/vpn-front && mount -t tmpfs -o mode=755 tmpfs /etc/unbound &&
mount -t tmpfs -o mode=755 tmpfs /var/lib/unbound && ip link set lo up &&
sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 && echo ready && cat
network=$(readlink /proc/self/ns/net)
for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    [ "$(readlink "$process/ns/net")" = "$network" ] && [ "$pid" != $$ ] && kill -KILL "$pid"
done 2>/dev/null
"""
_libc = ctypes.CDLL(None, use_errno=True)


def until(condition: Callable[[], T], timeout: float = HANGING, every: float = 0.02) -> T:
    """Ask ``condition`` until its answer is true, and return that; raise ``TimeoutError`` after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise TimeoutError(f"not so within {timeout:g} s: {getattr(condition, '__name__', condition)}")
        time.sleep(every)


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


class Machine(Namespace):
    """A namespace on the lab's internet or on a LAN: ``interface`` has ``address`` and ``address6``."""

    def __init__(self, name: str, interface: str, address: str, address6: str) -> None:
        super().__init__(name)
        self.interface = interface
        self.address = address
        self.address6 = address6


class Lab:
    """An internet (one bridge, 198.51.100.0/24 and 2001:db8:1::/64) with what is added to it; closed with all of it.

    The internet itself is the machine ``internet`` (198.51.100.254), so there is somebody to talk to out there.
    """

    def __init__(self) -> None:
        self._closing = contextlib.ExitStack()
        self._tag = secrets.token_hex(3)
        self._hosts = self._clients = self._ports = 0
        self.internet = Machine(f"internet-{self._tag}", "br0", "198.51.100.254", "2001:db8:1::fe")

    def __enter__(self) -> Self:
        self._closing.callback(self.internet.close)
        try:
            self.internet.ip("link", "add", "br0", "type", "bridge")
            _configure(self.internet, 24)
        except BaseException:
            self._closing.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def add_host(self) -> Machine:
        """A VPN host: ``wan`` is on the internet (198.51.100.1, next .2)."""
        self._hosts += 1
        return self._on_internet("host", "wan", self._hosts)

    def add_client(self) -> Machine:
        """A client machine: ``eth0`` is on the internet (198.51.100.11, next .12)."""
        self._clients += 1
        return self._on_internet("client", "eth0", 10 + self._clients)

    def add_lan(self, host: Machine, number: int = 50, *, routed: bool = False) -> Machine:
        """A machine (10.<number>.0.2, 2001:db8:<number>::2) on a network behind ``host``'s ``lan<number>``.

        It knows no way out of its network unless ``routed``, where it sends everything to ``host``: without that,
        an answer to a client can only come back when the host masquerades.
        """
        machine = Machine(f"lan{number}-{self._tag}", "eth0", f"10.{number}.0.2", f"2001:db8:{number}::2")
        self._closing.callback(machine.close)
        side = f"lan{number}"
        _veth(host, side, machine, "eth0")
        _configure(machine, 24)
        host.ip("addr", "add", f"10.{number}.0.1/24", "dev", side)
        host.ip("addr", "add", f"2001:db8:{number}::1/64", "dev", side, "nodad")
        host.ip("link", "set", side, "up")
        if routed:
            machine.ip("route", "add", "default", "via", f"10.{number}.0.1")
            machine.ip("route", "add", "default", "via", f"2001:db8:{number}::1")
        return machine

    def add_behind(self, client: Machine, number: int) -> Machine:
        """A machine on a network behind ``client``, which routes for it; addresses are those of ``add_lan``."""
        machine = self.add_lan(client, number, routed=True)
        client.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        return machine

    def add_far_address(self, *addresses: str) -> None:
        """Give the machine ``internet`` further addresses, in no network that anybody else is on: (``203.0.113.9``)."""
        for address in addresses:
            length = 128 if ":" in address else 32
            self.internet.ip("addr", "add", f"{address}/{length}", "dev", "br0", *(["nodad"] if length == 128 else []))

    def _on_internet(self, kind: str, interface: str, number: int) -> Machine:
        name = f"{kind}{number}-{self._tag}"
        machine = Machine(name, interface, f"198.51.100.{number}", f"2001:db8:1::{number}")
        self._closing.callback(machine.close)
        self._ports += 1
        port = f"port{self._ports}"
        _veth(self.internet, port, machine, interface)
        self.internet.ip("link", "set", port, "master", "br0", "up")
        _configure(machine, 24)
        machine.ip("route", "add", "default", "via", self.internet.address)
        machine.ip("route", "add", "default", "via", self.internet.address6)
        return machine


def _veth(left: Namespace, left_name: str, right: Namespace, right_name: str) -> None:
    left.ip("link", "add", left_name, "type", "veth", "peer", "name", right_name, "netns", str(right.pid))


def _configure(machine: Machine, length: int) -> None:
    machine.ip("addr", "add", f"{machine.address}/{length}", "dev", machine.interface)
    machine.ip("addr", "add", f"{machine.address6}/64", "dev", machine.interface, "nodad")
    machine.ip("link", "set", machine.interface, "up")


class Echo:
    """A TCP and UDP server in ``where``: answers with the sender's address, a space, and what it was sent.

    ``seen`` is what it was sent, each datagram or piece of a stream.
    """

    def __init__(self, where: Namespace, address: str, port: int) -> None:
        self.seen: list[bytes] = []
        self._tcp = where.socket(address, socket.SOCK_STREAM)
        self._udp = where.socket(address, socket.SOCK_DGRAM)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for each in (self._tcp, self._udp):
            if ":" in address:  # so that another server may have the same port on IPv4
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            each.bind((address, port))
        self._tcp.listen()
        self._threads = [threading.Thread(target=turn, daemon=True) for turn in (self._serve_tcp, self._serve_udp)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._tcp, self._udp):
            # Closing alone would not wake the thread that waits in it.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(HANGING)

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, sender = self._tcp.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection, sender[0]), daemon=True).start()

    def _answer(self, connection: socket.socket, sender: str) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                self.seen.append(data)
                connection.sendall(sender.encode() + b" " + data)

    def _serve_udp(self) -> None:
        while True:
            try:
                data, sender = self._udp.recvfrom(65536)
                if not data and sender is None:
                    return
                self.seen.append(data)
                self._udp.sendto(sender[0].encode() + b" " + data, sender)
            except (OSError, TypeError):  # closed; a shut down socket may also give an empty datagram from nobody
                return


class Pinger:
    """Pings ``address`` (IPv4) from ``where`` all the time it is entered. Afterwards ``sent`` says how often, and
    ``lost`` how many of these never got an answer, however late.

    Packets on one way do not overtake each other. So at the end it pings on until one more is answered: what has no
    answer by then gets none.
    """

    def __init__(self, where: Namespace, address: str, every: float = 0.02) -> None:
        self.sent = self.lost = 0
        self._where = where
        self._address = address
        self._every = every
        self._identifier = secrets.randbits(16)
        self._sequence = 0
        self._answered: set[int] = set()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._socket = self._where.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
        self._socket.connect((self._address, 0))
        until(self._answers_after(0))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ending.set()
        self._thread.join(HANGING)
        self.sent = self._sequence
        if kind is None:
            until(self._answers_after(self.sent))
        self._socket.close()
        self.lost = sum(number not in self._answered for number in range(1, self.sent + 1))

    def _run(self) -> None:
        while not self._ending.is_set():
            self._ping()

    def _answers_after(self, number: int) -> Callable[[], bool]:
        """Whether one more ping, or another one after that of this number, is answered."""

        def answers() -> bool:
            self._ping()
            return max(self._answered, default=0) > number

        return answers

    def _ping(self) -> None:
        """Send one, and note what is answered until the next one is due."""
        self._sequence += 1
        due = time.monotonic() + self._every
        with contextlib.suppress(OSError):  # nothing more came in time; or what the network says of an address
            self._socket.send(_echo_request(self._identifier, self._sequence))
            while (left := due - time.monotonic()) > 0:
                self._socket.settimeout(left)
                packet = self._socket.recv(2048)
                kind, _, _, identifier, sequence = struct.unpack_from("!BBHHH", packet, (packet[0] & 15) * 4)
                if (kind, identifier) == (0, self._identifier):
                    self._answered.add(sequence)


def _echo_request(identifier: int, sequence: int) -> bytes:
    """An ICMP echo request (RFC 792) without data."""
    checksum = 0xFFFF - ((8 << 8) + identifier + sequence) % 0xFFFF
    return struct.pack("!BBHHH", 8, 0, checksum, identifier, sequence)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A WireGuard key pair in standard base64."""

    private: str
    public: str

    @classmethod
    def make(cls) -> KeyPair:
        key = X25519PrivateKey.generate()
        raw = (key.private_bytes_raw(), key.public_key().public_bytes_raw())
        return cls(*(base64.b64encode(half).decode() for half in raw))


class Tunnel:
    """A client's WireGuard interface, by ``wireguard-go`` and ``wg``; no part of the project is used for it.

    With ``WG_BACKEND=kernel`` in the environment it is the kernel's own, beside which ``wireguard-go`` refuses to run.
    """

    def __init__(
        self, where: Namespace, keys: KeyPair, addresses: Sequence[str], name: str = "wgp0", mtu: int = 1420
    ) -> None:
        self._where = where
        self.name = name
        self.keys = keys
        if os.environ.get("WG_BACKEND") == "kernel":
            where.ip("link", "add", name, "type", "wireguard")
        else:
            where.run("wireguard-go", name)
        where.run("wg", "set", name, "private-key", "/proc/self/fd/0", text=keys.private)
        for address in addresses:
            where.ip("addr", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
        where.ip("link", "set", name, "up", "mtu", str(mtu))

    def connect(self, public_key: str, endpoint: str, routes: Sequence[str]) -> None:
        """Send ``routes`` to the peer ``public_key`` at ``endpoint`` (``address:port``)."""
        allowed = ["allowed-ips", ",".join(routes)]
        self._where.run("wg", "set", self.name, "peer", public_key, "endpoint", endpoint, *allowed)
        for route in routes:
            self._where.ip("route", "replace", route, "dev", self.name)

    def handshake(self) -> int:
        """Unix seconds of the last handshake, 0 when there was none."""
        times = self._where.run("wg", "show", self.name, "latest-handshakes").stdout.split()
        return int(times[-1]) if times else 0


class RedisServer:
    """A Redis of its own on a unix socket that every namespace reaches, keeping nothing on disk.

    ``users`` are further users, each as name and ACL rules: ``("alice", "on", ">secret", "~alice*", "+@all")``.
    """

    def __init__(self, users: Sequence[Sequence[str]] = ()) -> None:
        self._users = users
        self.directory = Path(tempfile.mkdtemp(prefix="lab-redis-"))
        self.socket = self.directory / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}?db=0"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.directory)

    def start(self) -> None:
        """Start it empty and wait until it answers."""
        options = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        for user in self._users:
            options += ["--user", *user]
        self._process = subprocess.Popen(
            # It dies with the thread that starts it, so that no killed test leaves one behind.
            ["setpriv", "--pdeathsig", "KILL", "redis-server", *options, "--dir", str(self.directory)],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        until(self._answers)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def kill(self) -> None:
        """SIGKILL: whatever it knew is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(HANGING)
            self._process = None

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, socket_timeout=2 * HANGING)  # longer than anybody waits in it


@contextlib.contextmanager
def ended_afterwards(
    process: subprocess.Popen[Any], timeout: float = 10.0 * PATIENCE
) -> Iterator[subprocess.Popen[Any]]:
    """Ask ``process`` to end (SIGTERM) on the way out; kill it when it does not within ``timeout`` seconds."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout)


PYTHON = Path(sys.executable)
