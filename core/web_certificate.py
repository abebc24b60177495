"""How long the certificate is good that web is served with. Without Django: the supervising side asks it as well."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

from cryptography import x509

# A certificate of a few days is renewed late: for such a one, it is said in the last third of its life.
SAID_BEFORE = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate is good, and whether nobody but its own key signed it."""

    begins: datetime
    ends: datetime
    self_signed: bool


def validity(certificate: Path) -> Validity | None:
    """None where it cannot be read."""
    try:
        status = certificate.stat()
        return _validity(certificate, status.st_ino, status.st_mtime_ns, status.st_size)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=1)
def _validity(certificate: Path, inode: int, changed: int, size: int) -> Validity:
    """Read anew when the file is another one."""
    read = x509.load_pem_x509_certificate(certificate.read_bytes())
    return Validity(read.not_valid_before_utc, read.not_valid_after_utc, read.issuer == read.subject)


def warning(certificate: Path, now: datetime) -> str:
    """What is wrong with it, or soon will be, and what to do; empty where it is good, or nobody can say."""
    found = validity(certificate)
    if found is None:
        return ""
    if now < found.begins:
        return (
            f"The certificate of this site is good from {found.begins:%Y-%m-%d} on only, by this machine's clock, so "
            "browsers and clients refuse it. Is the clock right?"
        )
    if found.ends - now > min(SAID_BEFORE, (found.ends - found.begins) / 3):
        return ""
    when = f"{'ended' if found.ends <= now else 'ends'} on {found.ends:%Y-%m-%d at %H:%M} UTC"
    if found.self_signed:
        todo = "bin/run renews it by itself a month before, and has not: is it running, and can it write into var/?"
    else:
        todo = "Renew it, and put certificate.pem and certificate_key.pem into var/: they are served within seconds."
    return f"The certificate of this site {when}: browsers and clients then refuse it. {todo}"
