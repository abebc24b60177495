"""What a heartbeat says of the machine. Read from files that cost nothing, however many peers there are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

PROC = Path("/proc/self/net")


def load() -> float:
    """How many programs wanted to run for each processor, over the last minute."""
    return round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)


def traffic(interfaces: Mapping[str, str], proc: Path = PROC) -> dict[str, tuple[int, int]]:
    """Bytes from clients and to clients since its interface was made, by server. ``interfaces``: names by server."""
    try:
        lines = (proc / "dev").read_text().splitlines()
    except OSError:
        return {}
    counts: dict[str, tuple[int, int]] = {}
    for line in lines[2:]:  # two of headings
        name, _, numbers = line.partition(":")
        fields = numbers.split()
        counts[name.strip()] = (int(fields[0]), int(fields[8]))
    return {server: counts[name] for server, name in interfaces.items() if name in counts}
