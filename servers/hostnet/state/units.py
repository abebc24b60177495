"""What the units of systemd have in common, that of ``bin/run`` and that of a joined machine: no more of the machine
than they need."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_HOMES = tuple(map(Path, ("/home", "/root", "/run/user")))
_NEVER_CALLED = "@clock @cpu-emulation @debug @module @obsolete @raw-io @reboot @swap"
_NO_SETUID = "RestrictSUIDSGID=yes\n"
# The first process alone is asked to end, and should memory be short, one of them is killed and not all: tunnels go on.
# What they write is nobody else's, and a core would hold keys.
PROCESSES = """KillMode=process
OOMPolicy=continue
UMask=0077
LimitCORE=0
LimitNOFILE=65536"""


def shut_in(
    capabilities: Iterable[str], paths: Iterable[Path], writable: Iterable[Path | str], *, mounts: bool = False
) -> str:
    """Lines of a ``[Service]``. ``capabilities`` are their names without CAP_; ``paths`` are where its code is, which
    may be in somebody's home; ``writable`` as ReadWritePaths takes it, beside /run; ``mounts``: whether it mounts."""
    at_home = any(path.is_relative_to(home) for path in paths for home in _HOMES)
    return f"""CapabilityBoundingSet={" ".join(f"CAP_{name.upper()}" for name in capabilities)}
NoNewPrivileges=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces={"mnt" if mounts else "yes"}
RestrictRealtime=yes
{"" if mounts else _NO_SETUID}LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=~{_NEVER_CALLED}{"" if mounts else " @mount"}
SystemCallErrorNumber=EPERM
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
ProtectSystem=strict
ProtectHome={"read-only" if at_home else "yes"}
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ReadWritePaths={" ".join(map(str, writable))} /run -/etc/unbound -/var/lib/unbound"""
