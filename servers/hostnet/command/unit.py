"""The worker of a joined machine as a service of systemd, with no more of the machine than it needs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from servers.hostnet.state import units
from servers.hostnet.state.privileges import CAPABILITIES

from .place import HostError, Place

NAME = "vpn-host.service"
UNITS = Path("/etc/systemd/system")
_SYSTEMCTL = "systemctl"
BOOTED = Path("/run/systemd/system")  # is there where systemd runs the machine (sd_booted)
_DIRECTORIES = "from servers.hostnet.dns import unbound; unbound.make_directories()"


def text(place: Place, python: Path, project: Path) -> str:
    """The unit's file. What the worker's unbound needs is made with all rights before it starts."""
    shut_in = units.shut_in(CAPABILITIES, (project, python), [place.directory])
    return f"""# Written by bin/host join.
[Unit]
Description=VPN host (WireGuard)
Wants=network-online.target
After=network-online.target nss-lookup.target
StartLimitIntervalSec=0

[Service]
Type=exec
WorkingDirectory={project}
EnvironmentFile={place.environment_file}
ExecStartPre=+{python} -c "{_DIRECTORIES}"
ExecStart={python} -m servers.hostnet
# Tunnels go on, and the next worker takes them over.
{units.PROCESSES}
TimeoutStopSec=60
Restart=always
RestartSec=3

{shut_in}

[Install]
WantedBy=multi-user.target
"""


def install(place: Place, python: Path, project: Path, directory: Path = UNITS) -> bool:
    """Write the unit and have systemd start it, anew where it runs. Whether systemd runs here."""
    if not directory.is_dir():
        return False
    path = directory / NAME
    path.write_text(text(place, python, project))
    path.chmod(0o644)
    if not BOOTED.exists():
        return False
    for words in (("daemon-reload",), ("enable", NAME), ("restart", NAME)):
        _systemctl(*words)
    return True


def remove(directory: Path = UNITS) -> None:
    """Stop and forget the service, if there is one. Its tunnels stay."""
    path = directory / NAME
    if not path.exists():
        return
    if BOOTED.exists():
        _systemctl("disable", "--now", NAME)
    path.unlink()
    if BOOTED.exists():
        _systemctl("daemon-reload")


def _systemctl(*words: str) -> None:
    done = subprocess.run([_SYSTEMCTL, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(f"systemctl {' '.join(words)} failed: {done.stderr.strip()}")
