"""What cannot work is refused here, in words, whether it comes from a form, an import or code."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError

from servers.hostnet.state.names import PREFIX

from . import client_networks, forwards, networks

if TYPE_CHECKING:
    from .models import Server, ServerHost, SplitDomain

PLATFORMS = ("linux", "win", "mac", "ios", "android", "chrome", "unknown")
# Resolvers answer these by themselves (RFC 6761, RFC 6762), or they are what addresses are looked up in.
TAKEN_ZONES = ("localhost", "local", "arpa", "invalid")
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
        if not is_name(item):
            raise ValidationError(f"{item!r} is not a domain name.")


def is_name(text: str) -> bool:
    """Whether ``text`` is a domain name; an address, or anything else that ends in a number, is none."""
    return bool(_NAME.fullmatch(text)) and not text.rpartition(".")[2].isdigit()


def zone(text: str) -> None:
    if not is_name(text):
        raise ValidationError(f"{text!r} is not a zone. Write it like vpn or vpn.example.com.")
    if text.lower().rpartition(".")[2] in TAKEN_ZONES:
        raise ValidationError(f"{text!r} has a meaning of its own on every machine. Write it like vpn.")


def interface_name(text: str) -> None:
    """A name that the kernel takes for an interface, and that is safe in a ruleset."""
    if not _INTERFACE.fullmatch(text):
        raise ValidationError(f"{text!r} is not the name of an interface such as eth1.")
    if text.startswith(PREFIX):
        raise ValidationError(f"The {PREFIX} interfaces are tunnels of ours.")


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
    _names(server, problems)
    if server.pk:
        for attachment in server.attachments.select_related("host"):
            if clash := _port_in_use(server, attachment.host_id):
                problems["port"] = [f"UDP port {server.port} is in use on host {attachment.host} by server {clash}."]
            elif taken := forwards.of_port(attachment.host_id, "udp", server.port):
                problems["port"] = [f"UDP port {server.port} of host {attachment.host} is forwarded to {taken.user}."]
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
    _derive6(server, mine.get("wg_network"))
    if server.ipv6 or server.network6:
        try:
            if isinstance(four := mine.get("wg_network"), networks.IPv4):
                mine["network6"] = networks.virtual_network6(server.network6, four)
                server.network6 = str(mine["network6"])
        except ValidationError as error:
            problems["network6"] = error.messages
    for field, network in mine.items():
        if field not in problems and (message := _overlap(server, network) or _mapped(server, field, network)):
            problems[field] = [message]
    if server.pk and "wg_network" not in problems and "wg_network" in mine:
        _still_room(server, mine["wg_network"], problems)


def _derive6(server: Server, four: networks.Network | None) -> None:
    """Give the server the IPv6 network that belongs to its WG network, if an admin chose none: there is none yet,
    or still the one that belongs to the WG network as it was."""
    from .models import Server as Model

    if not server.ipv6 or not isinstance(four, networks.IPv4):
        return
    before = Model.objects.filter(pk=server.pk).values_list("wg_network", flat=True).first()
    if not server.network6 or (before and server.network6 == str(networks.derived6(networks.parse4(before)))):
        server.network6 = str(networks.derived6(four))


def _names(server: Server, problems: dict[str, list[str]]) -> None:
    if server.dns_tls_name and len(listed(server.dns_tls_name)) != 1:
        problems["dns_tls_name"] = ["One name, that of all these servers' certificates."]
    elif server.dns_tls_name and not listed(server.dns_servers):
        problems["dns_tls_name"] = ["Give the DNS servers that are asked over TLS, or leave this empty."]


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
    return client_networks.overlapped(network)


def _mapped(server: Server, field: str, network: networks.Network) -> str | None:
    """Whether a tunnel network meets one that a route maps. The server's own routes are in the same form, where their
    own check says it."""
    from .models import Route

    if field == "network":
        return None  # nobody has an address of it
    for route in Route.objects.exclude(netmap="").exclude(server=server.pk).select_related("server"):
        for text in (route.network, route.netmap):
            other = ipaddress.ip_network(text)
            if other.version == network.version and other.overlaps(network):
                return f"{network} overlaps {text}, which a route of server {route.server} maps."
    return None


def _still_room(server: Server, network: networks.Network, problems: dict[str, list[str]]) -> None:
    highest = server.addresses.exclude(user=None).order_by("-host_part").first()
    if highest is not None and highest.host_part > network.num_addresses - 2:
        problems["wg_network"] = [f"{network} is too small: {highest.user} has host part {highest.host_part}."]


def _port_in_use(server: Server, host: int) -> Server | None:
    from .models import Server as Model

    return Model.objects.filter(port=server.port, attachments__host=host).exclude(pk=server.pk).first()


def attachment(attachment: ServerHost) -> None:
    # The object and not its id: a new server, in a form with its hosts, has no id yet but a port.
    server: Server | None = getattr(attachment, "server", None)
    if server is not None and attachment.host_id and (clash := _port_in_use(server, attachment.host_id)):
        message = f"UDP port {server.port} is in use on host {attachment.host} by server {clash}."
        raise ValidationError({"host": f"{message} Give one of them another WireGuard port."})
    if server is not None and attachment.host_id and (taken := forwards.clash_on_host(server, attachment.host_id)):
        raise ValidationError({"host": taken})
    if server is not None and attachment.host_id and (met := client_networks.clash_on_host(server, attachment.host_id)):
        raise ValidationError({"host": met})


def split_domain(split: SplitDomain) -> None:
    """Raise ``ValidationError`` with a message at the field that must change."""
    problems: dict[str, list[str]] = {}
    # The object and not its id: in a form with its server, that has none yet.
    server: Server | None = getattr(split, "server", None)
    split.domain = split.domain.lower()
    if split.domain and not is_name(split.domain):
        problems["domain"] = [f"{split.domain!r} is not one domain name. Write it like corp.example."]
    elif server is not None and f".{split.domain}".endswith(f".{server.dns_zone.lower()}"):
        problems["domain"] = [f"{split.domain} is in {server.dns_zone}, the zone of this server's own names."]
    if split.dns_servers and not listed(split.dns_servers):
        problems["dns_servers"] = ["Give at least one address."]
    if problems:
        raise ValidationError(problems)
