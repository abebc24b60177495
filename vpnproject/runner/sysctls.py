"""Forwarding, as this machine had it before: the host worker turns it on, and the last to leave puts it back."""

from __future__ import annotations

from pathlib import Path

from .files import read_json, write_json

ROOT = Path("/proc/sys/net")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def _settings(root: Path) -> list[Path]:
    """What the host worker may change, in the order in which it is put back."""
    return [root / "ipv4/ip_forward", root / "ipv6/conf/all/forwarding", *sorted(root.glob("ipv6/conf/*/accept_ra"))]


def remember(record: Path, root: Path = ROOT) -> bool:
    """Write down the present values, unless an earlier run of this same boot did and never came to put them back.
    Whether one did."""
    boot = _BOOT_ID.read_text().strip()
    if read_json(record).get("boot") == boot:
        return True
    values = {str(path): path.read_text().strip() for path in _settings(root) if path.exists()}
    write_json(record, {"boot": boot, "values": values})
    return False


def put_back(record: Path) -> list[str]:
    """Put the remembered values back; returns what was changed, in words."""
    data = read_json(record)
    changed = []
    if data.get("boot") == _BOOT_ID.read_text().strip():
        for name, before in data.get("values", {}).items():
            path = Path(name)
            # An interface may be gone by now, and its settings with it.
            if path.exists() and path.read_text().strip() != before:
                path.write_text(before)
                changed.append(f"{name.removeprefix('/proc/sys/')} is {before} again")
    record.unlink(missing_ok=True)
    return changed
