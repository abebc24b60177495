"""What leaves a client's machine by its outer interfaces, packet by packet."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

from wgpeer_fakes import HANGING
from wgpeer_namespaces import API_PORT, OUT4, OUT6, WG_PORT, Net, address6, in_namespace


class Wire:
    """Watches what leaves the client by its outer interfaces, while programs on it talk to the internet all the time.

    ``leaks`` is what left and was neither WireGuard nor the API nor the housekeeping of a link.
    """

    def __init__(self, net: Net) -> None:
        self.leaks: set[str] = set()
        self.wireguard = self.sent = 0
        self._hosts = {text for host in net.hosts for text in (host.address, address6(host))}
        self._ending = threading.Event()
        devices = [f"v{net.client[3:]}{host.number}a" for host in net.hosts]
        self._taps = [in_namespace(net.client, lambda device=device: self._tap(device)) for device in devices]
        self._talkers = in_namespace(net.client, self._make_talkers)
        works = [*(lambda tap=tap: self._watch(tap) for tap in self._taps), self._talk]
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(HANGING)
        for each in [*self._taps, *(talker for talker, _ in self._talkers)]:
            each.close()

    @staticmethod
    def _tap(device: str) -> socket.socket:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))  # ETH_P_ALL
        tap.bind((device, 3))
        tap.settimeout(0.1)
        return tap

    @staticmethod
    def _make_talkers() -> list[tuple[socket.socket, str]]:
        """Sockets that know no address of their own, and some that are bound to the outer one."""
        talkers = []
        for family, target, own in ((socket.AF_INET, OUT4, "198.18.1.2"), (socket.AF_INET6, OUT6, "2001:db8:1::2")):
            for bound in ("", own):
                talker = socket.socket(family, socket.SOCK_DGRAM)
                talker.bind((bound, 0))
                talkers.append((talker, target))
        return talkers

    def _talk(self) -> None:
        while not self._ending.wait(0.003):
            for talker, target in self._talkers:
                with contextlib.suppress(OSError):  # unreachable: just what may be, while there is no tunnel
                    talker.sendto(b"secret", (target, 7777))
                self.sent += 1

    def _watch(self, tap: socket.socket) -> None:
        while not self._ending.is_set():
            try:
                packet, (_, protocol, kind, *_rest) = tap.recvfrom(65536)
            except TimeoutError:
                continue
            if kind == socket.PACKET_OUTGOING and protocol in (0x0800, 0x86DD):
                self._judge(packet, six=protocol == 0x86DD)

    def _judge(self, packet: bytes, *, six: bool) -> None:
        if six:
            protocol, rest, target = packet[6], packet[40:], socket.inet_ntop(socket.AF_INET6, packet[24:40])
        else:
            protocol, rest, target = packet[9], packet[4 * (packet[0] & 15) :], socket.inet_ntoa(packet[16:20])
        port = int.from_bytes(rest[2:4])
        if target in self._hosts and protocol == socket.IPPROTO_UDP and port == WG_PORT:
            self.wireguard += 1
        elif target in self._hosts and protocol == socket.IPPROTO_TCP and port == API_PORT:
            pass
        elif target in self._hosts and protocol == socket.IPPROTO_ICMP and rest[0] == 3:
            pass  # the kernel tells a host that the WireGuard of a former test is gone
        elif six and protocol in (0, socket.IPPROTO_ICMPV6):
            # Neighbours and multicast groups of the link itself; an echo to elsewhere would be a leak.
            if protocol == socket.IPPROTO_ICMPV6 and rest[0] not in (133, 135, 136, 143):
                self.leaks.add(f"ICMPv6 {rest[0]} to {target}")
        else:
            self.leaks.add(f"protocol {protocol} port {port} to {target}")
