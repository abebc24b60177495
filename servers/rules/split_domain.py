"""Which domains cannot be looked up elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

from servers.models import Server, SplitDomain
from servers.validators import is_name, listed

from .registry import Mistake, rule


@rule(SplitDomain)
def check(split: SplitDomain) -> Iterator[Mistake]:
    # The object and not its id: in a form with its server, that has none yet.
    server: Server | None = getattr(split, "server", None)
    if split.domain and not is_name(split.domain):
        yield Mistake("domain", f"{split.domain!r} is not one domain name. Write it like corp.example.")
    elif server is not None and f".{split.domain}".endswith(f".{server.dns_zone.lower()}"):
        yield Mistake("domain", f"{split.domain} is in {server.dns_zone}, the zone of this server's own names.")
    if split.dns_servers and not listed(split.dns_servers):
        yield Mistake("dns_servers", "Give at least one address.")
