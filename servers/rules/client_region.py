"""Which networks cannot be where clients come from."""

from __future__ import annotations

from django.core.exceptions import ValidationError

from servers import networks
from servers.models import ClientRegion

from .registry import rule


@rule(ClientRegion)
def check(row: ClientRegion) -> None:
    try:
        networks.parse(row.network)
    except ValidationError as error:
        raise ValidationError({"network": error.messages}) from None
