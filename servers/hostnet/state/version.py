"""What this release is called, and which messages it understands."""

from __future__ import annotations

VERSION = "0.1.0"

# Of messages to hosts. A message says which format its reader must know to carry it out rightly, and a worker refuses
# what it does not know. So this is raised only by a message that an older worker would carry out wrongly: one more
# field that may be left unread raises nothing, and workers of the release before go on with it.
FORMAT = 1
