"""The other side, written afresh for the tests: a server's keys, a scripted network, a clock that only moves when told.

Nothing here uses the client's envelope, so a mistake in it cannot cancel itself out.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from nacl.public import Box, PrivateKey, PublicKey
from wgpeer.clock import Stopped
from wgpeer.constants import CONNECT_TIMEOUT
from wgpeer.envelope import Identity, SealedRequest
from wgpeer.profile import Profile, parse
from wgpeer.responses import Configuration
from wgpeer.status import Health
from wgpeer.transport import HttpResponse, NoResponse
from wgpeer.tunnel.contract import TunnelError

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "tests/vectors/connect.json").read_text())
IDS = tuple(VECTORS[name] for name in ("organization_id", "user_id", "server_id"))
BOX = PrivateKey(base64.b64decode(VECTORS["server_box_private_key"]))
SECRET = VECTORS["sync_secret"]
PEM = VECTORS["user_private_key_pkcs1"].strip()
_loaded = serialization.load_pem_private_key(PEM.encode(), None, unsafe_skip_rsa_key_validation=True)
assert isinstance(_loaded, rsa.RSAPrivateKey)
RSA_KEY = _loaded
# Seconds that nothing here takes, however busy the machine is. Whoever waits for so long, hangs.
HANGING = 120.0
DEVICE_ID = "0b7c9e5f4a8d4e0f9a1b2c3d4e5f6071"

CONFIGURATION: dict[str, Any] = {
    "address": "10.9.0.5/24",
    "address6": "",
    "hostname": "192.0.2.10",
    "hostname6": "",
    "port": 51820,
    "public_key": base64.b64encode(bytes(range(32))).decode(),
    "gateway": "10.9.0.1",
    "gateway6": "",
    "web_port": 9790,
    "web_no_ssl": True,
    "ping_interval": 10,
    "ping_timeout": 360,
    "mtu": 1400,
    "routes": [{"network": "10.9.0.0/24", "next_hop": "10.9.0.1"}],
    "routes6": [],
    "dns_servers": [],
    "search_domains": [],
    "network_links": [],
    "network_links6": [],
}


def identity(**changes: Any) -> Identity:
    values: dict[str, Any] = {
        "sync_token": VECTORS["sync_token"],
        "sync_secret": SECRET,
        "rsa_key": RSA_KEY,
        "server_box_key": BOX.public_key,
    }
    return Identity(**(values | changes))


def profile_header(**changes: Any) -> dict[str, Any]:
    header: dict[str, Any] = {
        "version": 2,
        "user": "alice",
        "organization": "acme",
        "server": "office",
        "organization_id": IDS[0],
        "user_id": IDS[1],
        "server_id": IDS[2],
        "wg": True,
        "server_box_public_key": VECTORS["server_box_public_key"],
        "sync_hosts": ["https://a.example", "https://b.example:8443"],
        "revision": 3,
        "sync_hash": "d41d8cd98f00b204e9800998ecf8427e",
        "sync_token": VECTORS["sync_token"],
        "sync_secret": SECRET,
        "password_mode": None,
    }
    return header | changes


def profile_text(*, drop: tuple[str, ...] = (), key: str | None = PEM, lines: str | None = None, **changes: Any) -> str:
    header = {name: value for name, value in profile_header(**changes).items() if name not in drop}
    shown = "\n".join("#" + line for line in json.dumps(header, indent=4).split("\n"))
    body = lines if lines is not None else f"setenv UV_ID {DEVICE_ID}\nsetenv UV_NAME wandering-heron-4821\nclient\n"
    body += "remote c.example 1194 udp\nremote ignored.example 1194\n"
    blocks = "<ca>\nCA\n</ca>\n<cert>\nCERT\n</cert>\n" + (f"<key>\n{key}\n</key>\n" if key else "")
    return f"{shown}\n{body}{blocks}"


def make_profile(**changes: Any) -> Profile:
    return parse(profile_text(**changes))


def hmac64(message: str, secret: str = SECRET) -> str:
    return base64.b64encode(hmac.new(secret.encode(), message.encode(), hashlib.sha512).digest()).decode()


@dataclass
class OpenedRequest:
    """A request as a server sees it after all checks."""

    base: str
    method: str
    path: str
    plaintext: dict[str, Any]
    client_key: PublicKey
    body: dict[str, Any]

    @property
    def kind(self) -> str:
        return {"PUT": "ping", "GET": "sync"}.get(self.method, self.path.split("/")[2])


def open_request(base: str, method: str, path: str, headers: dict[str, str], raw: bytes) -> OpenedRequest:
    """All three proofs, or an AssertionError."""
    auth = [headers[f"Auth-{name}"] for name in ("Token", "Timestamp", "Nonce")]
    assert auth[0] == VECTORS["sync_token"]
    assert len(auth[2]) == 32
    if method == "GET":
        assert headers["Auth-Signature"] == hmac64("&".join([*auth, method, path]))
        return OpenedRequest(base, method, path, {}, BOX.public_key, {})
    body = json.loads(raw)
    signed = [*auth, method, path, body["data"], body["nonce"], body["public_key"], body["signature"]]
    if body.get("device_signature"):
        signed.append(body["device_signature"])
    assert headers["Auth-Signature"] == hmac64("&".join(signed))
    digest = hashlib.sha512("&".join([body["data"], body["nonce"], body["public_key"]]).encode()).digest()
    scheme = padding.PSS(mgf=padding.MGF1(hashes.SHA512()), salt_length=padding.PSS.AUTO)
    RSA_KEY.public_key().verify(base64.b64decode(body["signature"]), digest, scheme, Prehashed(hashes.SHA512()))
    client_key = PublicKey(base64.b64decode(body["public_key"]))
    opened = Box(BOX, client_key).decrypt(base64.b64decode(body["data"]), base64.b64decode(body["nonce"]))
    return OpenedRequest(base, method, path, json.loads(opened), client_key, body)


def seal_response(
    request: OpenedRequest, answer: dict[str, Any], *, box: PrivateKey = BOX, secret: str = SECRET
) -> bytes:
    message = Box(box, request.client_key).encrypt(json.dumps(answer).encode())
    data, nonce = (base64.b64encode(part).decode() for part in (message.ciphertext, message.nonce))
    return json.dumps({"data": data, "nonce": nonce, "signature": hmac64(f"{data}&{nonce}", secret)}).encode()


def allow(request: OpenedRequest, **changes: Any) -> HttpResponse:
    configuration = CONFIGURATION | changes
    return HttpResponse(200, seal_response(request, {"allow": True, "reason": None, "configuration": configuration}))


def refuse(request: OpenedRequest, reason: str | None = "Second factor refused", **more: Any) -> HttpResponse:
    return HttpResponse(200, seal_response(request, {"allow": False, "reason": reason, "configuration": None} | more))


def pong(request: OpenedRequest, *, status: bool = True) -> HttpResponse:
    return HttpResponse(200, seal_response(request, {"status": status, "timestamp": 1}))


def silence(_request: OpenedRequest) -> HttpResponse:
    raise NoResponse("no sign of life", silent=True)


def status(code: int, retry_after: float = 0.0) -> Callable[[OpenedRequest], HttpResponse]:
    return lambda _request: HttpResponse(code, b"{}", retry_after)


Handler = Callable[[OpenedRequest], HttpResponse]


@dataclass
class FakeClock:
    """Moves only by waiting, and ends the session when ``stop_at`` (boot time) is reached."""

    now: float = 1000.0
    stop_at: float = 1500.0
    wall_offset: float = 1_790_000_000.0 - 1000.0
    waits: list[float] = field(default_factory=list)
    suspend: tuple[float, float] | None = None
    wake_at: list[float] = field(default_factory=list)

    def wall(self) -> float:
        return self.now + self.wall_offset

    def boottime(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        due = self.now + max(0.0, seconds)
        woken = bool(self.wake_at) and self.wake_at[0] <= due
        self.now = max(self.now, self.wake_at.pop(0)) if woken else due
        if self.suspend and self.now >= self.suspend[0]:
            self.now += self.suspend[1]
            self.suspend = None
        if self.now >= self.stop_at:
            raise Stopped
        return woken


@dataclass
class FakeResolver:
    """Every name is an address."""

    prefetched: Callable[[list[str]], None]
    avoided: set[str] = field(default_factory=set)

    def prefetch(self, hosts: Iterable[str]) -> None:
        self.prefetched(sorted(hosts))

    def avoid(self, hosts: Iterable[str]) -> None:
        self.avoided = set(hosts)

    def is_avoided(self, host: str) -> bool:
        return host in self.avoided


@dataclass
class FakeNetwork:
    """A transport whose hosts are functions. The gateway of the tunnel is the host ``gateway``."""

    clock: FakeClock
    hosts: dict[str, Handler]
    seen: list[tuple[float, OpenedRequest]] = field(default_factory=list)

    def send(
        self,
        base: str,
        request: SealedRequest,
        seconds: float,
        *,
        query: str = "",
        interface: str = "",
        connect: float = CONNECT_TIMEOUT,
    ) -> HttpResponse:
        opened = open_request(base, request.method, request.path, request.headers, request.body)
        assert query == ("ver=2" if request.method == "GET" else "")
        self.seen.append((self.clock.now, opened))
        try:
            return self.hosts["gateway" if interface else base](opened)
        except NoResponse as error:
            if error.silent:
                self.clock.now += min(seconds, connect)
            raise

    def of(self, kind: str) -> list[OpenedRequest]:
        return [opened for _, opened in self.seen if opened.kind == kind]

    def times(self, kind: str) -> list[float]:
        return [when for when, opened in self.seen if opened.kind == kind]


@dataclass
class FakeTunnel:
    interface: str = "wgp0"
    backend: str = "fake"
    dns: str = ""
    routes: str = ""
    mtu: int = 1420
    health: Health = field(default_factory=Health)
    ups: list[tuple[Configuration, bytes]] = field(default_factory=list)
    replaced: list[tuple[Configuration, bytes]] = field(default_factory=list)
    downs: int = 0

    def replace(
        self,
        configuration: Configuration,
        key: PrivateKey,
        works: Callable[[str], bool],
        *,
        use_dns: bool,
        use_default_route: bool,
    ) -> str:
        if not works("wgp1"):
            raise TunnelError("nothing comes through it")
        self.replaced.append((configuration, bytes(key)))
        return f"{configuration.endpoints[0]}:{configuration.port}"

    def up(self, configuration: Configuration, key: PrivateKey, *, use_dns: bool, use_default_route: bool) -> str:
        self.ups.append((configuration, bytes(key)))
        return f"{configuration.endpoints[0]}:{configuration.port}"

    def down(self) -> None:
        self.downs += 1


HttpHandler = Callable[[str, str, dict[str, str], bytes], HttpResponse]


def make_http_server(
    handler: HttpHandler, address: tuple[str, int], tls: tuple[Path, Path] | None
) -> ThreadingHTTPServer:
    """A real server, listening and not yet serving. ``tls`` is certificate and key."""

    class Handling(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = handler(self.command, self.path, dict(self.headers), raw)
            self.send_response(answer.status)
            if answer.status in (301, 302):
                self.send_header("Location", "https://127.0.0.1:1/elsewhere")
            if answer.retry_after:
                self.send_header("Retry-After", str(int(answer.retry_after)))
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = do_PUT = _answer

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(address, Handling)
    server.daemon_threads = True
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return server


@contextmanager
def http_server(handler: HttpHandler, *, tls: tuple[Path, Path] | None = None) -> Iterator[int]:
    """A real server on loopback; gives its port."""
    server = make_http_server(handler, ("127.0.0.1", 0), tls)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(HANGING)
