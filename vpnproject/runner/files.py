"""The files under ``var/``: secrets, settings and what this machine chose. Whose each is: ``layout``."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import layout
from .console import RunError
from .privileges import gid, uid

# The longest path of a unix socket is 107 bytes (Linux, sockaddr_un); this is our longest name.
LONGEST_VAR = 107 - len("/redis/redis.sock")
# Supervisor's configuration gives a meaning to other characters (%, ;, #, quotes).
_PLAIN_PATH = re.compile(r"[\w/.,:+@=-]+", re.ASCII)
_SETTING = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def check_path(path: Path) -> None:
    """Raise ``RunError`` for a path that supervisor's configuration or a unix socket could not carry."""
    if not _PLAIN_PATH.fullmatch(str(path)):
        raise RunError(f"The path {path} has a space or another special character; use one without.")
    if len(str(path).encode()) > LONGEST_VAR:
        raise RunError(f"The path {path} is too long for sockets in it: at most {LONGEST_VAR} bytes.")


def write_private(path: Path, data: bytes, place: layout.Place | None = None) -> None:
    """Replace ``path`` in one step: a reader, or a crash, finds the old content or the new, and only its owner, root or
    as ``place`` says, ever reads it. The directory is one in which only root writes."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if place is not None:
                os.fchown(descriptor, uid(place.user), gid(place.group))
                os.fchmod(descriptor, place.mode)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directories(var: Path) -> list[str]:
    """Make ``var`` and what is in it, and give all of it to whom it belongs; returns the paths that others could use
    and that were closed to them."""
    loose = open_to_others(var)
    layout.settle(var)
    for path in loose:
        if path.name not in {*layout.FILES, *layout.DIRECTORIES} and path != var:
            path.chmod(0o700 if path.is_dir() else 0o600)
    return [str(path) for path in loose]


def open_to_others(var: Path) -> list[Path]:
    """``var`` and the files directly in it, and its directories, that group or others may use in a way that is not
    meant."""
    if not var.is_dir():
        return []
    paths = [path for path in (var, *var.iterdir()) if not path.is_symlink() and _private_kind(path)]
    return [path for path in paths if path.stat().st_mode & 0o077 & ~layout.allowed_mode(var, path)]


def _private_kind(path: Path) -> bool:
    mode = path.stat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def make_instance(var: Path) -> str:
    """The random name of the installation in ``var``, made at the first call."""
    path = var / "instance"
    if not path.exists():
        var.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, secrets.token_hex(16).encode() + b"\n")
    return path.read_text().strip()


def make_secrets(var: Path) -> None:
    """Make the secrets that do not exist yet. One that exists is never replaced: the database depends on it."""
    makers: dict[str, Callable[[], str]] = {
        "secret_key": lambda: secrets.token_urlsafe(48),
        # A Fernet key: 32 random bytes in URL-safe base64.
        "field_keys": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }
    for name, make in makers.items():
        path = var / name
        if not path.exists():
            if name == "field_keys" and (var / layout.DATABASE).exists():
                raise RunError(
                    f"{path} is missing, but the database that it decrypts is there: restore it from a backup."
                )
            write_private(path, make().encode() + b"\n", layout.FILES.get(name))


def read_settings(path: Path) -> dict[str, str]:
    """``KEY=value`` lines of a settings file; comments and empty lines are skipped. Empty without the file."""
    if not path.exists():
        return {}
    found = (_SETTING.fullmatch(line.strip()) for line in path.read_text().splitlines())
    return {match[1]: match[2].strip().strip("\"'") for match in found if match}


def set_settings(path: Path, values: Mapping[str, str]) -> bool:
    """Set these keys, keeping every other line as a person wrote it. Returns whether the file changed."""
    lines = path.read_text().splitlines() if path.exists() else ["# Settings of this server, KEY=value a line."]
    for key, value in values.items():
        if "\n" in value:
            raise RunError(f"{key} must be one line.")
        line = f"{key}={value}"
        places = [number for number, old in enumerate(lines) if old.strip().startswith(f"{key}=")]
        if places:
            lines[places[-1]] = line
        else:
            lines.append(line)
    text = "\n".join(lines) + "\n"
    if path.exists() and path.read_text() == text:
        return False
    write_private(path, text.encode(), layout.FILES.get(path.name))
    return True


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; empty when there is no such file. Raises ``RunError`` for a damaged one."""
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise RunError(f"{path} is damaged: it should be a JSON object. Remove it, and bin/run makes it anew.")
    return data


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    write_private(path, json.dumps(data, indent=2, sort_keys=True).encode() + b"\n")
