"""UDP ports at which links that OpenVPN carries listen."""

from __future__ import annotations

from django.db.models import Q

from servers.models import Carrier, Host, OutsideLink, PortForward, Server, ServerLink, ends_of


def listens(host: Host, port: int, link: ServerLink | OutsideLink | None = None) -> str:
    """Which link listens at the UDP port on that host, in words; empty where none does. ``link`` is left out."""
    of_host = Q(first__attachments__host=host) | Q(second__attachments__host=host)
    rows = ServerLink.objects.filter(of_host, carrier=Carrier.OPENVPN, port=port).select_related("first", "second")
    for each in rows.distinct():
        if each != link and (ends := ends_of(each)) is not None and host in {row.host for row in ends[0]}:
            return f"UDP port {port} of host {host} is that of the link between {each}."
    for outside in OutsideLink.objects.filter(server__attachments__host=host, listens=True, port=port):
        if outside != link:
            return f"UDP port {port} of host {host} is that of the link to {outside}."
    return ""


def of_server_port(server: Server) -> str:
    """Why a server cannot have its UDP port, on the hosts that it is on."""
    found = (listens(host, server.port) for host in server.hosts.all()) if server.pk else ()
    return next((each for each in found if each), "")


def of_forward(row: PortForward) -> str:
    """Why a port cannot be forwarded."""
    if row.protocol == "tcp":
        return ""
    hosts = Host.objects.filter(attachments__server=row.server_id)
    last = row.last_port or row.port
    ports = ServerLink.objects.filter(carrier=Carrier.OPENVPN, port__gte=row.port, port__lte=last)
    outside = OutsideLink.objects.filter(listens=True, port__gte=row.port, port__lte=last)
    numbers = sorted({*ports.values_list("port", flat=True), *outside.values_list("port", flat=True)})
    found = (listens(host, number) for host in hosts for number in numbers)
    return next((each for each in found if each), "")


def anywhere(port: int) -> str:
    """Whether a link has the port on whichever machine."""
    link = ServerLink.objects.filter(carrier=Carrier.OPENVPN, port=port).select_related("first", "second").first()
    if link is not None:
        return f"UDP port {port} is that of the link between {link}."
    outside = OutsideLink.objects.filter(listens=True, port=port).first()
    return f"UDP port {port} is that of the link to {outside}." if outside else ""
