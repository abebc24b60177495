"""What cannot work beside those who are connected."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from django.core.exceptions import ValidationError

from servers import networks
from servers.models import ClientNetwork, Server
from servers.rules.registry import Mistake, save_rule

from .models import Connection, State


@save_rule(ClientNetwork, "network", "server")
def no_client_comes_from_it(row: ClientNetwork) -> Iterator[Mistake]:
    """What the host answers to such a client (its next connect, over HTTPS) would go into a tunnel, be it another's or
    its own. WireGuard's own packets would not: see ``hostnet.outer``."""
    server: Server | None = getattr(row, "server", None)
    if server is None or not server.pk:
        return
    try:
        network = networks.parse(row.network)
    except ValidationError:
        return  # its rule says so
    there = Connection.objects.filter(host__attachments__server=server).exclude(state=State.ENDED)
    there = there.exclude(client_address=None).select_related("host").distinct()
    for connection in there.iterator():
        if ipaddress.ip_address(connection.client_address or "") in network:
            message = (
                f"{network} holds {connection.client_address}, from where {connection.user_name} is connected to host "
                f"{connection.host}: what the host answers there would go into a tunnel."
            )
            yield Mistake("network", message)
            return
