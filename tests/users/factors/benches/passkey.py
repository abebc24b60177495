"""An authenticator of our own, as a browser would have it sign."""

from __future__ import annotations

from tests.passkey_maker import PasskeyMaker
from users.models import UserPasskey

from ..passkey.visits import OwnPasskeys, PasskeyVisit, a_maker
from .bench import Bench, came_to


class PasskeyBench(Bench):
    kind = "passkey"
    maker: PasskeyMaker

    def prepare(self) -> None:
        self.settings.SIGN_IN_HOLD = 0.0
        self.maker = a_maker()
        OwnPasskeys(self.alice).add(self.maker)

    def shown(self, maker: PasskeyMaker | None = None) -> str:
        visit = PasskeyVisit(self.identity)
        visit.connect()
        visit.show(maker or self.maker)
        return came_to(visit.wait())

    def right(self) -> str:
        return self.shown()

    def wrong(self) -> str:
        self.maker.key = PasskeyMaker().key
        return self.shown()

    def replayed(self) -> str:
        first, second = PasskeyVisit(self.identity), PasskeyVisit(self.identity)
        first.connect()
        answer = self.maker.get(first.question())
        first.answer(answer)
        second.connect()
        second.question()
        second.answer(answer)
        return came_to(second.wait())

    def expired(self) -> str:
        visit = PasskeyVisit(self.identity)
        visit.connect()
        answer = self.maker.get(visit.question())
        self.clock.advance(301)
        visit.answer(answer)
        return came_to(visit.wait())

    def others(self) -> str:
        bobs = a_maker()
        OwnPasskeys(self.bob).add(bobs)
        return self.shown(bobs)

    def lying(self) -> str:
        """A copy: its counter is behind."""
        UserPasskey.objects.update(counter=9)
        return self.shown()
