"""The admin pages of this part. Django looks for them here."""

from . import client_services as client_services
from . import links as links
from . import outside_links as outside_links
from . import pages as pages
from . import providers as providers
from . import regions as regions
