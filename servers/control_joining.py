"""Machines that join as further control nodes: what has to be true for it, and what they are given.

That is every secret of the installation and the settings, sealed to a key that the machine made for this one request.
The rest the machine's own ``bin/run`` does, as on the first node: its host's worker says the key that it has in the
mesh, and web, gateway web, workers and a beat are started.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db import transaction

from core import clock, handing_over
from core.shared_stores import what_keeps_to_one_machine

from .hostnet.state.version import VERSION
from .models import Host, JoinToken, MeshNode


class JoinRefused(Exception):
    """``code`` does not change; the text is for whoever typed the command."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def use_up(token: JoinToken, now: float) -> None:
    """Of two that come at once with the same token, one changes this row."""
    if not JoinToken.objects.filter(pk=token.pk, used=None).update(used=clock.moment(now)):
        raise JoinRefused("used_token", f"This token of {token.host} has been used. Make a new one on its page.")


def check(host: Host, message: dict[str, Any]) -> None:
    """Whether ``host`` can be a control node. Raise ``JoinRefused`` with what to do."""
    if here := what_keeps_to_one_machine():
        raise JoinRefused("one_machine", " ".join(here))
    if message.get("release") != VERSION:
        said = str(message.get("release"))[:20]
        words = f"The control side is of release {VERSION}, and this machine of {said}: have both on the same one."
        raise JoinRefused("other_release", words)
    if MeshNode.objects.filter(host=host).exists():
        words = f"{host} is a machine of the mesh already: have it leave (bin/host leave), or add another host."
        raise JoinRefused("joined_already", words)
    _url_of(host)


def _url_of(host: Host) -> str:
    """The address of ``API_URLS`` at which clients will reach the new node."""
    own = {each.lower() for each in (host.public_address, host.public_address6) if each}
    for url in settings.API_URLS:
        if urlsplit(url).hostname in own:
            return str(url)
    address = next(iter(sorted(own)), "its address")
    shown = f"[{address}]" if ":" in address else address
    words = f"API_URLS does not name {host}. Add https://{shown} to it in settings.env of every control node"
    raise JoinRefused("not_in_api_urls", f"{words}, start bin/run there anew, and try again.")


def join(token: JoinToken, now: float) -> dict[str, Any]:
    host = token.host
    url = _url_of(host)
    with transaction.atomic():
        use_up(token, now)
    parts = urlsplit(url)
    return {
        "id": host.public_id,
        "name": host.name,
        "public_address": parts.hostname,
        "port": parts.port or 443,
        **handing_over.all_of_it(),
    }
