"""Real counterparts for YubiKeys: Debian's validation server, and the key's own part by libyubikey's ``ykgenerate``."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import HANGING, ended_afterwards, until

EMPTY = Path("/etc/yubiserver/yubiserver.sqlite.init")
API_KEY = "test-key-0123456789x"
AES = "000102030405060708090a0b0c0d0e0f"
PRIVATE = "112233445566"


@dataclass
class Key:
    """A YubiKey: each touch types the next one-time password."""

    public: str
    touches: int = field(default=0)

    def touch(self) -> str:
        self.touches += 1
        # Plugged in anew after 250 touches: what counts those is one byte.
        plugged, use = divmod(self.touches, 250)
        values = [AES, PRIVATE, f"{5 + plugged:04x}", f"{0x100 + self.touches:04x}", "03", f"{use:02x}"]
        done = subprocess.run(["ykgenerate", *values], capture_output=True, text=True, check=True, timeout=HANGING)
        return self.public + done.stdout.strip()


@dataclass(frozen=True)
class Yubiserver:
    url: str
    client_id: str = "1"
    key: str = base64.b64encode(API_KEY.encode()).decode()


@contextmanager
def yubiserver(*keys: Key) -> Iterator[Yubiserver]:
    """It becomes a user of its own, so it gets a directory that this one may write to."""
    directory = Path(tempfile.mkdtemp(prefix="yubiserver-"))
    try:
        database, log = directory / "keys.sqlite", directory / "log"
        shutil.copy(EMPTY, database)
        for number, key in enumerate(keys):
            _admin(database, "-y", "-a", f"user{number}", key.public, PRIVATE, AES)
        _admin(database, "-p", "-a", "1", API_KEY)
        log.touch()
        for path, mode in ((directory, 0o777), (database, 0o666), (log, 0o666)):
            path.chmod(mode)
        port = _free_port()
        with _running(["yubiserver", "-d", str(database), "-l", str(log), "-p", str(port)]):
            until(lambda: _listens(port))
            yield Yubiserver(f"http://localhost:{port}/wsapi/2.0/verify")
    finally:
        shutil.rmtree(directory)


@contextmanager
def _running(command: list[str]) -> Iterator[None]:
    # It goes into the background by itself: a PID namespace of its own ends it together with our child.
    wrapped = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", '"$@"; exec sleep infinity', "sh", *command]
    process = subprocess.Popen(wrapped, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with ended_afterwards(process):
        yield


def _admin(database: Path, *words: str) -> None:
    command = ["yubiserver-admin", "-b", str(database), *words]
    subprocess.run(command, check=True, capture_output=True, timeout=HANGING)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
