"""The command ``wgpeer``."""

from __future__ import annotations

from wgpeer.commands import device, look, profiles, service, up
from wgpeer.commands.app import app, fail
from wgpeer.daemon import EXIT_FAILED, EXIT_MISSING, EXIT_USAGE
from wgpeer.factors import MissingSecret
from wgpeer.importer import ImportFailed
from wgpeer.store import StoreError

__all__ = ["device", "look", "main", "profiles", "service", "up"]  # importing them is what makes their commands known


def main() -> None:
    """Run a command; what people can put right ends in one line and an exit code, never in a trace."""
    try:
        app()
    except StoreError as error:
        fail(str(error), EXIT_MISSING)
    except MissingSecret as error:
        fail(str(error), EXIT_USAGE)
    except ImportFailed as error:
        fail(str(error), EXIT_FAILED)
