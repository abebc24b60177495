"""Names that hosts and the control side must agree on: what is safe in a ruleset, a file name or unbound's
configuration. Patterns are for ``fullmatch``."""

from __future__ import annotations

import re

PREFIX = "wgs"  # of every interface that clients' tunnels end on; the number of its server follows
MESH_PREFIX = "wgm"  # of the one between machines
MESH_INTERFACE = f"{MESH_PREFIX}0"
LINK_PREFIX = "wgo"  # of the ends of links that OpenVPN carries; the number of its link follows

OUR_INTERFACE = re.compile(rf"{PREFIX}[0-9]{{1,12}}")  # the kernel takes 15 characters (IFNAMSIZ in linux/if.h)
LINK_INTERFACE = re.compile(rf"{LINK_PREFIX}[0-9]{{1,12}}")
# What the kernel takes as a name, less what would be an option or a path to somebody else.
INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,14}")
FOREIGN_INTERFACE = re.compile(rf"(?!{PREFIX}|{MESH_PREFIX}|{LINK_PREFIX}){INTERFACE.pattern}")


def _dotted(letters: str) -> re.Pattern[str]:
    """Labels of ``letters``, and of hyphens within; as long as RFC 1035 says, without a dot at the end."""
    label = f"[{letters}]([{letters}-]{{0,61}}[{letters}])?"
    return re.compile(rf"(?=.{{1,253}}\Z){label}(\.{label})*")


HOST_NAME = _dotted("A-Za-z0-9")  # what people may type in
DNS_NAME = _dotted("A-Za-z0-9_")  # with underscores, as in RFC 2782
OPAQUE_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
