"""While one tunnel takes the place of another: what leaves by the old one leaves by the new one as well.

The server takes packets of one address by one key at a time, and nobody here knows the very moment at which it begins
to take them by the other. So each goes by both, and the server drops one of the two: by the old one first, or one
could come by the new one too early, and by the old one too late. It needs Linux 5.16 and nft; without them what is sent
within that moment is lost.
"""

from __future__ import annotations

from wgpeer.constants import COPY_MARK
from wgpeer.tunnel import nft
from wgpeer.tunnel.link import interface_number


def start(old: str, new: str) -> str:
    """Send by interface ``new`` too what leaves by ``old``; why that does not work, for people (empty: it does)."""
    name = _name(interface_number(old))
    # The copy comes by here again, and is known by its mark.
    rules = f'meta mark {COPY_MARK:#x} accept\nmeta mark set {COPY_MARK:#x} dup to "{old}" fwd to "{new}"'
    chain = f'type filter hook egress device "{old}" priority 0; policy accept;\n{rules}'
    table = f"table netdev {name}"
    text = f"{table} {{}}\ndelete {table}\n{table} {{\nchain leaving {{\n{chain}\n}}\n}}\n"
    return nft.run(["-f", "-"], text)[1]


def stop(number: int) -> None:
    """Of the interface of this number. No error when there are none."""
    nft.run(["-f", "-"], f"table netdev {_name(number)} {{}}\ndelete table netdev {_name(number)}\n")


def _name(number: int) -> str:
    return f"wgpeer_{number}"
