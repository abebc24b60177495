"""The sign-in accounts on a user's page."""

from __future__ import annotations

from collections.abc import Mapping

from users.factors.panels import Done, FactorPanel
from users.models import VpnUser

from .enrolment import forget_accounts


def _forget(user: VpnUser, sent: Mapping[str, str]) -> Done:
    forget_accounts(user)
    return Done(f"Forgot the sign-in accounts of {user}.")


PANEL = FactorPanel("oidc/panel.html", {"forget": _forget})
