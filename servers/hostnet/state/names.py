"""Names that hosts and the control side must agree on: what is safe in a ruleset, a file name or unbound's
configuration. Patterns are for ``fullmatch``."""

from __future__ import annotations

import re

PREFIX = "wgs"  # of every interface that is ours; the number of its server follows

OUR_INTERFACE = re.compile(rf"{PREFIX}[0-9]{{1,12}}")  # the kernel takes 15 characters (IFNAMSIZ in linux/if.h)
FOREIGN_INTERFACE = re.compile(rf"(?!{PREFIX})[A-Za-z0-9_][A-Za-z0-9_.@-]{{0,14}}")
# RFC 1035 with underscores, as in RFC 2782; no dot at the end.
DNS_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
)
OPAQUE_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
