"""How each case of the table is brought about with a provider that lies."""

from __future__ import annotations

from typing import Any

from core import clock

from ..saml.attempts import SamlVisit, a_provider
from ..saml.liar import EMAIL, SamlLiar, a_key, asked_in, instant
from .bench import Bench, came_to


class SamlBench(Bench):
    kind = "saml"
    liar: SamlLiar

    def prepare(self) -> None:
        self.settings.SIGN_IN_HOLD = 0.0
        self.settings.SESSION_COOKIE_SECURE = self.settings.CSRF_COOKIE_SECURE = False
        self.liar = SamlLiar()
        a_provider(self.liar.metadata)

    def signed_in(self, **says: Any) -> str:
        visit = SamlVisit(self.identity)
        visit.connect()
        visit.sign_in(self.liar, **says)
        return came_to(visit.wait())

    def right(self) -> str:
        return self.signed_in()

    def wrong(self) -> str:
        return self.signed_in(status="urn:oasis:names:tc:SAML:2.0:status:Responder")

    def replayed(self) -> str:
        first, second = SamlVisit(self.identity), SamlVisit(self.identity)
        first.connect()
        address = first.press()
        answer = self.liar.answer(address)
        first.bring(answer, asked_in(address)["RelayState"])
        assert came_to(first.wait()) == "allowed"
        second.connect()
        second.bring(answer, asked_in(second.press())["RelayState"])
        return came_to(second.wait())

    def expired(self) -> str:
        long_ago = instant(clock.now() - 3600)
        return self.signed_in(until=long_ago, confirmed_until=long_ago)

    def others(self) -> str:
        return self.signed_in(name="id-of-bob", attributes={EMAIL: ["bob@acme.example"]})

    def down(self) -> str:
        """The browser gets no answer there, and we do not hear of it: the client goes on waiting."""
        visit = SamlVisit(self.identity)
        visit.connect()
        visit.press()
        return came_to(visit.wait())

    def slow(self) -> str:
        """An answer that comes when the sign-in is over counts for nothing."""
        visit = SamlVisit(self.identity)
        visit.connect()
        address = visit.press()
        answer = self.liar.answer(address)
        self.clock.advance(301)
        visit.bring(answer, asked_in(address)["RelayState"])
        return came_to(visit.wait())

    def lying(self) -> str:
        self.liar.key = a_key("stranger")
        return self.signed_in()
