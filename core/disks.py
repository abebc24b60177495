"""Whether a disk takes what is to be written. Without Django: the supervising side asks it as well."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

# A disk with less left is as good as full: what writes a lot, such as a database's log, fails before it is at nothing.
LEAST_SHARE, LEAST_BYTES = 0.02, 64 * 2**20
LEAST_INODES = 16


def faults(paths: Iterable[Path]) -> list[str]:
    """What is wrong with the disks on which ``paths`` are, one line a disk. What may not be looked at is left out."""
    seen: set[int] = set()
    found = []
    for path in paths:
        try:
            device, fault = path.stat().st_dev, fault_of(path)
        except OSError:
            continue
        if fault and device not in seen:
            found.append(f"The disk of {path} {fault}.")
        seen.add(device)
    return found


def fault_of(path: Path) -> str:
    """What is wrong with the disk of ``path``, to follow its name; empty where nothing is. Raise ``OSError``."""
    disk = os.statvfs(path)
    if disk.f_flag & os.ST_RDONLY:
        return "is read-only"
    left, all_of_it = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    if left < min(LEAST_BYTES, LEAST_SHARE * all_of_it):
        return f"is full ({left // 2**20} MB left)"
    # Some have no number of inodes, but make them as they are needed.
    if disk.f_files and disk.f_favail < min(LEAST_INODES, LEAST_SHARE * disk.f_files):
        return "has no inodes left: too many files"
    return ""
