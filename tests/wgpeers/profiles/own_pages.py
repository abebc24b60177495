"""A user's own page, as a browser without JavaScript sees it."""

from __future__ import annotations

import html
import re
from typing import Any

from django.test import Client

from tests.protocol_client import NOW
from users.models import VpnUser
from wgpeers.models import ProfileLink
from wgpeers.profiles import links


class OwnPage:
    """Of ``user``, by a link of its own, opened. Django checks the tokens of its forms."""

    def __init__(
        self, user: VpnUser, now: float = NOW, *, one_time: bool = False, browser: Client | None = None
    ) -> None:
        self.link = links.create(user, now, one_time=one_time)
        self.path = f"/k/{self.link.short_id.reveal()}"
        self.browser = browser or Client(enforce_csrf_checks=True)
        self.first = self.browser.post(self.path, follow=True)

    def text(self) -> str:
        return html.unescape(self.browser.get(self.path).content.decode())

    def send(self, do: str, **fields: str) -> Any:
        """Press a button. What the page says of it is in ``said_by``."""
        return self.send_without_token(do, csrfmiddlewaretoken=self.browser.cookies["csrftoken"].value, **fields)

    def send_without_token(self, do: str, **fields: str) -> Any:
        return self.browser.post(f"{self.path}/do", {"do": do, **fields}, follow=True)

    def factor(self, factor: str, action: str, **fields: str) -> Any:
        return self.send("factor", factor=factor, action=action, **fields)


def said_by(response: Any) -> str:
    """The page's notice: what was done, or why it was not."""
    found = re.search(r'<p class="(?:said|wrong)" role="\w+">(.*?)</p>', response.content.decode())
    return html.unescape(found[1]) if found else ""


def hidden(response: Any, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', response.content.decode())
    assert found
    return html.unescape(found[1])


def codes_shown(response: Any) -> list[str]:
    return re.findall(r"<code>([a-z2-9]{5}-[a-z2-9]{5})</code>", response.content.decode())


def revoke(link: ProfileLink) -> None:
    links.revoke(link, NOW)
