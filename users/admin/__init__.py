"""The admin pages of this part. Django looks for them here."""

from . import pages as pages
from . import staff as staff
