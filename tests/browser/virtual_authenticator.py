"""Chromium's authenticator without a device, as built into a laptop: it verifies its user, or refuses to."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import BrowserContext, Page


class VirtualAuthenticator:
    def __init__(self, context: BrowserContext, page: Page) -> None:
        self._devtools = context.new_cdp_session(page)
        self._devtools.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        self._id = self._devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})["authenticatorId"]

    def verifies(self, yes: bool) -> None:
        self._devtools.send("WebAuthn.setUserVerified", {"authenticatorId": self._id, "isUserVerified": yes})

    def set_back(self) -> None:
        """As a copy that was made before the last use: its counter is behind."""
        for credential in self.credentials():
            self._devtools.send(
                "WebAuthn.removeCredential",
                {"authenticatorId": self._id, "credentialId": credential["credentialId"]},
            )
            copied = {**credential, "signCount": 0}
            self._devtools.send("WebAuthn.addCredential", {"authenticatorId": self._id, "credential": copied})

    def credentials(self) -> list[dict[str, Any]]:
        found = self._devtools.send("WebAuthn.getCredentials", {"authenticatorId": self._id})
        return list(found["credentials"])
