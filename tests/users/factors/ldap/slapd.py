"""OpenLDAP's slapd, Debian's, on loopback ports: a real directory with StartTLS, LDAPS, nested groups and expired
passwords. It lets whoever has no password in as nobody, as many do."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.lab import HANGING, until
from tests.lab.sentinels import free_ports

PASSWORD = "open sesame"
OURS, OURS_PASSWORD = "cn=vpn,dc=example,dc=com", "our own secret"
PEOPLE, GROUPS = "ou=people,dc=example,dc=com", "ou=groups,dc=example,dc=com"

CONFIGURATION = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload ppolicy
pidfile {here}/pid
allow bind_anon_cred bind_anon_dn
TLSCACertificateFile {here}/ca.pem
TLSCertificateFile {here}/server.pem
TLSCertificateKeyFile {here}/server.key

database mdb
suffix dc=example,dc=com
rootdn cn=root,dc=example,dc=com
directory {here}/data
overlay ppolicy
ppolicy_default cn=policy,dc=example,dc=com
access to attrs=userPassword by anonymous auth by * none
access to * by users read
"""

ENTRIES = """
dn: dc=example,dc=com
objectClass: dcObject
objectClass: organization
o: Example

dn: cn=policy,dc=example,dc=com
objectClass: device
objectClass: pwdPolicy
pwdAttribute: userPassword
pwdMaxAge: 31536000

dn: {ours}
objectClass: organizationalRole
objectClass: simpleSecurityObject
userPassword: {ours_password}

dn: {people}
objectClass: organizationalUnit

dn: {groups}
objectClass: organizationalUnit

dn: ou=elsewhere,{people}
objectClass: referral
objectClass: extensibleObject
ref: ldap://{elsewhere}/ou=people,dc=example,dc=com
"""

PERSON = """
dn: {dn}
objectClass: inetOrgPerson
uid: {uid}
cn: {uid}
sn: {uid}
userPassword: {password}
{more}
"""


def person(uid: str, password: str = PASSWORD, more: str = "", rdn: str = "") -> str:
    dn = f"{rdn or f'uid={uid}'},{PEOPLE}"
    return PERSON.format(dn=dn, uid=uid, password=password, more=more)


def group(name: str, *members: str, unique: bool = False) -> str:
    kind, attribute = ("groupOfUniqueNames", "uniqueMember") if unique else ("groupOfNames", "member")
    lines = "\n".join(f"{attribute}: {member}" for member in members)
    return f"\ndn: cn={name},{GROUPS}\nobjectClass: {kind}\ncn: {name}\n{lines}\n"


def dn_of(uid: str) -> str:
    return f"uid={uid},{PEOPLE}"


def group_dn(name: str) -> str:
    return f"cn={name},{GROUPS}"


@dataclass(frozen=True)
class Authority:
    """Who signs certificates; ``pem`` is its own."""

    key: ec.EllipticCurvePrivateKey
    name: x509.Name
    pem: str

    @classmethod
    def new(cls) -> Authority:
        key, name = ec.generate_private_key(ec.SECP256R1()), _named("Test CA")
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        certificate = _builder(name, name, key, 30).add_extension(constraints, critical=True).sign(key, hashes.SHA256())
        return cls(key, name, certificate.public_bytes(serialization.Encoding.PEM).decode())

    def sign(self, host: str, days: int = 30) -> tuple[bytes, bytes]:
        """The certificate of a server and its key. ``days``: until its end, or since."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        certificate = _builder(_named(host), self.name, key, days).add_extension(names, critical=False)
        signed = certificate.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        plain = serialization.NoEncryption()
        return signed, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    end = datetime.now(UTC) + timedelta(days=days)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(end - timedelta(days=60)).not_valid_after(end)


class Slapd:
    """``ldap`` and ``ldaps``: where it answers. ``host``: whom its certificate is for; ``days``: until that ends."""

    def __init__(self, entries: str, host: str = "localhost", days: int = 30, elsewhere: str = "localhost:9") -> None:
        self.authority = Authority.new()
        self._here = Path(tempfile.mkdtemp(prefix="slapd-"))
        (self._here / "data").mkdir()
        certificate, key = self.authority.sign(host, days)
        (self._here / "server.pem").write_bytes(certificate)
        (self._here / "server.key").write_bytes(key)
        (self._here / "ca.pem").write_text(self.authority.pem)
        (self._here / "slapd.conf").write_text(CONFIGURATION.format(here=self._here))
        first = ENTRIES.format(
            ours=OURS, ours_password=OURS_PASSWORD, people=PEOPLE, groups=GROUPS, elsewhere=elsewhere
        )
        (self._here / "entries").write_text(first + entries)
        plain, encrypted = free_ports(2)
        self.ldap, self.ldaps = f"ldap://localhost:{plain}", f"ldaps://localhost:{encrypted}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        configuration = str(self._here / "slapd.conf")
        subprocess.run(
            ["slapadd", "-q", "-f", configuration, "-l", str(self._here / "entries")], check=True, timeout=HANGING
        )
        self._log = (self._here / "log").open("w+b")
        self._process = subprocess.Popen(
            ["slapd", "-d", "stats", "-f", configuration, "-h", f"{self.ldap}/ {self.ldaps}/"], stderr=self._log
        )
        until(lambda: "slapd starting" in self.log() or self._process_is_dead(), HANGING)
        assert not self._process_is_dead(), self.log()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(HANGING)
        self._log.close()
        shutil.rmtree(self._here)

    def log(self) -> str:
        """What it was asked."""
        return (self._here / "log").read_text()

    def binds(self, dn: str) -> int:
        """How often somebody tried to be ``dn``; it is written down before it is answered."""
        return self.log().count(f'BIND dn="{dn}" method=128')

    def _process_is_dead(self) -> bool:
        return self._process is None or self._process.poll() is not None
