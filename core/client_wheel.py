"""The wheel of the client that this server offers to users. Without Django: the supervising side, which makes it, shows
it as well."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Wheel:
    """``name`` is that of the file, which pip wants to be as it is; ``sha256`` is hexadecimal."""

    name: str
    data: bytes = field(repr=False)
    sha256: str


def offered(directory: Path) -> Wheel | None:
    """None where there is none: a server that runs from no checkout has no client to offer."""
    try:
        found = max(directory.glob("*.whl"), key=lambda path: path.stat().st_mtime_ns, default=None)
        return _read(found, found.stat().st_mtime_ns) if found else None
    except OSError:
        return None


@lru_cache(maxsize=1)
def _read(path: Path, changed: int) -> Wheel:
    """Read anew when the file is another one."""
    data = path.read_bytes()
    return Wheel(path.name, data, hashlib.sha256(data).hexdigest())
