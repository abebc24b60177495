"""Which servers cannot come to which host."""

from __future__ import annotations

from collections.abc import Iterator

from servers.models import Host, Server, ServerHost

from . import client_network, forward, host_networks, link_ends, outside_link
from .registry import Mistake, rule, save_rule
from .server import port_in_use


@rule(ServerHost)
def check(attachment: ServerHost) -> Iterator[Mistake]:
    # The object and not its id: a new server, in a form with its hosts, has no id yet but a port.
    server: Server | None = getattr(attachment, "server", None)
    host: Host | None = getattr(attachment, "host", None)
    if server is None or host is None:
        return  # missing, which the field says by itself
    if not host.pk:
        return  # new: nothing else is there yet
    if clash := port_in_use(server, host.pk):
        message = f"UDP port {server.port} is in use on host {host} by server {clash}."
        yield Mistake("host", f"{message} Give one of them another WireGuard port.")
    elif taken := forward.clash_on_host(server, host.pk):
        yield Mistake("host", taken)
    if message := link_ends.of_attachment(server, host):
        yield Mistake("host", message)
    if met := client_network.clash_on_host(server, host.pk) or outside_link.of_attachment(server, host.pk):
        yield Mistake("host", met)


@save_rule(ServerHost, "server", "host")
def to_host(attachment: ServerHost) -> Iterator[Mistake]:
    server: Server | None = getattr(attachment, "server", None)
    host: Host | None = getattr(attachment, "host", None)
    if server is None or host is None:
        return
    # Of one that is there already the server's own rule, or the host's, says it.
    if not ServerHost.objects.filter(pk=attachment.pk, server=server.pk, host=host.pk).exists():
        yield from host_networks.of_attachment(server, host)
