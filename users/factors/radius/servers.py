"""Where RADIUS servers are, as administrators write it: a line each, ``HOST`` or ``HOST:PORT``, IPv6 in brackets."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

PORT = 1812
# More are asked by nobody's patience.
MOST_SERVERS = 8
_LINE = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\s:\[\]/@]+))(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class RadiusServer:
    host: str
    port: int = PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def connected(self) -> socket.socket:
        """A UDP socket to it. Raise ``OSError``."""
        family, kind, protocol, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.connect(address)
        except OSError:
            sock.close()
            raise
        return sock


def parse_servers(text: str) -> tuple[RadiusServer, ...]:
    """Raise ``ValueError`` with words for who wrote it."""
    servers = tuple(_server(line) for line in text.split())
    if not servers:
        raise ValueError("There is no server in it.")
    if len(servers) > MOST_SERVERS:
        raise ValueError(f"These are more than {MOST_SERVERS} servers.")
    if len(set(servers)) < len(servers):
        raise ValueError("One server is in it twice.")
    return servers


def _server(line: str) -> RadiusServer:
    match = _LINE.fullmatch(line)
    port = int(match["port"] or PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise ValueError(f"{line} is no server: write HOST or HOST:PORT, and an IPv6 address in brackets.")
    return RadiusServer(match["v6"] or match["host"], port)
