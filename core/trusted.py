"""What certificates of others are verified with. To read a system's takes longer than all else of a request, so a
process keeps what it has read, until one of the files changes.
"""

from __future__ import annotations

import os
import ssl
import threading
from functools import lru_cache

# Of authorities that administrators gave.
MOST = 32

# Which files, and what they are like: path, device, inode, size and time of the last change.
Stamp = tuple[tuple[str, int, int, int, int], ...]

_lock = threading.Lock()
# By whether they are strict.
_systems: dict[bool, tuple[Stamp, ssl.SSLContext]] = {}


def context(ca: str = "", *, strict: bool = True) -> ssl.SSLContext:
    """``ca``: certificates in PEM that are trusted in the place of the system's. ``strict``: False to take also what
    Python refuses from 3.13 on, and companies' own authorities often are. Not to be changed by whoever gets it. Raise
    ``ssl.SSLError``, ``ValueError``."""
    return _given(ca, strict) if ca else _system(strict)


def _system(strict: bool) -> ssl.SSLContext:
    # Before reading: what changes meanwhile is read by the next one.
    stamp = _stamp()
    with _lock:
        known = _systems.get(strict)
        if known is None or known[0] != stamp:
            known = _systems[strict] = (stamp, _made("", strict))
        return known[1]


@lru_cache(maxsize=MOST)
def _given(ca: str, strict: bool) -> ssl.SSLContext:
    return _made(ca, strict)


def _made(ca: str, strict: bool) -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=ca or None)
    if not strict:
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return made


def _stamp() -> Stamp:
    paths = ssl.get_default_verify_paths()
    found = []
    for path in filter(None, (paths.cafile, paths.capath)):
        try:
            told = os.stat(path)
        except OSError:
            continue  # it went this moment; without it is another stamp
        found.append((path, told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns))
    return tuple(found)
