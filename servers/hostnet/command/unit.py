"""The worker of a joined machine as a service of systemd, with no more of the machine than it needs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from servers.hostnet.state.privileges import CAPABILITIES

from .place import HostError, Place

NAME = "vpn-host.service"
UNITS = Path("/etc/systemd/system")
_SYSTEMCTL = "systemctl"
BOOTED = Path("/run/systemd/system")  # is there where systemd runs the machine (sd_booted)
_HOMES = tuple(map(Path, ("/home", "/root", "/run/user")))
_DIRECTORIES = "from servers.hostnet.dns import unbound; unbound.make_directories()"


def text(place: Place, python: Path, project: Path) -> str:
    """The unit's file. What the worker's unbound needs is made with all rights before it starts."""
    at_home = any(path.is_relative_to(home) for path in (project, python) for home in _HOMES)
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
# The worker alone is asked to end. Tunnels go on, and the next worker takes them over.
KillMode=process
TimeoutStopSec=60
Restart=always
RestartSec=3
OOMPolicy=continue
UMask=0077
LimitCORE=0
LimitNOFILE=65536

CapabilityBoundingSet={" ".join(f"CAP_{name.upper()}" for name in CAPABILITIES)}
NoNewPrivileges=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
ProtectSystem=strict
ProtectHome={"read-only" if at_home else "yes"}
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ReadWritePaths={place.directory} /run -/etc/unbound -/var/lib/unbound

[Install]
WantedBy=multi-user.target
"""


def install(place: Place, python: Path, project: Path, units: Path = UNITS) -> bool:
    """Write the unit and have systemd start it, anew where it runs. Whether systemd runs here."""
    if not units.is_dir():
        return False
    path = units / NAME
    path.write_text(text(place, python, project))
    path.chmod(0o644)
    if not BOOTED.exists():
        return False
    for words in (("daemon-reload",), ("enable", NAME), ("restart", NAME)):
        _systemctl(*words)
    return True


def remove(units: Path = UNITS) -> None:
    """Stop and forget the service, if there is one. Its tunnels stay."""
    path = units / NAME
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
