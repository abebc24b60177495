"""What the admin pages of all parts share, and the page of jobs. Django looks for it here."""

from . import jobs as jobs
