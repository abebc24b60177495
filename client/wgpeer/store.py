"""All that is on disk: profiles, factor tokens, the device key, the state of running profiles. Directories have mode
0700, files 0600."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wgpeer.importer import SUFFIX
from wgpeer.profile import Profile, ProfileError, parse, render

# Safe in a file name, for a shell, and in the name of a systemd unit.
_UNSAFE = re.compile(r"[^A-Za-z0-9._@-]+")


class StoreError(Exception):
    """Something on disk is missing or in the way. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Store:
    """The directory that holds everything.

    profiles/NAME.ovpn          the profiles
    run/NAME.lock               held while the profile is up
    run/NAME.status.json        see ``status``
    run/NAME.recovery.json      (and NAME~) what a tunnel has changed on this machine, see ``tunnel.linux``
    state/NAME.token.json       the factor token
    logs/NAME.log
    device.key                  this machine's key, in PEM; or
    device.tpm.json             the same as its TPM has wrapped it, see ``device_key``
    """

    root: Path

    @classmethod
    def open(cls, root: Path) -> Store:
        """Make the directories where they are missing, and close them to other users. Raises ``StoreError``, also when
        the directory belongs to another user."""
        store = cls(root.absolute())
        try:
            for directory in (store.root, store.profiles, store.run, store.state, store.logs):
                directory.mkdir(mode=0o700, parents=directory == store.root, exist_ok=True)
            seen = store.root.stat()
        except OSError as error:
            raise StoreError(f"{store.root} cannot be used ({error.strerror}); use sudo, or --dir") from error
        if seen.st_uid != os.geteuid():
            raise StoreError(f"{store.root} belongs to another user")
        if seen.st_mode & 0o077:
            store.root.chmod(0o700)
        return store

    @property
    def profiles(self) -> Path:
        return self.root / "profiles"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def names(self) -> list[str]:
        """Names of the profiles, sorted."""
        return sorted(path.name.removesuffix(SUFFIX) for path in self.profiles.glob(f"*{SUFFIX}"))

    def add(self, file_name: str, profile: Profile) -> str:
        """Save a profile and return its name, made from ``file_name``. A profile of the same organization, user and
        server is replaced. Raises ``StoreError``."""
        wanted = _UNSAFE.sub("_", file_name.removesuffix(SUFFIX)).strip("._-")[:100] or "profile"
        name, number = wanted, 1
        taken = {other: self.load(other).ids for other in self.names()}
        same = [other for other, ids in taken.items() if ids == profile.ids]
        if same:
            name = same[0]
        while name in taken and taken[name] != profile.ids:
            number += 1
            name = f"{wanted}-{number}"
        self.save(name, profile)
        return name

    def save(self, name: str, profile: Profile) -> None:
        """Write a profile, whole or not at all."""
        write_file(self.profiles / f"{name}{SUFFIX}", render(profile))

    def load(self, name: str) -> Profile:
        """A profile by its whole name. Raises ``StoreError``."""
        try:
            return parse((self.profiles / f"{name}{SUFFIX}").read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"the profile {name} cannot be read") from error
        except ProfileError as error:
            raise StoreError(f"the profile {name} cannot be used: {error}") from error

    def find(self, wanted: str | None) -> str:
        """The whole name of the profile that a name, or the beginning of one, means; None means the only profile there
        is. Raises ``StoreError``."""
        names = self.names()
        if not names:
            raise StoreError("there is no profile yet; add one with: wgpeer add LINK")
        if wanted is None:
            if len(names) > 1:
                raise StoreError("there are several profiles, say which: " + ", ".join(names))
            return names[0]
        matches = [wanted] if wanted in names else [name for name in names if name.startswith(wanted)]
        if len(matches) != 1:
            problem = "no profile" if not matches else "more than one profile"
            raise StoreError(f"{problem} of that name; there are: " + ", ".join(names))
        return matches[0]

    def remove(self, name: str) -> None:
        """Forget a profile and all that belongs to it."""
        (self.profiles / f"{name}{SUFFIX}").unlink(missing_ok=True)
        for path in (self.token_path(name), self.status_path(name), self.recovery_path(name)):
            path.unlink(missing_ok=True)
        for path in self.logs.glob(f"{name}.log*"):
            path.unlink()

    def token_path(self, name: str) -> Path:
        return self.state / f"{name}.token.json"

    def status_path(self, name: str) -> Path:
        return self.run / f"{name}.status.json"

    def recovery_path(self, name: str) -> Path:
        return self.run / f"{name}.recovery.json"

    def log_path(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def lock_path(self, name: str) -> Path:
        return self.run / f"{name}.lock"

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Hold this while taking or testing the lock of a profile. Testing means taking it for a moment: without the
        guard, a process that starts at that moment would believe that the profile is up already."""
        handle = os.open(self.run / "guard", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    @property
    def file_key_path(self) -> Path:
        return self.root / "device.key"

    @property
    def tpm_key_path(self) -> Path:
        return self.root / "device.tpm.json"


def write_file(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a file of mode 0600, whole or not at all; with ``durable`` also when the power fails. Raises
    ``OSError``."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of ours, empty when the file is missing or damaged."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def is_locked(path: Path) -> bool:
    """Whether a process holds this lock."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold a lock: gives True, or False where another process has it. The kernel releases it however this process
    ends."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)
