"""What a single field may hold; what is wrong with it is said in words."""

from __future__ import annotations

import ipaddress
import re
import zoneinfo

from django.core.exceptions import ValidationError

from servers.hostnet.state.names import HOST_NAME, INTERFACE, PREFIX

PLATFORMS = ("linux", "win", "mac", "ios", "android", "chrome", "unknown")
# Resolvers answer these by themselves (RFC 6761, RFC 6762), or they are what addresses are looked up in.
TAKEN_ZONES = ("localhost", "local", "arpa", "invalid")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
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
    elif not HOST_NAME.fullmatch(text):
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


def trusted_networks(text: str) -> None:
    for item in listed(text):
        try:
            network = ipaddress.ip_network(item)
        except ValueError:
            raise ValidationError(f"{item!r} is not a network. Write it like 198.51.100.0/24.") from None
        if not network.prefixlen:
            raise ValidationError(f"{item} is everybody. Ask for no second factor, if that is meant.")


def time_zone(text: str) -> None:
    if text not in zoneinfo.available_timezones():
        raise ValidationError(f"{text!r} is not a time zone. Write it like Europe/Berlin.")


def domains(text: str) -> None:
    for item in listed(text):
        if not is_name(item):
            raise ValidationError(f"{item!r} is not a domain name.")


def is_name(text: str) -> bool:
    """Whether ``text`` is a domain name; an address, or anything else that ends in a number, is none."""
    return bool(HOST_NAME.fullmatch(text)) and not text.rpartition(".")[2].isdigit()


def zone(text: str) -> None:
    if not is_name(text):
        raise ValidationError(f"{text!r} is not a zone. Write it like vpn or vpn.example.com.")
    if text.lower().rpartition(".")[2] in TAKEN_ZONES:
        raise ValidationError(f"{text!r} has a meaning of its own on every machine. Write it like vpn.")


def region(text: str) -> None:
    if not _LABEL.fullmatch(text):
        raise ValidationError(f"{text!r} is not a label. Write it like eu-west, in small letters, digits and hyphens.")


def interface_name(text: str) -> None:
    """A name that the kernel takes for an interface, and that is safe in a ruleset."""
    if not INTERFACE.fullmatch(text):
        raise ValidationError(f"{text!r} is not the name of an interface such as eth1.")
    if text.startswith(PREFIX):
        raise ValidationError(f"The {PREFIX} interfaces are tunnels of ours.")


def platforms(text: str) -> None:
    for item in listed(text):
        if item not in PLATFORMS:
            raise ValidationError(f"{item!r} is not a platform. There are: {', '.join(PLATFORMS)}.")
