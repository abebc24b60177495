"""What a joined machine keeps, all of it in one directory that only root enters."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers.hostnet.mesh import memory
from servers.hostnet.state import json_lines, mesh_from_json
from servers.hostnet.state.redis_urls import Login, with_login
from servers.hostnet.wireguard import keys
from servers.hostnet.wireguard.base import WireGuardError
from servers.hostnet.wireguard.fields import key_text

DIRECTORY = Path("/var/lib/vpn-host")


class HostError(Exception):
    """What keeps the command from going on, in words for whoever typed it."""


@dataclass(frozen=True, slots=True)
class Place:
    """``directory`` is the worker's HOST_VAR; the other files are in there as well."""

    directory: Path

    @property
    def environment_file(self) -> Path:
        return self.directory / "host.env"

    @property
    def about_file(self) -> Path:
        return self.directory / "host.json"

    def joined(self) -> bool:
        return self.environment_file.exists()

    def environment(self) -> dict[str, str]:
        """What the worker is started with. Raise ``HostError`` where this machine has not joined."""
        try:
            lines = self.environment_file.read_text().splitlines()
        except FileNotFoundError:
            raise HostError(f"This machine has joined nothing: there is no {self.environment_file}.") from None
        pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
        return {name: value for name, _, value in pairs}

    def about(self) -> dict[str, Any]:
        """For people: the host's name, and the address that it joined at."""
        try:
            data = json.loads(self.about_file.read_text())
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def private_key(self) -> tuple[bytes, bool]:
        """This machine's key in the mesh, and whether it is new. A new one is not kept yet."""
        path = memory.key_in(self.directory)
        if not path.exists():
            return keys.make_private(), True
        try:
            return keys.load_or_make(path), False
        except WireGuardError as error:
            raise HostError(str(error)) from None

    def keep(self, said: dict[str, Any], private: bytes, address: str) -> None:
        """Write down what the control side said. The environment comes last: with it the machine has joined."""
        mesh = mesh_from_json(said["mesh"])
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        memory.write_private(memory.key_in(self.directory), key_text(private) + "\n")
        memory.forget(memory.path_in(self.directory))
        memory.save(memory.path_in(self.directory), mesh)
        about = {"name": str(said["name"]), "address": address}
        memory.write_private(self.about_file, json.dumps(about) + "\n")
        values = {
            "HOST_ID": said["id"],
            "HOST_REDIS_URL": with_login(said["redis"], Login(said["redis_user"], said["redis_password"])),
            "HOST_VAR": self.directory,
            "HOSTNET_BACKEND": os.environ.get("HOSTNET_BACKEND", "auto"),
            "VPN_GATEWAY_PORT": int(said["web_port"]),
            "LOG_FORMAT": os.environ.get("LOG_FORMAT", json_lines.LINE),
        }
        text = "# Written by bin/host join. It holds a password.\n"
        memory.write_private(self.environment_file, text + "".join(f"{n}={value}\n" for n, value in values.items()))

    def forget(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def lock(self) -> int:
        """Take the place of the one worker, for as long as the descriptor is open, in this process or in the one that
        it becomes. Raise ``HostError`` where another one has it."""
        descriptor = os.open(self.directory / "run.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise HostError("bin/host run is running on this machine: end that one first.") from None
        return descriptor

    def check_idle(self) -> None:
        """Raise ``HostError`` while ``bin/host run`` runs."""
        if self.directory.is_dir():
            with contextlib.suppress(OSError):
                os.close(self.lock())
