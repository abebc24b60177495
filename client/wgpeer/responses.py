"""What the server may response, checked field by field. Everything here has passed the envelope and is still not
trusted to be well formed: an address that is no address must not reach the kernel. The format is that of
docs/PROTOCOL.md."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wgpeer.constants import MAX_METRIC, MAX_ROUTES, PING_INTERVAL_MIN
from wgpeer.envelope import Identity, InvalidResponse, b64_decode, verify_mac
from wgpeer.text import printable


@dataclass(frozen=True, slots=True)
class Route:
    """A network that goes through the tunnel, or, when ``excluded``, one that is cut out of those that do. ``metric``
    is 0 where the server gives none."""

    network: str
    excluded: bool = False
    metric: int = 0


@dataclass(frozen=True, slots=True)
class Configuration:
    """A tunnel as the server describes it.

    ``addresses`` are the interface's own, with prefix length; ``endpoints`` are names or addresses of the host,
    ``port`` its WireGuard port, ``public_key`` its key in base64. ``gateway`` is its address inside the tunnel, where
    pings go by HTTP to ``web_port``. ``ping_interval``, ``ping_timeout`` and ``session_left`` (for how long the
    connection may last; 0: without end) are seconds, ``mtu`` is bytes (0: find out). ``search_domains`` are tried
    behind short names; ``routing_domains`` only say which names are looked up through the tunnel, none of them meaning
    all names. ``network_links`` are networks that the server routes to this machine.
    """

    addresses: tuple[str, ...]
    endpoints: tuple[str, ...]
    port: int
    public_key: str
    gateway: str
    web_port: int
    web_no_ssl: bool
    ping_interval: float
    ping_timeout: float
    session_left: float
    mtu: int
    routes: tuple[Route, ...]
    dns_servers: tuple[str, ...]
    search_domains: tuple[str, ...]
    routing_domains: tuple[str, ...]
    network_links: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Allowed:
    """The connection is open on its host."""

    configuration: Configuration


@dataclass(frozen=True, slots=True)
class NotAllowed:
    """Refused for good: a person must act. ``reg_key`` is what the administrator needs to confirm an unknown device."""

    reason: str
    reg_key: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """The server has ended the connection. ``reason`` is empty where it does not say why."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class SignInRequired:
    """The user must open ``url``; then the request is repeated with ``token``."""

    url: str
    token: str

    @property
    def code(self) -> str:
        """What the page behind ``url`` shows too, so that nobody signs in for another's attempt: ``ABC-DEF``. It comes
        from the token, which is signed, so nobody on the way can put another one in."""
        text = base64.b32encode(hashlib.sha256(f"sign-in code {self.token}".encode()).digest()).decode()
        return f"{text[:3]}-{text[3:6]}"


def read_connect(response: Mapping[str, Any]) -> Allowed | NotAllowed:
    """Read the opened response to a connect. Raises ``InvalidResponse``."""
    if response.get("allow") is True:
        return Allowed(read_configuration(response.get("configuration")))
    if response.get("allow") is not False:
        raise InvalidResponse("the response neither allows nor refuses")
    reg_key = printable(_text(response, "reg_key"), 64)
    reason = printable(_text(response, "reason"))
    if reg_key:
        return NotAllowed(reason or "this device is not registered", reg_key)
    return NotAllowed(reason or "the server gave no reason")


def read_sign_in(identity: Identity, response: Mapping[str, Any]) -> SignInRequired:
    """Read the response that asks for single sign-on, which has no box. Its signature is required: an address that
    somebody on the way put in would send the user to a false sign-in page. Raises ``InvalidResponse``."""
    url, token = _text(response, "sso_url"), _text(response, "sso_token")
    if not verify_mac(identity.sync_secret, f"{token}&{url}", response.get("signature")):
        raise InvalidResponse("the sign-in address is not signed by the server")
    if not url.startswith(("https://", "http://")) or not url.isprintable() or len(url) > 2000:
        raise InvalidResponse("the sign-in address is not a web address")
    return SignInRequired(url, token)


def read_ping(response: Mapping[str, Any]) -> bool:
    """Whether the server still knows this connection. Raises ``InvalidResponse``."""
    status = response.get("status")
    if not isinstance(status, bool):
        raise InvalidResponse("the ping's response has no status")
    return status


