"""The command ``wgpeer``."""

from __future__ import annotations

import resource

from wgpeer.commands import device, look, profiles, service, up
from wgpeer.commands.app import app, fail
from wgpeer.daemon import EXIT_FAILED, EXIT_MISSING, EXIT_USAGE
from wgpeer.factors import MissingSecret
from wgpeer.importer import ImportFailed
from wgpeer.store import StoreError

__all__ = ["device", "look", "main", "profiles", "service", "up"]  # importing them is what makes their commands known


def main() -> None:
    """Run a command; what people can put right ends in one line and an exit code, never in a trace."""
    # Of us and of what we start: a core file of a crash would have keys in it.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        app()
    except StoreError as error:
        fail(str(error), EXIT_MISSING)
    except MissingSecret as error:
        fail(str(error), EXIT_USAGE)
    except ImportFailed as error:
        fail(str(error), EXIT_FAILED)
