"""Asking a directory's API with a token of ours, a bounded number of times for one account."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from core import clock
from core.crypto import keyed_hash
from core.http import NoAnswer, host_of
from users.factors.oidc import discovery
from users.factors.providers import ProviderConfig
from users.signin.outcomes import NotSignedIn, SaysNothing

# Seconds for which a token is used; the services give them for an hour.
TOKEN_KEPT = 1800
# Of one account: questions, and seconds for all of them. Who asks has the account to themselves for a minute.
MOST = 100
PATIENCE = 20.0


@dataclass(slots=True)
class Asking:
    """About one account. ``root``: the address that everything asked begins with; ``fetch`` gets a token."""

    config: ProviderConfig
    root: str
    fetch: Callable[[], str]
    asked: int = 0
    until: float = field(default_factory=lambda: clock.steady() + PATIENCE)

    def get(self, address: str, missing: Callable[[Mapping[str, Any]], bool] | None = None) -> Mapping[str, Any]:
        """``missing``: whether the body of a 404 says that there is no such account, and not only no such address.
        Raise ``NotSignedIn`` where it does, ``SaysNothing``, ``NoAnswer``."""
        # The token goes with it, also to where an answer says that it goes on.
        if urlsplit(address)[:2] != urlsplit(self.root)[:2]:
            raise NoAnswer(f"{host_of(self.root)} sends us to somebody else.")
        if self.asked >= MOST or clock.steady() > self.until:
            raise SaysNothing(f"{host_of(self.root)} would have to be asked too often about one account.")
        self.asked += 1
        token = discovery.kept(self._name, TOKEN_KEPT, self.fetch)
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        answer = discovery.ask(self.config, "GET", address, headers=headers)
        if answer.status == 401:
            discovery.let_go(self._name)  # perhaps it is good no more
        said = answer.json() if answer.status in (200, 403, 404) else None
        if not isinstance(said, dict):
            raise NoAnswer(f"{answer.host} says nothing of its accounts (status {answer.status}).")
        if answer.status == 404 and missing and missing(said):
            raise NotSignedIn("revoked", "not in the directory")
        if answer.status == 403:
            raise SaysNothing(f"{answer.host} does not let us ask about an account (status 403).")
        if answer.status != 200:
            raise NoAnswer(f"{answer.host} does not have what is asked for (status {answer.status}).")
        return said

    def pages(self, address: str, name: str, after: Callable[[Mapping[str, Any]], str]) -> Iterator[Mapping[str, Any]]:
        """What all pages have under ``name``; ``after``: the address of the next one, empty after the last. Raise as
        ``get``."""
        while address:
            said = self.get(address)
            found = said.get(name, [])
            if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
                raise NoAnswer(f"{host_of(self.root)} answers with what is not asked for.")
            yield from found
            address = after(said)

    @property
    def _name(self) -> tuple[str, ...]:
        """Of the token. What it was got by may be changed, and holds from then on."""
        secrets = keyed_hash("directory", *(f"{name}={value}" for name, value in sorted(self.config.secrets.items())))
        said = (self.root, str(self.config.settings["client_id"]), str(self.config.settings["directory_admin"]))
        return "directory token", self.config.public_id, *said, secrets


def text(said: Mapping[str, Any], name: str) -> str:
    """Raise ``NoAnswer`` where it is none."""
    found = said.get(name)
    if not isinstance(found, str) or not found:
        raise NoAnswer("The directory answers with what is not asked for.")
    return found


def root_of(config: ProviderConfig, usual: str) -> str:
    return str(config.settings["directory_address"]) or usual
