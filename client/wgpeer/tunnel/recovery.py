"""What a tunnel has changed on this machine, on disk, so that a crash leaves nothing that nobody knows of.

The recovery file is a JSON object: ``interface`` and its ``index`` (0: perhaps not made yet), ``boot`` (the id of the
boot in which it was made), ``dns`` (the ``DnsChange`` of its name servers), ``lost_interfaces`` (names of ours that are
lost, whose tables and guards still hold back traffic), and what it claims for the whole machine: ``everything``
(traffic) and ``all_names``. It is written before each change. Other tunnels read it too: it says whose an interface is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wgpeer.store import read_json, write_file
from wgpeer.tunnel import copies, dns, guard, link, routing
from wgpeer.tunnel.dns import DnsChange

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SUFFIX = ".recovery.json"
# Of the second of two tunnels of one profile, while one takes the other's place. No profile's name has such a sign.
SECOND = "~"


@dataclass(frozen=True, slots=True)
class Claim:
    """Another tunnel that is up: its profile, its interface number, and what it claims for the whole machine."""

    profile: str
    number: int
    everything: bool = False
    all_names: bool = False

    @property
    def rank(self) -> tuple[bool, int]:
        """Of two that claim all names, the one with the lower rank gets them."""
        return (not self.everything, self.number)

    @property
    def title(self) -> str:
        """For people."""
        return f"{link.INTERFACE_PREFIX}{self.number} ({self.profile})"


def write(path: Path, interface: str, index: int, change: DnsChange, lost: Iterable[str], claim: Claim) -> None:
    """Write the file, whole or not at all."""
    held = {
        "interface": interface,
        "index": index,
        "boot": BOOT_ID.read_text().strip(),
        "dns": change.as_dict(),
        "lost_interfaces": sorted(lost),
        "everything": claim.everything,
        "all_names": claim.all_names,
    }
    write_file(path, json.dumps(held))


def other_tunnels(own: Path) -> list[Claim]:
    """The other tunnels of this directory whose interface is there."""
    found = []
    for path in sorted(own.parent.glob(f"*{SUFFIX}")):
        held = read_json(path)
        name, index = held.get("interface"), held.get("index")
        if path == own or not is_ours(name) or not index or link.interface_index(str(name)) != index:
            continue
        profile, number = profile_of(path), link.interface_number(str(name))
        found.append(Claim(profile, number, held.get("everything") is True, held.get("all_names") is True))
    return found


def profile_of(path: Path) -> str:
    """The name of the profile whose recovery file this is."""
    return path.name.removesuffix(SUFFIX).removesuffix(SECOND)


def both_of(path: Path) -> tuple[Path, Path]:
    """The recovery files of the tunnels of a profile, by that of the first."""
    return path, path.with_name(f"{path.name.removesuffix(SUFFIX)}{SECOND}{SUFFIX}")


def clean_up(recovery_file: Path) -> None:
    """Remove what a recovery file names. Nothing else: an interface that has since become another's is left alone."""
    held = read_json(recovery_file)
    interface, index = held.get("interface"), held.get("index")
    change = DnsChange.from_dict(held.get("dns"))
    if held.get("boot") != BOOT_ID.read_text().strip():
        dns.revert_after_boot(change)
    elif isinstance(interface, str) and is_ours(interface):
        now = link.interface_index(interface)
        dns.revert(change)
        if now == 0 or not index or now == index:
            _clear(interface)
            link.delete_link(interface)
        lost = held.get("lost_interfaces")
        clear_lost(lost if isinstance(lost, list) else [])
    recovery_file.unlink(missing_ok=True)


def clear_lost(names: Iterable[object]) -> None:
    """Remove the tables of lost interfaces. Where a link has such a name again, the tables are that link's."""
    for name in names:
        if isinstance(name, str) and is_ours(name) and not link.interface_index(name):
            _clear(name)


def is_ours(name: object) -> bool:
    """Whether this is a name as we give them to interfaces."""
    return isinstance(name, str) and name.startswith(link.INTERFACE_PREFIX)


def _clear(interface: str) -> None:
    number = link.interface_number(interface)
    routing.clear_routes(number)
    guard.remove(number)
    copies.stop(number)
