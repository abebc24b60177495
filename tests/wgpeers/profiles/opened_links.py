"""What a profile link has behind it, as somebody who was given it sees it."""

from __future__ import annotations

from typing import Any

from django.test import Client

from servers.models import Server
from wgpeers.models import ProfileLink


def get(path: str, **extra: Any) -> Any:
    return Client().get(path, **extra)


def paths(link: ProfileLink) -> dict[str, str]:
    key, short = link.key_id.reveal(), link.short_id.reveal()
    server = Server.objects.order_by("pk").first()
    assert server is not None
    return {
        "tar": f"/key/{key}.tar",
        "zip": f"/key/{key}.zip",
        "one": f"/key/{key}/{server.public_id}.key",
        "page": f"/k/{short}",
        "import": f"/ku/{short}",
    }


def opened(link: ProfileLink, **extra: Any) -> Any:
    """The page behind the button."""
    return Client().post(paths(link)["page"], follow=True, **extra)


KINDS = ("tar", "zip", "one", "page", "import")
DOWNLOADS = ("tar", "zip", "one", "import")


def statuses(link: ProfileLink, kinds: tuple[str, ...] = KINDS) -> set[int]:
    return {get(paths(link)[kind]).status_code for kind in kinds}