def read_end(response: Mapping[str, Any]) -> Ended | None:
    """Why the server has ended the connection, by the response to a ping; None: it has not. Raises
    ``InvalidResponse``."""
    return None if read_ping(response) else Ended(printable(_text(response, "reason")))


def read_configuration(value: object) -> Configuration:
    """Check a configuration as the server sent it. Raises ``InvalidResponse``."""
    if not isinstance(value, dict):
        raise InvalidResponse("allowed, but without a configuration")
    public_key = _text(value, "public_key")
    b64_decode(public_key, 32)
    endpoints = tuple(_host(_text(value, key)) for key in ("hostname", "hostname6") if _text(value, key))
    addresses = tuple(_interface(_text(value, key)) for key in ("address", "address6") if _text(value, key))
    if not endpoints or not addresses:
        raise InvalidResponse("the configuration lacks an address or a host name")
    return Configuration(
        addresses=addresses,
        endpoints=endpoints,
        port=_number(value, "port", 1, 65535),
        public_key=public_key,
        gateway=_address(_text(value, "gateway")),
        web_port=_number(value, "web_port", 1, 65535),
        web_no_ssl=value.get("web_no_ssl") is True,
        ping_interval=max(PING_INTERVAL_MIN, _number(value, "ping_interval", 0, 3600, 10)),
        ping_timeout=_number(value, "ping_timeout", 1, 86400, 360),
        session_left=_number(value, "session_left", 0, 10**9, 0),
        mtu=_mtu(_number(value, "mtu", 0, 65535, 0)),
        routes=_routes(value, "routes", 4) + _routes(value, "routes6", 6),
        dns_servers=tuple(_address(item) for item in _texts(value, "dns_servers")),
        search_domains=tuple(_domain(item) for item in _texts(value, "search_domains")),
        routing_domains=tuple(_domain(item) for item in _texts(value, "routing_domains")),
        network_links=tuple(
            _network(item) for key in ("network_links", "network_links6") for item in _texts(value, key)
        ),
    )


def _mtu(value: int) -> int:
    if value and not 576 <= value <= 9000:
        raise InvalidResponse("mtu is out of range")
    return value


def _routes(value: Mapping[str, Any], key: str, version: int) -> tuple[Route, ...]:
    items = value.get(key) or []
    if not isinstance(items, list) or len(items) > MAX_ROUTES:
        raise InvalidResponse(f"{key} is not a list of routes")
    routes = []
    for item in items:
        if not isinstance(item, dict):
            raise InvalidResponse(f"{key} is not a list of routes")
        network = _network(_text(item, "network"))
        if ipaddress.ip_network(network).version != version:
            raise InvalidResponse(f"{key} holds a network of the other family")
        metric = _number(item, "metric", 0, MAX_METRIC, 0) if item.get("metric") is not None else 0
        routes.append(Route(network, item.get("net_gateway") is True, metric))
    return tuple(routes)


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise InvalidResponse(f"{key} is not a text")
    return text


def _texts(value: Mapping[str, Any], key: str) -> list[str]:
    items = value.get(key) or []
    if not isinstance(items, list) or len(items) > MAX_ROUTES or not all(isinstance(item, str) for item in items):
        raise InvalidResponse(f"{key} is not a list of texts")
    return items


def _number(value: Mapping[str, Any], key: str, low: int, high: int, default: int | None = None) -> int:
    number = value.get(key, default)
    if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
        raise InvalidResponse(f"{key} is not a number from {low} to {high}")
    return number


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise InvalidResponse("not an address where one belongs") from error


def _interface(text: str) -> str:
    try:
        return str(ipaddress.ip_interface(text))
    except ValueError as error:
        raise InvalidResponse("not an address with a prefix length") from error


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError as error:
        raise InvalidResponse("not a network where one belongs") from error


def _host(text: str) -> str:
    """A host name or address; an IPv6 address may stand in brackets."""
    if text.startswith("[") and text.endswith("]"):
        return _address(text[1:-1])
    return text if ":" in text and _address(text) else _domain(text)


def _domain(text: str) -> str:
    allowed = all(c.isascii() and (c.isalnum() or c in "-._") for c in text)
    if not text or len(text) > 253 or not allowed or text.startswith("-"):
        raise InvalidResponse("not a host or domain name where one belongs")
    return text
