"""The kernel's WireGuard, through generic netlink (pyroute2)."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink import (
    NLA_F_NESTED,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    genlmsg,
    nla_base_string,
)
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from .base import Device, PeerChange, WireGuardError
from .fields import check_interface, check_settings, key_text, link_index
from .netlink import PeerCollector, batches

FAMILY = "wireguard"
_VERSION = 1
_GET_DEVICE = 0
_SET_DEVICE = 1
_REPLACE_PEERS = 1  # for an interface that is to go; never in a change: it would end every session
# How often a dump is begun again when the device changed under it. We are the only writer, so once is rare.
_DUMP_ATTEMPTS = 10

# At level DEBUG pyroute2 logs whole messages, and ours carry the private key.
logging.getLogger("pyroute2.netlink").setLevel(logging.INFO)


class DeviceMessage(genlmsg):  # type: ignore[misc]  # pyroute2 has no types
    """A WireGuard message. Its peers stay bytes, for ``netlink.py`` to read and write."""

    prefix = "WGDEVICE_A_"
    nla_map = (
        ("WGDEVICE_A_UNSPEC", "none"),
        ("WGDEVICE_A_IFINDEX", "uint32"),
        ("WGDEVICE_A_IFNAME", "asciiz"),
        ("WGDEVICE_A_PRIVATE_KEY", "cdata"),
        ("WGDEVICE_A_PUBLIC_KEY", "cdata"),
        ("WGDEVICE_A_FLAGS", "uint32"),
        ("WGDEVICE_A_LISTEN_PORT", "uint16"),
        ("WGDEVICE_A_FWMARK", "uint32"),
        ("WGDEVICE_A_PEERS", "nested_bytes"),
    )

    class nested_bytes(nla_base_string):  # type: ignore[misc]  # the name is looked up by nla_map
        """Bytes of nested attributes, marked as such: the kernel insists on the mark."""

        nla_flags = NLA_F_NESTED


class Kernel:
    """A ``Backend`` over the kernel's WireGuard."""

    name = "kernel"

    def list(self) -> list[str]:
        with _errors("the links cannot be listed"), IPRoute() as netlink:
            return sorted(link.get_attr("IFLA_IFNAME") for link in netlink.get_links(kind="wireguard"))

    def create(self, interface: str) -> None:
        check_interface(interface)
        with _errors(f"{interface}: cannot be created"), IPRoute() as netlink:
            try:
                netlink.link("add", ifname=interface, kind="wireguard")
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise
                if interface not in self.list():
                    raise WireGuardError(
                        f"{interface}: a link of this name exists and is no kernel WireGuard"
                    ) from None

    def delete(self, interface: str) -> None:
        check_interface(interface)
        if interface not in self.list():
            return
        with _errors(f"{interface}: cannot be removed"), IPRoute() as netlink:
            try:
                # All peers first: removed with their link, each costs the kernel a full RCU grace period
                # (16 ms: minutes for 10,000 of them), removed by request only an expedited one.
                with _wireguard() as wireguard:
                    _send(wireguard, interface, [("WGDEVICE_A_FLAGS", _REPLACE_PEERS)])
                netlink.link("del", index=link_index(interface))
            except NetlinkError as error:
                if error.code != errno.ENODEV:
                    raise

    def get(self, interface: str) -> Device:
        check_interface(interface)
        with _errors(f"{interface}: cannot be read"), _wireguard() as netlink:
            for _ in range(_DUMP_ATTEMPTS):
                messages = _dump(netlink, interface)
                if not any(message["header"]["flags"] & NLM_F_DUMP_INTR for message in messages):
                    return device_of(interface, messages)
        raise WireGuardError(f"{interface}: cannot be read: it kept changing")

    def set(
        self,
        interface: str,
        *,
        private_key: bytes | None = None,
        port: int | None = None,
        mark: int | None = None,
        peers: Iterable[PeerChange] = (),
    ) -> None:
        check_interface(interface)
        check_settings(interface, private_key, port)
        payloads = list(batches(peers))  # all of it is checked before any of it is sent
        device: list[tuple[str, Any]] = []
        if private_key is not None:
            device.append(("WGDEVICE_A_PRIVATE_KEY", private_key))
        if port is not None:
            device.append(("WGDEVICE_A_LISTEN_PORT", port))
        if mark is not None:
            device.append(("WGDEVICE_A_FWMARK", mark))
        with _errors(f"{interface}: WireGuard refused"), _wireguard() as netlink:
            if device:
                _send(netlink, interface, device)
            for payload in payloads:
                _send(netlink, interface, [("WGDEVICE_A_PEERS", payload)])


def available() -> bool:
    """Whether this kernel has WireGuard. Asking makes it load its module, where there is one."""
    try:
        with _wireguard():
            return True
    except (NetlinkError, OSError):
        return False


def device_of(interface: str, messages: Iterable[Any]) -> Device:
    """The device that the messages of one whole dump describe."""
    public_key, port, mark, peers = "", 0, 0, PeerCollector()
    for message in messages:
        for name, value in message["attrs"]:
            if name == "WGDEVICE_A_PUBLIC_KEY":
                public_key = key_text(bytes(value))
            elif name == "WGDEVICE_A_LISTEN_PORT":
                port = value
            elif name == "WGDEVICE_A_FWMARK":
                mark = value
            elif name == "WGDEVICE_A_PEERS":
                peers.add(bytes(value))
    return Device(interface, public_key, port, peers.peers, mark)


@contextmanager
def _wireguard() -> Iterator[Any]:
    """A socket to the kernel's WireGuard; made for each request, since it belongs to the thread that made it."""
    with GenericNetlinkSocket() as netlink:
        netlink.asyncore.module_err_level = "debug"  # whether a kernel without WireGuard is trouble, is not its to say
        netlink.bind(FAMILY, DeviceMessage)
        yield netlink


def _request(interface: str, command: int, attrs: Iterable[tuple[str, Any]]) -> DeviceMessage:
    message = DeviceMessage()
    message["cmd"] = command
    message["version"] = _VERSION
    message["attrs"] = [("WGDEVICE_A_IFNAME", interface), *attrs]
    return message


def _dump(netlink: Any, interface: str) -> tuple[Any, ...]:
    message = _request(interface, _GET_DEVICE, ())
    return tuple(netlink.nlm_request(message, msg_type=netlink.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP))


def _send(netlink: Any, interface: str, attrs: Iterable[tuple[str, Any]]) -> None:
    message = _request(interface, _SET_DEVICE, attrs)
    netlink.nlm_request(message, msg_type=netlink.prid, msg_flags=NLM_F_REQUEST | NLM_F_ACK)


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """Turn what the kernel says into a ``WireGuardError``. Not chained: pyroute2's error carries the whole request."""
    try:
        yield
    except NetlinkError as error:
        raise WireGuardError(f"{what}: {os.strerror(error.code).lower()} (errno {error.code})") from None
    except OSError as error:
        raise WireGuardError(f"{what}: {error.strerror or error}") from None
    except ValueError:
        raise WireGuardError(f"{what}: the kernel's answer cannot be read") from None
