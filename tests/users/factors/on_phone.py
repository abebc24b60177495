"""A client and its user's browser at the page of a request on a phone."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from core.redis_store import redis_client

from .oidc.attempts import Visit


@dataclass
class PhoneVisit(Visit):
    status: int = 0

    def press(self) -> str:
        """The button; what the page says then."""
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.look())
        assert token, "there is no button"
        response = self.browser.post(self.page, {"csrfmiddlewaretoken": token[1]}, follow=True)
        self.status = response.status_code
        return html.unescape(response.content.decode())

    def look(self) -> str:
        """As when the page loads itself again, some seconds later."""
        for key in redis_client().scan_iter("phone-look:*"):
            redis_client().delete(key)
        response = self.browser.get(self.page, follow=True)
        self.status = response.status_code
        return html.unescape(response.content.decode())
