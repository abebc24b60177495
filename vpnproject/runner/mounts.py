"""A mount namespace of our own, in which checkout and ``var`` are also where everybody may pass.

A checkout below ``/root`` is out of reach for the programs' users: they may not enter ``/root``. So ``bin/run`` leaves
the machine's mount namespace for a copy of it and binds both below ``/run/vpn``, the checkout read-only. All that is
started from there inherits it. The machine's own table of mounts has none of it, and when the last process of ours has
ended, it is gone. What is in the directories is the same: a socket or file is reached by either path.
"""

from __future__ import annotations

import ctypes
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .console import RunError

HOMES = Path("/run/vpn")
# Of linux/sched.h and linux/mount.h. Python has unshare from 3.12 on.
CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = 1, 2, 4, 32, 4096, 16384, 1 << 19
MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class House:
    """Where the programs find what is theirs. ``outer`` is ``var`` by its own path."""

    home: Path
    project: Path
    outer: Path

    @property
    def code(self) -> Path:
        return self.home / "code"

    @property
    def var(self) -> Path:
        return self.home / "var"

    @property
    def host_side(self) -> Path:
        """In the place of ``var`` for the host worker: it has the directories ``host`` and ``redis`` alone."""
        return self.home / "host"

    def hidden(self) -> list[Path]:
        """Every path by which ``var`` is reached."""
        inside = self.outer.is_relative_to(self.project)
        return [self.var, self.outer, *([self.code / self.outer.relative_to(self.project)] if inside else [])]

    def bound(self) -> list[tuple[Path, Path, int]]:
        return [
            (self.project, self.code, MS_RDONLY | MS_NOSUID | MS_NODEV),
            (self.outer, self.var, MS_NOSUID | MS_NODEV),
            *((self.outer / name, self.host_side / name, MS_NOSUID | MS_NODEV) for name in ("host", "redis")),
        ]


def house(instance: str, project: Path, var: Path) -> House:
    return House(HOMES / instance, project, var)


def enter(house: House) -> None:
    """Leave the machine's mount namespace, and make what ``house`` says. The caller has one thread."""
    try:
        _done(_libc.unshare(CLONE_NEWNS), "/")
        # What the machine mounts later is seen here too, and nothing of ours out there.
        _mount(None, Path("/"), MS_REC | MS_SLAVE)
        build(house)
    except OSError as error:
        raise RunError(
            f"A mount namespace of our own cannot be made ({error.filename}: {error.strerror}). "
            "In a container, let it have the capability SYS_ADMIN."
        ) from None


def build(house: House) -> None:
    """Make it in the mount namespace that we are in."""
    for directory in _directories(house):
        _make(directory)
    for source, target, flags in house.bound():
        _mount(source, target, MS_BIND | MS_REC)
        _mount(None, target, MS_REMOUNT | MS_BIND | flags)


def leave(house: House) -> None:
    """Take down what ``enter`` made."""
    for _source, target, _flags in reversed(house.bound()):
        _libc.umount2(os.fsencode(target), MNT_DETACH)
    for directory in reversed(_directories(house)):
        with suppress(OSError):  # another installation's is in it
            directory.rmdir()


def lives_in(house: House, pid: int) -> bool:
    """Whether the process ``pid`` sees this very checkout and ``var`` in its house: not those of an older release, nor
    directories that have been replaced since."""
    root = Path(f"/proc/{pid}/root")
    try:
        return all(
            os.path.samestat(os.stat(root / target.relative_to("/")), os.stat(source))
            for source, target, _flags in house.bound()
        )
    except OSError:
        return False


def closed_to_others(path: Path) -> Path | None:
    """The first directory on the way to ``path``, or ``path`` itself, that others than root may not pass."""
    real = path.resolve()
    for each in [*reversed(real.parents), real]:
        if not each.stat().st_mode & stat.S_IXOTH:
            return each
    return None


def _directories(house: House) -> list[Path]:
    return [HOMES, house.home, house.host_side, *(target for _source, target, _flags in house.bound())]


def _make(directory: Path) -> None:
    try:
        directory.mkdir()
    except FileExistsError:
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0:
            raise RunError(f"{directory} is not a directory of root's.") from None
    else:
        directory.chmod(0o755)  # whatever our umask


def _mount(source: Path | None, target: Path, flags: int) -> None:
    origin = None if source is None else os.fsencode(source)
    _done(_libc.mount(origin, os.fsencode(target), None, ctypes.c_ulong(flags), None), target)


def _done(result: int, where: Path | str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(where))
