"""Clients with names on a host, and the DNS of the world around it."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from servers.hostnet.state import Dns, RemovePeers, Split
from tests.dnsclient import NOERROR, NXDOMAIN, Answer, lookup
from tests.host.conftest import World
from tests.lab import ONE_TRY, KeyPair, Machine, Tunnel, until

GATEWAY, GATEWAY6, OTHER_GATEWAY = "10.9.0.1", "fd01::1", "10.10.0.1"
TLS_NAME = "dns.test-company.example"
UPSTREAM = "198.51.100.254"
# What the world's DNS knows. It also has a name in our zone, so that it is seen when that is asked for out there.
WORLDWIDE = [
    "www.example.org. A 192.0.2.80",
    "private.example.org. A 192.168.3.3",
    "intern.corp.example. A 192.0.2.66",
    "leak.vpn. A 192.0.2.99",
    "200.0.9.10.in-addr.arpa. PTR leak.example.",
    "7.7.168.192.in-addr.arpa. PTR printer.example.",
]
INTERNAL = ["intern.corp.example. A 10.50.0.7", "intern.corp.example. AAAA fd77::7"]
PLAIN = Dns("vpn", (UPSTREAM,), "", (Split("corp.example", ("10.50.0.2",)),))


@dataclass
class Scene:
    """Alice and Bob are on server one with names, Charlie is on server two. All send everything into the tunnel."""

    world: World
    alice: Machine
    bob: Machine
    charlie: Machine
    lan: Machine

    @property
    def host(self) -> Machine:
        return self.world.host

    def ask(self, name: str, kind: str = "A") -> Answer | None:
        return lookup(self.alice, GATEWAY, name, kind)

    def soon(self, name: str, expected: Answer) -> None:
        """Wait until the answer is ``expected``."""
        until(lambda: lookup(self.alice, GATEWAY, name, timeout=ONE_TRY) == expected)

    def charlie_has_names(self) -> None:
        """Wait until Charlie's server answers him."""
        own = known("10.10.0.13")
        until(lambda: lookup(self.charlie, OTHER_GATEWAY, "charlie.acme.vpn", timeout=ONE_TRY) == own)

    def set_dns(self, server: str, dns: Dns | None) -> None:
        self.world.interfaces[server] = dataclasses.replace(self.world.interfaces[server], dns=dns)
        self.world.send_full()

    def reported_error(self) -> str:
        """What the host reports with the next full state."""
        self.world.version += 1
        self.world.control.send(self.world.state())
        report = self.world.control.report("applied", version=self.world.version)
        return "; ".join(each["text"] for each in report["conditions"])

    def serving(self) -> list[int]:
        """Pids of unbound on the host."""
        return [pid for pid in self.host.processes() if b"/etc/unbound/vpn/" in command_line(pid)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def known(*data: str) -> Answer:
    return Answer(NOERROR, frozenset(data))


UNKNOWN = Answer(NXDOMAIN)


def named(world: World, server: str, connection: str, name: str, *addresses: str) -> tuple[str, KeyPair]:
    """A connect of a client with names; the host's answer."""
    keys = KeyPair.make()
    allowed = (f"{address}/{128 if ':' in address else 32}" for address in addresses)
    peer = world.make_peer(server, connection, *allowed, keys=keys)
    peer = dataclasses.replace(peer, names=(name, name.partition(".")[2]))
    world.peers[connection] = (server, peer)
    return world.control.add(server, peer), keys


def end(world: World, connection: str) -> None:
    del world.peers[connection]
    world.version += 1
    world.control.send(RemovePeers(world.version, (connection,)))


def tunnel(scene: World, client: Machine, server: str, keys: KeyPair, *addresses: str) -> None:
    made = Tunnel(client, keys, [f"{each}/{64 if ':' in each else 24}" for each in addresses])
    routes = ["10.9.0.0/24", "10.10.0.0/24", "10.50.0.0/24", "fd01::/64"]
    port = scene.interfaces[server].port
    made.connect(scene.keys[server], f"{scene.host.address}:{port}", routes)


@contextmanager
def bound(where: Machine, file: Path, over: str) -> Iterator[None]:
    """``file`` in the place of ``over``, for that machine only."""
    where.run("mount", "--bind", file, over)
    try:
        yield
    finally:
        where.run("umount", over)


def make_certificate(directory: Path) -> tuple[Path, Path, Path]:
    """A CA bundle, a certificate of that CA for ``TLS_NAME``, and its key."""
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def make(subject: str, its: ec.EllipticCurvePrivateKey, *, ca: bool) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name("Test CA"))
        builder = builder.public_key(its.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if not ca:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
        return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    contents: dict[str, bytes] = {
        "bundle.pem": make("Test CA", authority, ca=True),
        "certificate.pem": make(TLS_NAME, key, ca=False),
        "key.pem": key.private_bytes(pem, form, serialization.NoEncryption()),
    }
    for file, content in contents.items():
        (directory / file).write_bytes(content)
    return directory / "bundle.pem", directory / "certificate.pem", directory / "key.pem"
