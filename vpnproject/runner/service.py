"""``bin/run`` as a service of systemd: started at boot, stopped in order, with no more of the machine than it needs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from servers.hostnet.state import units

from . import checkout, checks, layout, privileges
from .console import Progress, RunError

NAME = "vpn-server.service"
UNITS = Path("/etc/systemd/system")
BOOTED = Path("/run/systemd/system")  # is there where systemd runs the machine (sd_booted)
_SYSTEMCTL = "systemctl"
# What bin/run and supervisor do themselves: the first line is what they hand on. To look into the environment of
# processes of other users, by which ours are known, is SYS_PTRACE; to mount is SYS_ADMIN; to have some programs come
# before others is SYS_NICE.
CAPABILITIES = (
    *("NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE", "SETUID", "SETGID", "KILL"),
    *("SETPCAP", "CHOWN", "FOWNER", "FSETID", "DAC_OVERRIDE", "SYS_PTRACE", "SYS_ADMIN", "SYS_NICE"),
)


def unit(wanted: checks.Wanted) -> str:
    """The unit's file. Directories that bin/run makes and removes are systemd's to make: they are writable then."""
    given = {"--var": wanted.var, "--port": wanted.port, "--public-address": wanted.public_address}
    options = " ".join(f"{name} {value}" for name, value in given.items() if value is not None)
    shut_in = units.shut_in(CAPABILITIES, (wanted.project, wanted.var), [wanted.var, "/tmp"], mounts=True)  # noqa: S108
    return f"""# Written by bin/run --install-service.
[Unit]
Description=VPN server (WireGuard)
Documentation=file://{wanted.project}/docs/OPERATIONS.md
Wants=network-online.target
After=network-online.target nss-lookup.target

[Service]
Type=exec
ExecStart={wanted.project}/bin/run --service {options}
# Should bin/run die, tunnels and programs go on, and the next one takes them over. Asked to end, it stops the others in
# order.
{units.PROCESSES}
TimeoutStopSec=120
Restart=on-failure
RestartSec=10

{shut_in}
StateDirectory=vpn-front
StateDirectoryMode=0755
# No /tmp of its own: it would go with a bin/run that died, and what that had started goes on.

[Install]
WantedBy=multi-user.target
"""


def install(wanted: checks.Wanted, progress: Progress, directory: Path = UNITS) -> None:
    """Write the unit and have systemd know it. What a service may not do, it finds done: users, ``var`` and
    compiled code."""
    checkout.check_reachable(wanted.project)
    layout.settle(wanted.var)
    if not directory.is_dir():
        raise RunError(f"{directory} is not there: this machine has no systemd.")
    path = directory / NAME
    path.write_text(unit(wanted))
    path.chmod(0o644)
    checkout.compile_code(wanted.project)
    progress.good(f"Wrote {path}")
    progress.good(f"System users: {', '.join(privileges.USERS)}")
    if all([_tell(progress, "daemon-reload"), _tell(progress, "enable", NAME)]):
        progress.plain(f"  Start it: systemctl start {NAME}. What it says: journalctl -u {NAME}.")
        progress.plain("  After an upgrade: bin/run --install-service again, then systemctl restart.")


def uninstall(progress: Progress, directory: Path = UNITS) -> None:
    """Stop and forget the service. ``var`` stays."""
    path = directory / NAME
    if not path.exists():
        raise RunError(f"There is no {path}.")
    _tell(progress, "disable", "--now", NAME)
    path.unlink()
    progress.good(f"Removed {path}")
    _tell(progress, "daemon-reload")


def _tell(progress: Progress, *words: str) -> bool:
    """Whether systemd runs here and did it."""
    if not BOOTED.exists():
        progress.warn(f"systemd does not run here: systemctl {' '.join(words)} is left to do.")
        return False
    done = subprocess.run([_SYSTEMCTL, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"systemctl {' '.join(words)} failed: {done.stderr.strip()}")
    progress.good(f"systemctl {' '.join(words)}")
    return True
