"""What openvpn is told of one end of a link: its configuration file, in full, keys included. Pure, but for
looking whether the kernel has IPv6."""

from __future__ import annotations

from pathlib import Path

from servers.hostnet.mesh.routes import HAS_IPV6
from servers.hostnet.state import OpenVpn

USER, GROUP = "nobody", "nogroup"  # Debian's own, which own nothing
# Seconds. The other end is asked every PING; after SILENCE without a word this one begins anew.
PING, SILENCE = 3, 9
# The other end may be on another machine by then, each of which is given ANSWER to say anything at all.
RETRY, LONGEST_RETRY, ANSWER, HANDSHAKE = 1, 5, 3, 15


def text(end: OpenVpn, socket: Path, mtu: int) -> str:
    """The configuration of a process whose interface is there already, with ``mtu`` bytes."""
    role, other = ("tls-server", "client") if end.listens else ("tls-client", "server")
    where = _listening(end) if end.listens else _sending(end)
    lines = [
        "# Written by the VPN server for its own openvpn; changes are lost.",
        f"dev {end.device}",
        "dev-type tun",
        f"tun-mtu {mtu}",
        "mssfix 0",  # our firewall does it, for both directions
        "persist-tun",
        "persist-key",
        "disable-dco",  # which would need root's rights for as long as it runs
        *where,
        role,
        # Who is at the other end: signed by this authority for this side of a connection, and with this very name.
        f"remote-cert-tls {other}",
        f"verify-x509-name {end.peer} name",
        "tls-version-min 1.3",
        "data-ciphers AES-256-GCM:CHACHA20-POLY1305",
        "auth SHA256",
        *(["dh none"] if end.listens else []),
        "allow-compression no",
        "reneg-sec 3600",
        f"ping {PING}",
        f"ping-restart {SILENCE}",
        "ping-timer-rem",
        # Addresses, routes and the interface itself are ours to set; it starts no program.
        "ifconfig-noexec",
        "route-noexec",
        "script-security 0",
        f"user {USER}",
        f"group {GROUP}",
        f"management {socket} unix",
        f"tmp-dir {socket.parent}",  # it does not start where /tmp is read-only, as under a host's unit
        "verb 1",
        "mute 10",
    ]
    for tag, pem in (
        ("ca", end.authority),
        ("cert", end.certificate),
        ("key", end.key),
        ("tls-crypt", end.tls_crypt),
    ):
        lines += [f"<{tag}>", pem.strip(), f"</{tag}>"]
    return "\n".join(lines) + "\n"


def _listening(end: OpenVpn) -> list[str]:
    """``float``: the other end may be behind NAT, which gives it another port whenever it likes."""
    # "udp" would listen for one IP version alone; "udp6" does for both, where the kernel has IPv6.
    return [f"proto {'udp6' if HAS_IPV6.exists() else 'udp4'}", f"lport {end.port}", "float"]


def _sending(end: OpenVpn) -> list[str]:
    return [
        "proto udp",
        *(f"remote {address} {end.port}" for address in end.addresses),
        "nobind",
        "resolv-retry infinite",
        f"connect-retry {RETRY} {LONGEST_RETRY}",
        f"connect-timeout {ANSWER}",
        f"hand-window {HANDSHAKE}",
    ]
