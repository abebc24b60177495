"""The smallest factor: six letters, its own settings, enrolment and panel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from django import forms

from users.factors.base import AskedFactor, Case, Contribution, Denied, Factor, Outcome, Passed, TypedSecret
from users.factors.panels import Done, FactorPanel, NotDone, OwnCase, OwnPanel
from users.factors.proofs import prove
from users.models import Enrolment, VpnUser

from .enrolment import KIND, give
from .form import RiddleSettings


def _give(user: VpnUser, sent: Mapping[str, str]) -> Done:
    if not sent.get("answer"):
        raise NotDone("A riddle has an answer.")
    give(user, sent["answer"])
    return Done(f"Gave {user} a riddle.")


def _data(enrolment: Enrolment | None) -> Mapping[str, object]:
    return {"state": "given" if enrolment else "none yet"}


def _answer(case: OwnCase) -> Done:
    prove(case)
    answer = case.sent.get("answer", "")
    if len(answer) != 6:
        raise NotDone("An answer has six letters.")
    give(case.user, answer)
    return Done("You have a riddle.")


def _own_data(case: OwnCase) -> Mapping[str, object]:
    return {"hints": [settings["hint"] for settings in case.settings]}


class Riddle(Factor):
    kind: ClassVar[str] = KIND
    label: ClassVar[str] = "Riddle"
    typed: ClassVar[TypedSecret | None] = TypedSecret(re.compile("[a-z]{6}"), 6)
    not_enrolled: ClassVar[str] = "Nobody gave you a riddle."
    settings_form: ClassVar[type[forms.Form]] = RiddleSettings
    panel: ClassVar[FactorPanel | None] = FactorPanel("riddle/panel.html", {"give": _give}, _data)
    own_panel: ClassVar[OwnPanel | None] = OwnPanel(
        "riddle/own.html", {"answer": _answer}, _own_data, proof="The answer to your riddle"
    )

    def check(self, case: Case, secret: str) -> Outcome:
        right = case.enrolment is not None and secret == case.enrolment.hash
        return Passed() if right else Denied()

    def claim(self, case: Case, secret: str) -> Outcome:
        return Passed(f"in_{case.asked.settings.get('language', 'greek')}")

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(mode="riddle")
