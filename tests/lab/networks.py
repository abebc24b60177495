"""An internet, and the machines on it and behind them."""

from __future__ import annotations

import contextlib
import secrets
from typing import Self

from tests.lab.namespaces import Namespace


class Machine(Namespace):
    """A namespace on the lab's internet or on a LAN: ``interface`` has ``address`` and ``address6``."""

    def __init__(self, name: str, interface: str, address: str, address6: str) -> None:
        super().__init__(name)
        self.interface = interface
        self.address = address
        self.address6 = address6
        self.port = ""  # of the internet's bridge, for a machine on it; down, nothing gets to the machine or from it


class Lab:
    """An internet (one bridge, 198.51.100.0/24 and 2001:db8:1::/64) with what is added to it; closed with all of it.

    The internet itself is the machine ``internet`` (198.51.100.254), so there is somebody to talk to out there.
    """

    def __init__(self) -> None:
        self._closing = contextlib.ExitStack()
        self._tag = secrets.token_hex(3)
        self._hosts = self._clients = self._ports = 0
        self.internet = Machine(f"internet-{self._tag}", "br0", "198.51.100.254", "2001:db8:1::fe")

    def __enter__(self) -> Self:
        self._closing.callback(self.internet.close)
        try:
            # An address of its own: else it is the least of its ports', and changes as machines are added. Who knows
            # the former one then sends into the void, for the 8 s until the kernel asks again.
            self.internet.ip("link", "add", "br0", "address", "02:00:00:00:00:fe", "type", "bridge")
            _configure(self.internet, 24)
        except BaseException:
            self._closing.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def add_host(self) -> Machine:
        """A VPN host: ``wan`` is on the internet (198.51.100.1, next .2)."""
        self._hosts += 1
        return self._on_internet("host", "wan", self._hosts)

    def renew(self, host: Machine) -> Machine:
        """The host as it is after its power was off: its address, and nothing else of what its network was."""
        host.close()
        return self._on_internet("host", "wan", int(host.address.rpartition(".")[2]))

    def add_client(self) -> Machine:
        """A client machine: ``eth0`` is on the internet (198.51.100.11, next .12)."""
        self._clients += 1
        return self._on_internet("client", "eth0", 10 + self._clients)

    def add_lan(self, host: Machine, number: int = 50, *, routed: bool = False) -> Machine:
        """A machine (10.<number>.0.2, 2001:db8:<number>::2) on a network behind ``host``'s ``lan<number>``.

        It knows no way out of its network unless ``routed``, where it sends everything to ``host``: without that,
        an answer to a client can only come back when the host masquerades.
        """
        machine = Machine(f"lan{number}-{self._tag}", "eth0", f"10.{number}.0.2", f"2001:db8:{number}::2")
        self._closing.callback(machine.close)
        side = f"lan{number}"
        _veth(host, side, machine, "eth0")
        _configure(machine, 24)
        host.ip("addr", "add", f"10.{number}.0.1/24", "dev", side)
        host.ip("addr", "add", f"2001:db8:{number}::1/64", "dev", side, "nodad")
        host.ip("link", "set", side, "up")
        if routed:
            machine.ip("route", "add", "default", "via", f"10.{number}.0.1")
            machine.ip("route", "add", "default", "via", f"2001:db8:{number}::1")
        return machine

    def add_behind(self, client: Machine, number: int) -> Machine:
        """A machine on a network behind ``client``, which routes for it; addresses are those of ``add_lan``."""
        machine = self.add_lan(client, number, routed=True)
        client.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        return machine

    def add_far_address(self, *addresses: str) -> None:
        """Give the machine ``internet`` further addresses, in no network that anybody else is on: (``203.0.113.9``)."""
        for address in addresses:
            length = 128 if ":" in address else 32
            self.internet.ip("addr", "add", f"{address}/{length}", "dev", "br0", *(["nodad"] if length == 128 else []))

    def _on_internet(self, kind: str, interface: str, number: int) -> Machine:
        name = f"{kind}{number}-{self._tag}"
        machine = Machine(name, interface, f"198.51.100.{number}", f"2001:db8:1::{number}")
        self._closing.callback(machine.close)
        self._ports += 1
        machine.port = port = f"port{self._ports}"
        _veth(self.internet, port, machine, interface)
        self.internet.ip("link", "set", port, "master", "br0", "up")
        _configure(machine, 24)
        machine.ip("route", "add", "default", "via", self.internet.address)
        machine.ip("route", "add", "default", "via", self.internet.address6)
        return machine


def _veth(left: Namespace, left_name: str, right: Namespace, right_name: str) -> None:
    left.ip("link", "add", left_name, "type", "veth", "peer", "name", right_name, "netns", str(right.pid))


def _configure(machine: Machine, length: int) -> None:
    machine.ip("addr", "add", f"{machine.address}/{length}", "dev", machine.interface)
    machine.ip("addr", "add", f"{machine.address6}/64", "dev", machine.interface, "nodad")
    machine.ip("link", "set", machine.interface, "up")
