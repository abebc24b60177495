"""Which WireGuard this host uses."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from servers.hostnet.state import PREFIX

from .base import Backend, WireGuardError
from .userspace import PROGRAM, Userspace

_TUN = Path("/dev/net/tun")


def choose(setting: str) -> Backend:
    """The backend for ``auto``, ``kernel`` or ``userspace``; ``auto`` takes the kernel's wherever it works.

    Raise ``WireGuardError``, with what is missing in words, where the choice cannot work here.
    """
    if setting not in ("auto", "kernel", "userspace"):
        raise WireGuardError(f"the WireGuard backend must be auto, kernel or userspace, not {setting[:20]!r}")
    reasons = []
    if setting in ("auto", "kernel"):
        backend, reason = _kernel()
        if backend is not None:
            return backend
        reasons.append(reason)
    if setting in ("auto", "userspace"):
        reason = _userspace_lacks()
        if not reason:
            return Userspace()
        reasons.append(reason)
    raise WireGuardError("no WireGuard on this host: " + "; ".join(reasons))


def _kernel() -> tuple[Backend | None, str]:
    """The kernel's backend, or why not. It makes a link and removes it, since a module alone proves little."""
    # Imported here: where the kernel is not wanted, its 20 MB of netlink library are not either.
    from .kernel import Kernel, available

    if not available():
        return None, "the kernel has no WireGuard"
    # Should we be killed between the two, this name is one that the host's next full state sweeps away.
    probe, kernel = f"{PREFIX}9{secrets.randbelow(10**10):010}", Kernel()
    try:
        kernel.create(probe)
        kernel.delete(probe)
    except WireGuardError as error:
        return None, f"the kernel has WireGuard, but {error}"
    return kernel, ""


def _userspace_lacks() -> str:
    if shutil.which(PROGRAM) is None:
        return f"{PROGRAM} is not installed"
    if not _TUN.exists():
        return f"{PROGRAM} needs {_TUN}, which this machine does not have"
    return ""
