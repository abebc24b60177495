"""Which networks cannot be where clients come from."""

from __future__ import annotations

from collections.abc import Iterator

from django.core.exceptions import ValidationError

from servers import networks
from servers.models import ClientRegion

from .registry import Mistake, rule


@rule(ClientRegion)
def check(row: ClientRegion) -> Iterator[Mistake]:
    try:
        networks.parse(row.network)
    except ValidationError as error:
        yield Mistake("network", error.messages[0])
