"""A configured service as the protocol's client knows it."""

from __future__ import annotations

from users.factors.providers import ProviderConfig

from .validation import Client


def client_of(provider: ProviderConfig) -> Client:
    settings = provider.settings
    return Client(
        settings["client_id"], provider.secrets["secret_key"], str(settings["servers"]).split(), settings["ca"]
    )
