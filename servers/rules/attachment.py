"""Which servers cannot come to which host."""

from __future__ import annotations

from django.core.exceptions import ValidationError

from servers.models import Server, ServerHost

from . import client_network, forward
from .registry import rule
from .server import port_in_use


@rule(ServerHost)
def check(attachment: ServerHost) -> None:
    # The object and not its id: a new server, in a form with its hosts, has no id yet but a port.
    server: Server | None = getattr(attachment, "server", None)
    if server is not None and attachment.host_id and (clash := port_in_use(server, attachment.host_id)):
        message = f"UDP port {server.port} is in use on host {attachment.host} by server {clash}."
        raise ValidationError({"host": f"{message} Give one of them another WireGuard port."})
    if server is not None and attachment.host_id and (taken := forward.clash_on_host(server, attachment.host_id)):
        raise ValidationError({"host": taken})
    if server is not None and attachment.host_id and (met := client_network.clash_on_host(server, attachment.host_id)):
        raise ValidationError({"host": met})
