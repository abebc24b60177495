"""The files under ``var/``: secrets, settings and what this machine chose. All are 0600, in a directory of 0700."""

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

from .console import RunError

# The longest path of a unix socket is 107 bytes (Linux, sockaddr_un); "supervisor.sock" is our longest name.
LONGEST_VAR = 107 - len("/supervisor.sock")
# Supervisor's configuration gives a meaning to other characters (%, ;, #, quotes).
_PLAIN_PATH = re.compile(r"[\w/.,:+@=-]+", re.ASCII)
_SETTING = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def check_path(path: Path) -> None:
    """Raise ``RunError`` for a path that supervisor's configuration or a unix socket could not carry."""
    if not _PLAIN_PATH.fullmatch(str(path)):
        raise RunError(f"The path {path} has a space or another special character; use one without.")
    if len(str(path).encode()) > LONGEST_VAR:
        raise RunError(f"The path {path} is too long for sockets in it: at most {LONGEST_VAR} bytes.")


def write_private(path: Path, data: bytes) -> None:
    """Replace ``path`` in one step: a reader, or a crash, finds the old content or the new, and only root reads it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
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
    """Make ``var`` and what is in it; returns the paths that others could read and that were closed to them."""
    var.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("log", "redis", "host", "beat"):
        (var / name).mkdir(exist_ok=True, mode=0o700)
    loose = open_to_others(var)
    for path in loose:
        path.chmod(0o700 if path.is_dir() else 0o600)
    return [str(path) for path in loose]


def open_to_others(var: Path) -> list[Path]:
    """``var`` and the files directly in it, and its directories, that group or others may use in any way."""
    if not var.is_dir():
        return []
    paths = [var, *var.iterdir()]
    return [path for path in paths if not path.is_symlink() and _private_kind(path) and path.stat().st_mode & 0o077]


def _private_kind(path: Path) -> bool:
    mode = path.stat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def make_secrets(var: Path) -> None:
    """Make the secrets that do not exist yet. One that exists is never replaced: the database depends on it."""
    makers: dict[str, Callable[[], str]] = {
        "secret_key": lambda: secrets.token_urlsafe(48),
        # A Fernet key: 32 random bytes in URL-safe base64.
        "field_keys": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "instance": lambda: secrets.token_hex(16),
    }
    for name, make in makers.items():
        path = var / name
        if not path.exists():
            if name == "field_keys" and (var / "db.sqlite3").exists():
                raise RunError(
                    f"{path} is missing, but the database that it decrypts is there: restore it from a backup."
                )
            write_private(path, make().encode() + b"\n")


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
    write_private(path, text.encode())
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
