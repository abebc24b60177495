"""Other firewalls of this machine, for ``bin/run --check``. Reads only."""

from __future__ import annotations

import json
import subprocess

from servers.hostnet.foreign.manager import Foreign
from servers.hostnet.state import OUR_INTERFACE, PREFIX, HostCondition, Interface

DEFAULT_PORT = 51820
# In the place of a server where none runs yet.
STAND_IN = (f"{PREFIX}1", DEFAULT_PORT, ["10.9.0.1/24"])


def in_the_way(gateway_port: int) -> list[HostCondition]:
    """What other firewalls would drop of the servers that run here, or of one with usual settings; or that this cannot
    be found out."""
    interfaces = [
        # Which routes a server has is not known here: one that sends everything stands for all.
        Interface(name, name, port, tuple(addresses), 0, True, 360, (), (), restrict=False)
        for name, port, addresses in running() or [STAND_IN]
    ]
    return Foreign().check(interfaces, gateway_port)


def running() -> list[tuple[str, int, list[str]]]:
    """Name, UDP port and addresses of each interface of ours."""
    found = []
    for link in json.loads(_said("ip", "-j", "address") or "[]"):
        name = str(link.get("ifname", ""))
        port = _said("wg", "show", name, "listen-port").strip() if OUR_INTERFACE.fullmatch(name) else ""
        inside = [f"{a['local']}/{a['prefixlen']}" for a in link.get("addr_info", ()) if a.get("scope") == "global"]
        if port.isdigit() and int(port) and inside:
            found.append((name, int(port), inside))
    return found


def _said(*command: str) -> str:
    """What a command prints; nothing if it fails or is not installed."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
