"""What cannot work is refused here, in words, whether it comes from a form, an import or code."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError

from . import networks

if TYPE_CHECKING:
    from .models import Route, Server, ServerHost, SplitDomain

PLATFORMS = ("linux", "win", "mac", "ios", "android", "chrome", "unknown")
_NAME = re.compile(
    r"(?=.{1,253}$)([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,14}")
_DIGITS_AND_DOTS = re.compile(r"[0-9.]+")


def listed(text: str) -> list[str]:
    """The items of a comma separated field."""
    return [item.strip() for item in text.split(",") if item.strip()]


def host_address4(text: str) -> None:
    if _DIGITS_AND_DOTS.fullmatch(text):
        try:
            ipaddress.IPv4Address(text)
        except ValueError:
            raise ValidationError(f"{text} is not an IPv4 address.") from None
    elif not _NAME.fullmatch(text):
        raise ValidationError(f"{text!r} is neither an IPv4 address nor a name such as vpn.example.com.")


def host_address6(text: str) -> None:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        raise ValidationError(f"{text!r} is not an IPv6 address.") from None


def mtu(value: int) -> None:
    if value and not 1280 <= value <= 9000:
        raise ValidationError("An MTU is from 1280 to 9000; 0 leaves the choice to the host.")


def addresses(text: str) -> None:
    for item in listed(text):
        try:
            ipaddress.ip_address(item)
        except ValueError:
            raise ValidationError(f"{item!r} is not an IP address.") from None


def domains(text: str) -> None:
    for item in listed(text):
        if not _NAME.fullmatch(item):
            raise ValidationError(f"{item!r} is not a domain name.")


def zone(text: str) -> None:
    if not _NAME.fullmatch(text):
        raise ValidationError(f"{text!r} is not a zone. Write it like vpn or vpn.example.com.")


def interface_name(text: str) -> None:
    """A name that the kernel takes for an interface, and that is safe in a ruleset."""
    if not _INTERFACE.fullmatch(text):
        raise ValidationError(f"{text!r} is not the name of an interface such as eth1.")
    if text.startswith("wgs"):
        raise ValidationError("The wgs interfaces are tunnels of ours.")


def platforms(text: str) -> None:
    for item in listed(text):
        if item not in PLATFORMS:
            raise ValidationError(f"{item!r} is not a platform. There are: {', '.join(PLATFORMS)}.")


def server(server: Server) -> None:
    """Raise ``ValidationError`` with a message at the field that must change."""
    problems: dict[str, list[str]] = {}
    _networks(server, problems)
    if server.ping_timeout < 2 * server.ping_interval:
        problems["ping_timeout"] = ["One lost ping must not end a connection: at least twice the ping interval."]
    if server.max_devices and not server.multi_device:
        problems["max_devices"] = ["Turn multi-device on, or leave this 0."]
    if server.pk:
        for attachment in server.attachments.select_related("host"):
            if clash := _port_in_use(server, attachment.host_id):
                problems["port"] = [f"UDP port {server.port} is in use on host {attachment.host} by server {clash}."]
    if problems:
        raise ValidationError(problems)


def _networks(server: Server, problems: dict[str, list[str]]) -> None:
    mine: dict[str, networks.Network] = {}
    for field in ("network", "wg_network"):
        if not getattr(server, field):
            continue  # missing, which the field says by itself
        try:
            mine[field] = networks.virtual_network(getattr(server, field))
            # In one spelling (10.8.0.0/255.255.255.0 is another), because hosts and clients read it too.
            setattr(server, field, str(mine[field]))
        except ValidationError as error:
            problems[field] = error.messages
    if len(mine) == 2:
        if mine["network"].overlaps(mine["wg_network"]):
            problems["wg_network"] = [f"{mine['wg_network']} overlaps the virtual network {mine['network']}."]
        elif mine["network"].prefixlen != mine["wg_network"].prefixlen:
            length = mine["network"].prefixlen
            problems["wg_network"] = [
                f"It must be a /{length} like the virtual network: clients have the same host part in both."
            ]
    if server.ipv6 or server.network6:
        try:
            if not server.network6:
                raise ValidationError("IPv6 is on: give it a network, for example fd09::/64.")
            if isinstance(four := mine.get("wg_network"), networks.IPv4):
                mine["network6"] = networks.virtual_network6(server.network6, four)
                server.network6 = str(mine["network6"])
        except ValidationError as error:
            problems["network6"] = error.messages
    for field, network in mine.items():
        if field not in problems and (message := _overlap(server, network)):
            problems[field] = [message]
    if server.pk and "wg_network" not in problems and "wg_network" in mine:
        _still_room(server, mine["wg_network"], problems)


def _overlap(server: Server, network: networks.Network) -> str | None:
    from .models import Server as Model

    for other in Model.objects.exclude(pk=server.pk):
        for text in (other.network, other.wg_network, other.network6 if other.ipv6 else ""):
            if (
                text
                and ipaddress.ip_network(text).version == network.version
                and network.overlaps(ipaddress.ip_network(text))
            ):
                return f"{network} overlaps {text} of server {other}."
    return None


def _still_room(server: Server, network: networks.Network, problems: dict[str, list[str]]) -> None:
    highest = server.addresses.exclude(user=None).order_by("-part").first()
    if highest is not None and highest.part > network.num_addresses - 2:
        problems["wg_network"] = [f"{network} is too small: {highest.user} has host part {highest.part}."]


def _port_in_use(server: Server, host: int) -> Server | None:
    from .models import Server as Model

    return Model.objects.filter(port=server.port, attachments__host=host).exclude(pk=server.pk).first()


def attachment(attachment: ServerHost) -> None:
    # The object and not its id: a new server, in a form with its hosts, has no id yet but a port.
    server: Server | None = getattr(attachment, "server", None)
    if server is not None and attachment.host_id and (clash := _port_in_use(server, attachment.host_id)):
        message = f"UDP port {server.port} is in use on host {attachment.host} by server {clash}."
        raise ValidationError({"host": f"{message} Give one of them another WireGuard port."})


def route(route: Route) -> None:
    if not route.network:
        return  # missing, which the field says by itself
    try:
        network = networks.parse(route.network)
    except ValidationError as error:
        raise ValidationError({"network": error.messages}) from None
    route.network = str(network)
    if network.version == 6 and not route.server.ipv6:
        raise ValidationError({"network": "This server has no IPv6; turn it on first."})
    if network.prefixlen and (network.is_loopback or network.is_multicast or network.is_link_local):
        raise ValidationError({"network": f"{network} cannot be routed."})
    for text in (route.server.wg_network, route.server.network6 if route.server.ipv6 else ""):
        if _within(network, text):
            raise ValidationError({"network": "The server's own tunnel network is always routed; it needs no route."})


def split_domain(split: SplitDomain) -> None:
    """Raise ``ValidationError`` with a message at the field that must change."""


def _within(network: networks.Network, text: str) -> bool:
    """Whether ``network`` is all or part of the one in ``text``, which may still be wrong in the same form."""
    try:
        whole = networks.parse(text)
    except ValidationError:
        return False
    return whole.version == network.version and network.subnet_of(whole)  # type: ignore[arg-type]
