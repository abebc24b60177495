"""The server's API for clients: one request and its response for connect, sign-in, ping and sync.

No retries and no decisions: those are in ``session`` and ``keepalive``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from wgpeer import __version__
from wgpeer.clock import Clock
from wgpeer.constants import (
    CONNECT_TIMEOUT,
    PUSH_RESPONSE_TIMEOUT,
    RESPONSE_TIMEOUT,
    SIGN_IN_RESPONSE_TIMEOUT,
    SYNC_TIMEOUT,
)
from wgpeer.envelope import (
    Ephemeral,
    Identity,
    InvalidResponse,
    SealedRequest,
    device_public,
    json_object,
    open_response,
    random_alphanumeric,
    seal,
    sign_sync,
    verify_mac,
)
from wgpeer.profile import ApiHost, Profile
from wgpeer.responses import (
    Allowed,
    Configuration,
    Ended,
    NotAllowed,
    SignInRequired,
    read_connect,
    read_end,
    read_sign_in,
)
from wgpeer.tpm import TpmError
from wgpeer.transport import NoResponse, Transport

T = TypeVar("T")

NAMELESS = ("", "localhost")  # the host names of a machine that nobody gave one
STATUS_MESSAGES = {
    400: "says the request is malformed",
    401: "does not accept this profile's keys; ask for a new import link if that goes on",
    404: "does not know this address",
    408: "says this machine's clock is wrong; set the time",
    409: "has seen this request or key before",
    413: "says the request is too large",
    429: "has no room or has stopped this server",
}


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What a request says about this machine. ``mac_addrs`` are texts like 02:00:00:00:00:01; ``name`` is what people
    call it, empty for the name in the profile."""

    hostname: str = ""
    mac_addrs: tuple[str, ...] = ()
    name: str = ""

    @classmethod
    def gather(cls, name: str = "") -> DeviceInfo:
        """Of this machine as it is now. It is called by its host name unless ``name`` is given."""
        addresses = []
        for _, interface in socket.if_nameindex():
            path = Path("/sys/class/net") / interface / "address"
            address = path.read_text().strip() if path.exists() else ""
            if address.strip("0:"):
                addresses.append(address[:17])
        hostname = socket.gethostname()[:128]
        own = "" if hostname.split(".")[0] in NAMELESS else hostname
        return cls(hostname, tuple(addresses), name[:128] or own)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a connect request offers: the connection's WireGuard key (base64), the joined secrets, and the factor token.
    ``password`` is kept in memory only. ``renews`` is the key of a connection that is up and that this one continues,
    in base64."""

    wg_public_key: str
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    renews: str = ""


@dataclass(frozen=True, slots=True)
class SignInPending:
    """The user has not signed in yet."""


@dataclass(frozen=True, slots=True)
class Failed:
    """No usable response. ``status`` is 0 without an HTTP response, ``retry_after`` is seconds (0: the server gave
    none); ``silent``: nothing came at all within the time."""

    reason: str
    status: int = 0
    retry_after: float = 0.0
    silent: bool = False


ConnectResult = Allowed | NotAllowed | SignInRequired | SignInPending | Failed


class ApiClient:
    """Sends the requests of one profile. Failures are returned, as ``Failed``, and never raised."""

    def __init__(
        self, profile: Profile, identity: Identity, device_info: DeviceInfo, clock: Clock, transport: Transport
    ) -> None:
        self.profile = profile
        self._identity = identity
        self._device_info = device_info
        self._clock = clock
        self._transport = transport

    def connect(self, host: ApiHost, credentials: Credentials) -> ConnectResult:
        """Ask a host to allow a connection."""
        seconds = PUSH_RESPONSE_TIMEOUT if self.profile.flag("push_auth") else RESPONSE_TIMEOUT
        return self._post(host, "wg", credentials, "", seconds)

    def wait_for_sign_in(
        self, host: ApiHost, credentials: Credentials, sso_token: str, seconds: float = SIGN_IN_RESPONSE_TIMEOUT
    ) -> ConnectResult:
        """Ask again after ``SignInRequired``, with its token. The host holds the request until the user has signed in,
        for up to about 20 s; then the result is ``SignInPending``."""
        return self._post(host, "wg_wait", credentials, sso_token, seconds)

    def ping(
        self, configuration: Configuration, wg_public_key: str, interface: str, seconds: float, connect: float
    ) -> Ended | Failed | None:
        """None: the server still knows this connection. Sent through the tunnel, to its gateway; ``seconds`` bounds
        it, ``connect`` its TCP connection alone."""
        plaintext = self._plaintext(Credentials(wg_public_key), "")
        sealed = self._seal("PUT", "wg", plaintext, device=False)
        return self._send(
            gateway_url(configuration),
            sealed,
            seconds,
            lambda raw: read_end(self._open(sealed, raw)),
            interface=interface,
            connect=connect,
        )

    def sync(self, base: str, interface: str) -> str | Failed:
        """The text of the changed profile, its signature verified; empty when nothing has changed."""
        hash_ = self.profile.text("sync_hash") or "0"
        path = f"/key/sync/{'/'.join(self.profile.ids)}/{hash_}"
        sealed = sign_sync(self._identity, random_alphanumeric(32), path, int(self._clock.wall()))
        return self._send(base, sealed, SYNC_TIMEOUT, self._read_sync, query="ver=2", interface=interface)

    def _post(
        self, host: ApiHost, kind: str, credentials: Credentials, sso_token: str, seconds: float
    ) -> ConnectResult:
        plaintext = self._plaintext(credentials, sso_token)
        try:
            sealed = self._seal("POST", kind, plaintext, device=self.profile.flag("device_auth"))
        except TpmError as error:  # perhaps another program has it for a moment
            return Failed(str(error))

        def read(raw: bytes) -> ConnectResult:
            response = json_object(raw)
            if "sso_url" in response:
                return read_sign_in(self._identity, response)
            return read_connect(self._open(sealed, raw))

        result = self._send(host.url, sealed, seconds, read)
        if kind == "wg_wait" and isinstance(result, Failed) and result.status == 428:
            return SignInPending()
        return result

    def _send(
        self,
        base: str,
        sealed: SealedRequest,
        seconds: float,
        read: Callable[[bytes], T],
        *,
        query: str = "",
        interface: str = "",
        connect: float = CONNECT_TIMEOUT,
    ) -> T | Failed:
        try:
            response = self._transport.send(base, sealed, seconds, query=query, interface=interface, connect=connect)
            if response.status != 200:
                message = STATUS_MESSAGES.get(response.status, f"answered with status {response.status}")
                return Failed(f"{base} {message}", response.status, response.retry_after)
            return read(response.body)
        except NoResponse as error:
            return Failed(str(error), silent=error.silent)
        except InvalidResponse as error:
            return Failed(f"{base} gave a response that cannot be trusted: {error}")

    def _seal(self, method: str, kind: str, plaintext: dict[str, Any], *, device: bool) -> SealedRequest:
        path = f"/key/{kind}/{'/'.join(self.profile.ids)}"
        return seal(
            self._identity, Ephemeral.generate(), method, path, plaintext, int(self._clock.wall()), device=device
        )

    def _open(self, sealed: SealedRequest, raw: bytes) -> dict[str, Any]:
        if sealed.box_key is None:
            raise InvalidResponse("there is no key to open this response with")
        return open_response(self._identity, sealed.box_key, json_object(raw))

    def _read_sync(self, raw: bytes) -> str:
        response = json_object(raw)
        if not response:
            return ""
        text = response.get("conf")
        if not isinstance(text, str) or not verify_mac(self._identity.sync_secret, text, response.get("signature")):
            raise InvalidResponse("the signature of the new profile is wrong")
        return text

    def _plaintext(self, credentials: Credentials, sso_token: str) -> dict[str, Any]:
        device_key = self._identity.device_key if self.profile.flag("device_auth") else None
        return {
            "device_id": self.profile.device_id,
            "device_name": self._device_info.name or self.profile.device_name,
            "device_hostname": self._device_info.hostname,
            "device_key": device_public(device_key),
            "platform": "linux",
            "client_ver": __version__,
            "mac_addr": self._device_info.mac_addrs[0] if self._device_info.mac_addrs else "",
            "mac_addrs": list(self._device_info.mac_addrs),
            "token": credentials.token,
            "nonce": random_alphanumeric(16),
            "password": credentials.password,
            "timestamp": int(self._clock.wall()),
            "wg_public_key": credentials.wg_public_key,
            "public_address": "",
            "public_address6": "",
            "sso_token": sso_token,
            **({"renews": credentials.renews} if credentials.renews else {}),
        }


def gateway_url(configuration: Configuration) -> str:
    """Where pings go: the host's own address inside the tunnel, as ``http(s)://address:port``."""
    host = f"[{configuration.gateway}]" if ":" in configuration.gateway else configuration.gateway
    return f"{'http' if configuration.web_no_ssl else 'https'}://{host}:{configuration.web_port}"
