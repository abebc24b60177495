"""Whose each thing in ``var`` is, and the handing over of a ``var`` in which all was root's.

Every start goes through it, so what a crash left undone is finished, and what root made by hand (a ``manage.py`` of an
administrator's) is given to whom it belongs. Root never trusts a name in a directory that another user writes: each
thing is opened first, never through a symbolic link, and what is looked at and changed is what was opened. A file with
a second name could be anybody's: it stops the start.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from .console import RunError
from .privileges import CONTROL, FRONT, REDIS, ROOT, gid, make_users, uid

DATABASE = Path("database", "db.sqlite3")
# Where releases before this one had it, and the files that SQLite keeps beside one.
_OLD_DATABASE = "db.sqlite3"
_BESIDE = ("", "-wal", "-shm")
_MOVING = ".database.moving"


@dataclass(frozen=True, slots=True)
class Place:
    """Owner, group and mode of a file or directory. ``whole``: with all that is in it, which is the owner's alone."""

    user: str = ROOT
    group: str = ROOT
    mode: int = 0o600
    whole: bool = False

    def of_a_file(self) -> Place:
        """For a file in this directory: who may look into it may read that."""
        return Place(self.user, self.group, self.mode & 0o640)


# Whoever speaks to Redis may pass ``var``; they see nothing of it but what is theirs.
VAR = Place(group=REDIS, mode=0o710)
DIRECTORIES: Mapping[str, Place] = MappingProxyType(
    {
        "log": Place(mode=0o700),
        "host": Place(mode=0o700),
        # Root writes it, and web reads it.
        "client": Place(group=CONTROL, mode=0o750),
        "database": Place(CONTROL, CONTROL, 0o700, whole=True),
        "static": Place(CONTROL, CONTROL, 0o700, whole=True),
        "redis": Place(REDIS, REDIS, 0o710, whole=True),
    }
)
FILES: Mapping[str, Place] = MappingProxyType(
    {
        "secret_key": Place(CONTROL, CONTROL),
        "field_keys": Place(CONTROL, CONTROL),
        "settings.env": Place(CONTROL, CONTROL),
        "redis_password": Place(CONTROL, CONTROL),
        "redis.conf": Place(REDIS, REDIS),
        # Public, and web reads it. The front gets copies of both: these here may be links to somewhere else.
        "certificate.pem": Place(mode=0o644),
        "certificate_key.pem": Place(FRONT, FRONT),
    }
)


def allowed_mode(var: Path, path: Path) -> int:
    """What ``path`` (``var``, or what is directly in it) may be to others at most."""
    place = VAR if path == var else DIRECTORIES.get(path.name) or FILES.get(path.name) or Place(mode=0o700)
    return place.mode


def settle(var: Path) -> None:
    """Make the directories, and give everything to whom it belongs. ``RunError`` for what somebody planted."""
    make_users()
    var.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _opened(var, os.O_DIRECTORY) as top:
        # From here on only root puts anything into it.
        _give(top, VAR, str(var))
        _move_database(var, top)
        for name, place in DIRECTORIES.items():
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=top)
            with _opened(var / name, os.O_DIRECTORY, top) as directory:
                if place.whole:
                    _give_all(directory, place, var / name)
                _give(directory, place, str(var / name))
        for name in FILES:
            give_file(var, name, top)
        _remove_leftovers(top)


def _remove_leftovers(top: int) -> None:
    """Of an older release: what is elsewhere now and made at every start, and a directory in which nothing was kept."""
    for name in ("nginx.conf", "redis.sock"):
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=top)
    with suppress(OSError):
        os.rmdir("beat", dir_fd=top)


def give_file(var: Path, name: str, top: int | None = None) -> None:
    """Give ``var / name`` to whom it belongs, if it is there. A symbolic link is the administrator's own matter: only
    root can have made it, and it is for root to follow."""
    with suppress(FileNotFoundError):
        if stat.S_ISLNK(os.lstat(name, dir_fd=top).st_mode if top is not None else (var / name).lstat().st_mode):
            return
        with _opened(var / name, 0, top) as file:
            _give(file, FILES[name], str(var / name))


def _move_database(var: Path, top: int) -> None:
    """Give the database a directory of its own, in which its user may make the files beside it. It appears there with
    all of them at once: without its log it would lack what was written last."""
    if not _is_there(_OLD_DATABASE, top) and not _is_there(_MOVING, top):
        return
    if _is_there("database", top):
        # An empty one is nobody's database yet.
        try:
            os.rmdir("database", dir_fd=top)
        except OSError:
            both = f"{var / _OLD_DATABASE} and {var / DATABASE}"
            raise RunError(f"There are two databases, {both}: remove one.") from None
    for name in (_OLD_DATABASE + suffix for suffix in _BESIDE):
        with suppress(FileNotFoundError):
            found = os.lstat(name, dir_fd=top)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise RunError(f"{var / name} is a link, or has another name too: have it there alone.")
    with suppress(FileExistsError):  # an earlier start did not get further
        os.mkdir(_MOVING, 0o700, dir_fd=top)
    for suffix in _BESIDE:
        with suppress(FileNotFoundError):
            os.rename(_OLD_DATABASE + suffix, f"{_MOVING}/db.sqlite3{suffix}", src_dir_fd=top, dst_dir_fd=top)
    os.rename(_MOVING, "database", src_dir_fd=top, dst_dir_fd=top)
    os.fsync(top)


def _is_there(name: str, top: int) -> bool:
    try:
        os.lstat(name, dir_fd=top)
    except FileNotFoundError:
        return False
    return True


def _give_all(top: int, place: Place, where: Path) -> None:
    """All that is below the directory ``top``. It may be written to by its owner meanwhile: what vanishes is let go."""
    for name in os.listdir(top):
        with suppress(FileNotFoundError):
            kind = stat.S_IFMT(os.lstat(name, dir_fd=top).st_mode)
            if kind == stat.S_IFSOCK:
                continue  # a program's own, made anew at its start
            if kind not in (stat.S_IFREG, stat.S_IFDIR):
                raise RunError(f"{where / name} is neither a file nor a directory: remove it.")
            with _opened(where / name, 0, top) as inner:
                kind = stat.S_IFMT(os.fstat(inner).st_mode)
                if kind == stat.S_IFDIR:
                    _give_all(inner, place, where / name)
                mode = 0o700 if kind == stat.S_IFDIR else 0o600
                _give(inner, Place(place.user, place.group, mode), str(where / name))


@contextmanager
def _opened(path: Path, flags: int, top: int | None = None) -> Iterator[int]:
    """``path``, or its last part in the directory ``top``; not through a symbolic link, not waiting for a pipe."""
    flags |= os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path if top is None else path.name, flags, dir_fd=top)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunError(f"{path} is not what it should be ({error.strerror}): look at it and remove it.") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _give(descriptor: int, place: Place, where: str) -> None:
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        raise RunError(f"{where} is one file with another one ({found.st_nlink} hard links): remove it, or the other.")
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        raise RunError(f"{where} is neither a file nor a directory: remove it.")
    owner = uid(place.user), gid(place.group)
    if found.st_uid not in (0, owner[0]):
        raise RunError(f"{where} belongs to user {found.st_uid}, who is neither root nor {place.user}: look at it.")
    if (found.st_uid, found.st_gid) != owner:
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode) & place.mode)  # nobody gains anything for a moment
        os.fchown(descriptor, *owner)
        os.fchmod(descriptor, place.mode)
    elif stat.S_IMODE(found.st_mode) != place.mode:
        os.fchmod(descriptor, place.mode)
