"""The admin pages of this part. Django looks for them here."""

from . import decisions as decisions
from . import pages as pages
