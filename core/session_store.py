"""Sessions in the database, as Django's, in rows that say whose they are (``SESSION_ENGINE``)."""

from __future__ import annotations

from typing import Any, cast

from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore

from .clock import moment
from .models import AdminSession

# What the session itself says of where it began; see core.second_factor.sessions.
ABOUT = "about"


class SessionStore(DatabaseStore):
    @classmethod
    def get_model_class(cls) -> Any:
        return AdminSession

    def create_model_instance(self, data: dict[str, Any]) -> AdminSession:
        """The columns follow from the data, so that whatever writes the one writes the other."""
        row = cast(AdminSession, super().create_model_instance(data))
        row.administrator_id = int(data[SESSION_KEY]) if SESSION_KEY in data else None
        about = data.get(ABOUT)
        if about and row.administrator_id is not None:
            row.public_id, row.address, row.browser = about["id"], about["address"], about["browser"]
            row.began, row.seen = moment(about["began"]), moment(about["seen"])
        return row
