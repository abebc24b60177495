"""The last known mesh, in a file: after a reboot the way to Redis leads through it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
from pathlib import Path

from servers.hostnet.state import Mesh, mesh_from_json, mesh_to_json

log = logging.getLogger("hostnet.mesh")


def path_in(var: Path) -> Path:
    return var / "mesh.json"


def key_in(var: Path) -> Path:
    """The private key of this machine in the mesh."""
    return var / "mesh_key"


def load(path: Path) -> Mesh | None:
    """None where there is none, or where it cannot be read: then whoever made it must make it again."""
    try:
        return mesh_from_json(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.error("%s cannot be read (%s)", path, type(error).__name__)
        return None


def save(path: Path, mesh: Mesh) -> None:
    """Nothing is written where it says so already."""
    text = json.dumps(mesh_to_json(mesh), indent=1)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.read_text() == text:
            return
    write_private(path, text)


def forget(path: Path) -> None:
    path.unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` in one step by a file that only its owner reads."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
