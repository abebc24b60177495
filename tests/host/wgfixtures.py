"""Network namespaces without names, for tests of WireGuard interfaces: they vanish with the last thing inside."""

from __future__ import annotations

import ctypes
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from servers.hostnet.wireguard.base import Backend, PeerChange
from servers.hostnet.wireguard.fields import key_text
from tests.lab import HANGING

_libc = ctypes.CDLL(None, use_errno=True)
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET; os.unshare and os.setns only came with Python 3.12


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def inside(namespace: int) -> Iterator[None]:
    """Run the body in the network namespace of this file descriptor. Sockets made there stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    _check(_libc.setns(namespace, _NEW_NETWORK))
    try:
        yield
    finally:
        _check(_libc.setns(home, _NEW_NETWORK))
        os.close(home)


@contextmanager
def new_namespace() -> Iterator[int]:
    """Run the body in a fresh network namespace whose loopback is up; gives the namespace's file descriptor."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    _check(_libc.unshare(_NEW_NETWORK))
    namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        ip("link", "set", "lo", "up")
        yield namespace
    finally:
        _check(_libc.setns(home, _NEW_NETWORK))
        os.close(namespace)
        os.close(home)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=HANGING, capture_output=True)


def new_name() -> str:
    """An interface name that nobody else on this machine has: userspace sockets are shared by all namespaces."""
    return f"wgt{secrets.token_hex(5)}"


@contextmanager
def interface(backend: Backend) -> Iterator[str]:
    """A fresh WireGuard interface in the current namespace."""
    name = new_name()
    backend.create(name)
    try:
        yield name
    finally:
        backend.delete(name)


def make_peers(count: int) -> list[PeerChange]:
    """That many new peers, each with an IPv4 and an IPv6 address of its own."""
    return [
        PeerChange(
            key_text(secrets.token_bytes(32)),
            (f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}/32", f"fd00::{n:x}/128"),
        )
        for n in range(1, count + 1)
    ]
