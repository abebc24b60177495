"""What a further control node needs of the first: the secrets that they share, and the settings. Handed over in a box
(NaCl, Curve25519) between the keys of the two nodes, each of which was made on its node and stays there: nobody else
can open it, and nobody else can have made it.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from binascii import Error as NotBase64
from pathlib import Path
from typing import Any

from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey

from . import files, layout
from .console import RunError
from .programs import base_environment, django_environment

KEY = "node_key"
FORMAT = 1
# Files of ``var`` that are the same on every control node.
SECRETS = ("secret_key", "field_keys")


def node_key(var: Path) -> PrivateKey:
    """This node's key, made at the first call."""
    path = var / KEY
    if not path.exists():
        var.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.write_private(path, base64.b64encode(bytes(PrivateKey.generate())) + b"\n")
    return PrivateKey(_decoded(path.read_text(), f"{path} is damaged"))


def public_key(var: Path) -> str:
    return base64.b64encode(bytes(node_key(var).public_key)).decode()


def export_secrets(var: Path, project: Path, to: str) -> str:
    """What the node with the public key ``to`` needs, as text that only it can read. ``RunError`` where a second
    control node could not work here at all."""
    theirs = _public(to)
    if bytes(theirs) == bytes(node_key(var).public_key):
        raise RunError("This is this node's own key. Give the key that the new node says with --node-key.")
    data = {"format": FORMAT, **_all_of_it(var, project)}
    return base64.b64encode(Box(node_key(var), theirs).encrypt(json.dumps(data).encode())).decode()


def _all_of_it(var: Path, project: Path) -> dict[str, Any]:
    """Django knows, wherever settings say that a secret is."""
    done = subprocess.run(
        [sys.executable, "-B", "manage.py", "hand_over"],
        cwd=project,
        env={**base_environment(""), **django_environment(var)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise RunError(done.stdout.strip() or f"Django does not start: {last}")
    return dict(json.loads(done.stdout))


def import_secrets(var: Path, text: str, sender: str) -> list[str]:
    """Take what the node with the public key ``sender`` handed over; the names of the settings that came with it.
    ``RunError``, and nothing is changed, where it is not for this node or this machine has secrets already."""
    return take(var, _opened(var, text, sender))


def take(var: Path, data: dict[str, Any]) -> list[str]:
    """Put secrets and settings of another control node in their places; the names of the settings. ``RunError``, and
    nothing is changed, where this machine has others already."""
    _check_empty(var, data["secrets"])
    files.make_directories(var)
    for name, value in data["secrets"].items():
        files.write_private(var / name, value.encode() + b"\n", layout.FILES.get(name))
    files.set_settings(var / "settings.env", data["settings"])
    return sorted(data["settings"])


def _opened(var: Path, text: str, sender: str) -> dict[str, Any]:
    sealed = _decoded(text, "This is not what --export-secrets prints")
    try:
        data = json.loads(Box(node_key(var), _public(sender)).decrypt(sealed))
    except CryptoError:
        hint = "it is for another node, was not made by the one that --from names, or is damaged"
        raise RunError(f"This cannot be opened: {hint}.") from None
    if data.get("format") != FORMAT or set(data["secrets"]) != set(SECRETS):
        raise RunError("This was made by another release of this program: have both nodes on the same one.")
    return dict(data)


def _check_empty(var: Path, secrets: dict[str, str]) -> None:
    if (var / layout.DATABASE).exists():
        raise RunError(f"{var} has a database of its own, which other secrets could not read: give an empty --var.")
    for name, value in secrets.items():
        path = var / name
        if path.exists() and path.read_text().strip() != value:
            raise RunError(f"{path} is there already and another one: give an empty --var, or remove it.")


def _public(text: str) -> PublicKey:
    return PublicKey(_decoded(text, f"{text!r} is not the key of a node: 44 characters that --node-key prints"))


def _decoded(text: str, wrong: str) -> bytes:
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (NotBase64, ValueError):
        raw = b""
    if len(raw) < PublicKey.SIZE or (len(text.strip()) <= 44 and len(raw) != PublicKey.SIZE):
        raise RunError(f"{wrong}.")
    return raw
