"""Directories behind OpenID providers: whether an account is active, and in which groups it is, without its user."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from users.factors.providers import ProviderConfig

from . import entra, google


@dataclass(frozen=True, slots=True)
class Directory:
    """``claim``: the ID token's, by which the directory knows an account. ``look``: the groups of an account; raises
    ``NotSignedIn`` where it is disabled or gone, ``SaysNothing`` where that cannot be known of it, ``NoAnswer`` where
    nothing can be known of anybody. ``greet`` asks for what costs nobody anything; raises ``NoAnswer``."""

    claim: str
    look: Callable[[ProviderConfig, str], list[str]]
    greet: Callable[[ProviderConfig], None]


# By preset.
DIRECTORIES = {
    "entra": Directory("oid", entra.look, entra.greet),
    "google": Directory("sub", google.look, google.greet),
}


def of(config: ProviderConfig) -> Directory | None:
    """The one that is to be asked; None: none is."""
    return DIRECTORIES.get(str(config.settings["preset"])) if config.settings["directory"] else None


def account(config: ProviderConfig, claims: Mapping[str, Any]) -> str:
    """By which the directory would know it, whether or not it is to be asked; empty where there is none."""
    directory = DIRECTORIES.get(str(config.settings["preset"]))
    found = claims.get(directory.claim) if directory else None
    return found if isinstance(found, str) and len(found) <= 255 else ""
