"""Watches what other programs do to the network of this machine, by the kernel's own notifications.

A message only says that something has changed; what, is read afresh. So a notification that is lost costs nothing:
the kernel says that it lost some (ENOBUFS), and everything is read as after any other.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from collections.abc import Callable
from typing import Self

from wgpeer.constants import WATCH_RETRY, WATCH_SETTLE

NETLINK_NETFILTER = 12
# Links, addresses, routes and rules, of both families.
ROUTE_GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18
NFTABLES_GROUP = 1 << 6
MESSAGE_BYTES = 65536


class Watch:
    """While it is entered, calls ``repair`` on a thread of its own soon after every change, and once more when
    ``repair`` returns False. The thread is in the network namespace of the one that enters."""

    def __init__(self, repair: Callable[[], bool]) -> None:
        self._repair = repair
        self._sockets = [_subscribe(socket.NETLINK_ROUTE, ROUTE_GROUPS), _subscribe(NETLINK_NETFILTER, NFTABLES_GROUP)]
        self._ending, self._end = os.pipe()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._end, b"x")
        self._thread.join()
        for each in self._sockets:
            each.close()
        os.close(self._ending)
        os.close(self._end)

    def _run(self) -> None:
        timeout: float | None = None
        while True:
            waiting: list[socket.socket | int] = [*self._sockets, self._ending]
            ready, _, _ = select.select(waiting, [], [], timeout)
            if self._ending in ready:
                return
            # One change seldom comes alone: a moment, and they are read together.
            if ready and select.select([self._ending], [], [], WATCH_SETTLE)[0]:
                return
            for each in self._sockets:
                _drain(each)
            # Read after draining: what changes from here on is announced anew.
            timeout = None if self._repair() else WATCH_RETRY


def _subscribe(protocol: int, groups: int) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    made.setblocking(False)
    made.bind((0, groups))
    return made


def _drain(each: socket.socket) -> None:
    while True:
        try:
            each.recv(MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
