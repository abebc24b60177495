"""Keeps the ends of this host as they are wanted: a ``Subsystem``, and a thread that does the work."""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from servers.hostnet.netlink.links import LinkError, Links
from servers.hostnet.reconcile.plan import OVERHEAD, SMALLEST_MTU
from servers.hostnet.state import Code, HostCondition, HostState, Interface, OpenVpn, Peer
from servers.hostnet.subsystem import Stage

from . import config, device, routing
from .process import CONNECTED, Ends, OpenVpnError
from .routing import Ways

log = logging.getLogger("hostnet.openvpn")

LOOK_EVERY = 1.0  # seconds until a dead process, or a change of somebody else, is noticed
SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds until the next attempt to start one that does not start
DIRECTORY = "links"  # in the worker's own


@dataclass(frozen=True, slots=True)
class End:
    """One end, and what is routed to it."""

    openvpn: OpenVpn
    ways: Ways


class Tunnels:
    """A ``Subsystem``. What the firewall lets into an end does not wait for it, nor does the end of that."""

    stage = Stage.FOLLOWER

    def __init__(self, var: Path, links: Links | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._ends = Ends(var / DIRECTORY)
        self._links = links or Links()
        self._clock = clock
        self._wanted: Mapping[str, End] | None = None  # by device; None: nobody has said yet
        self._troubles: dict[str, str] = {}  # by device, or empty for all of them
        self._pauses: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._lock = threading.Lock()  # the thread's work against ``stop``
        self._look = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def apply(self, state: HostState) -> None:
        self._wanted = ends_of(state)
        self._look.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="openvpn", daemon=True)
            self._thread.start()

    def change(self, interface: Interface, gone: Sequence[Peer], new: Sequence[Peer]) -> None:
        """Nothing: no end depends on who is connected."""

    def preview(self, state: HostState) -> list[str]:
        wanted, usual = ends_of(state), self._mtu()
        running = self._ends.left()
        lines = [f"{name}: end the link's openvpn" for name in sorted(running - wanted.keys())]
        for name, end in sorted(wanted.items()):
            if not self._ends.runs_with(name, self._text(end, usual)):
                lines.append(f"{name}: start the link's openvpn")
        return lines

    def drift(self) -> list[str]:
        """Nothing: whoever ended a process, or took a route away, is not waited for, and finds it as it was."""
        return []

    def conditions(self) -> list[HostCondition]:
        return [
            HostCondition.of(Code.LINK_DOWN, f"{name}: {words}" if name else words)
            for name, words in sorted(self._troubles.items())
        ]

    def stop(self) -> None:
        """End the thread. What runs goes on, as tunnels do."""
        self._stopping.set()
        self._look.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._look.clear()
            self.look()
            self._look.wait(LOOK_EVERY)

    def look(self) -> None:
        """See to it that everything is as it is wanted. What fails is said, and tried again."""
        wanted = self._wanted
        if wanted is None:
            return
        try:
            troubles = self._make_so(wanted)
        except (LinkError, OSError) as error:
            troubles = {"": str(error)}
        except Exception as error:
            # Whatever it was, without this thread no link would come back.
            log.exception("links")
            troubles = {"": type(error).__name__}
        for name in troubles.keys() - self._troubles.keys():
            log.warning("%s: %s", name or "links", troubles[name])
        self._troubles = troubles

    def _make_so(self, wanted: Mapping[str, End]) -> dict[str, str]:
        for name in (self._ends.left() | device.there()) - wanted.keys():
            self._ends.end(name)
            device.remove(name)
            log.info("%s: ended", name)
        usual = self._mtu() if wanted else 0
        routing.make_so({device.ensure(name, end.openvpn.mtu or usual): end.ways for name, end in wanted.items()})
        troubles = {}
        for name, end in wanted.items():
            if words := self._see_to(name, self._text(end, usual)):
                troubles[name] = words
        return troubles

    def _see_to(self, name: str, configuration: str) -> str:
        """What is wrong with one end, or empty."""
        if not self._ends.runs_with(name, configuration):
            now = self._clock()
            if now < self._not_before.get(name, now):
                return self._troubles.get(name, "openvpn does not run")
            self._pauses[name] = min(2 * self._pauses.get(name, SHORTEST_PAUSE / 2), LONGEST_PAUSE)
            self._not_before[name] = now + self._pauses[name]
            try:
                self._ends.start(name, configuration)
            except OpenVpnError as error:
                return str(error)
            log.info("%s: openvpn runs", name)
        self._ends.keep_short(name)
        state = self._ends.state(name)
        if state == CONNECTED:
            self._pauses.pop(name, None)
            return ""
        return f"no connection to the other end yet ({state.lower() or 'openvpn does not answer'})"

    def _text(self, end: End, usual_mtu: int) -> str:
        return config.text(end.openvpn, self._ends.socket(end.openvpn.device), end.openvpn.mtu or usual_mtu)

    def _mtu(self) -> int:
        """What is left of the way out. OpenVPN adds no more than WireGuard does: 72 bytes over IPv6."""
        return max(SMALLEST_MTU, self._links.observe({}).outer_mtu - OVERHEAD)


def ends_of(state: HostState) -> dict[str, End]:
    """By device."""
    found = {}
    for interface in state.interfaces:
        versions = {6 if ":" in address else 4 for address in interface.addresses}
        own = [str(ipaddress.ip_interface(address).network) for address in interface.addresses]
        may_come = _of(versions, (*own, *interface.behind)) if state.mesh is not None else frozenset()
        for link in interface.links:
            if link.openvpn is not None:
                reached = _of(versions, (route.network for route in link.reached))
                ways, by_mesh = ({interface.name: each} if reached and each else {} for each in (reached, may_come))
                everyone = _of(versions, (*link.networks, *link.behind))
                found[link.openvpn.device] = End(link.openvpn, Ways(everyone, ways, by_mesh))
    return found


def _of(versions: set[int], networks: Iterable[str]) -> frozenset[str]:
    return frozenset(each for each in networks if (6 if ":" in each else 4) in versions)


def cleanup(var: Path) -> list[str]:
    """End all of ours and remove what they needed; return what could not be removed, in words."""
    ends, errors = Ends(var / DIRECTORY), []
    try:
        for name in ends.left() | device.there():
            ends.end(name)
            device.remove(name)
        routing.forget()
    except (LinkError, OSError) as error:
        errors.append(str(error))
    return errors
