"""The sign-in accounts on a user's page."""

from __future__ import annotations

from collections.abc import Mapping

from users.factors.panels import Done, FactorPanel
from users.models import VpnUser

from .accounts import forget_accounts


def account_panel(kind: str) -> FactorPanel:
    """``kind``/panel.html shows it."""

    def forget(user: VpnUser, sent: Mapping[str, str]) -> Done:
        forget_accounts(user, kind)
        return Done(f"Forgot the sign-in accounts of {user}.")

    return FactorPanel(f"{kind}/panel.html", {"forget": forget})
