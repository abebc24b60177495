"""The one nftables table that is ours, ``inet wgvpn``, built whole and replaced in one transaction.

What it lets through is written out in ``ruleset``; everything else from or to a tunnel is dropped, also for an
interface of ours that no rule knows yet. So a half-applied host fails closed, and two servers on one host reach
each other by a link alone. An accept here does not overrule a drop in another table (docker's, ufw's): it only ends
our own.

Only forwarded ports and addresses of ended connections follow the peers one by one: they are elements of maps and
sets, which are changed in place.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import subprocess
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import ClassVar

from servers.hostnet.netlink import conntrack
from servers.hostnet.netlink.conntrack import ConntrackError
from servers.hostnet.state import Code, HostCondition, HostState, Interface, Mesh, Peer
from servers.hostnet.subsystem import Stage, SubsystemError

from .ended import ended_elements
from .port_forwards import Element, Forwards, udp
from .ruleset import TABLE, table

log = logging.getLogger("hostnet.firewall")

LOADS = 3  # attempts to load the table and to list it before somebody else changes it
NFT_TIMEOUT = 30  # seconds; thousands of routes take well under one
SET = re.compile(r"^\t(?:set|map) (\S+) \{$")
ELEMENTS = re.compile(r"\t\telements = \{(.*?)\}\n", re.DOTALL)
OF_PEERS = re.compile(r"(forwards|targets|ended)[46]")


class FirewallError(SubsystemError):
    """nftables refused our table, or could not be run."""

    code: ClassVar[Code] = Code.FIREWALL_FAILED


class Firewall:
    """A ``Subsystem``, and a guard: keeps the table as it was last applied. One thread at a time."""

    stage = Stage.GUARD

    def __init__(self, flush_udp: Callable[[int, Collection[int], Collection[str]], int] = conntrack.flush_udp) -> None:
        self._flush_udp = flush_udp
        self._text = ""  # the table without elements of peers; empty: what the kernel has is unknown
        self._seen = ""  # what nftables made of that
        self._forwards = Forwards()
        self._ended: set[Element] = set()
        self._interfaces: tuple[Interface, ...] = ()  # without peers
        self._web_port = 0
        self._mesh: Mesh | None = None  # without peers

    def guard(self, web_port: int) -> None:
        """Before the first full state: guard ``web_port``, unless a table of an earlier run still does.

        That table is left as it is: replacing it by an empty one would cut the tunnels that outlived that run.
        """
        if not _listing():
            _load(ruleset((), web_port))

    def drift(self) -> list[str]:
        return ["the nftables table was changed or removed"] if self._drifted() else []

    def preview(self, state: HostState) -> list[str]:
        desired = _table(state.interfaces, state.web_port, (), _mine(state.mesh))
        elements = _forwards(state.interfaces).elements() | _ended(state.interfaces)
        return ["the nftables table: write it anew"] if self._differs(desired, elements) else []

    def conditions(self) -> list[HostCondition]:
        """Nothing: whatever is wrong with it was raised."""
        return []

    def _drifted(self) -> bool:
        if not self._text:
            return False
        listing = _listing()
        return not listing or _split(listing) != (self._seen, self._elements())

    def _elements(self) -> set[Element]:
        """Those that follow the peers."""
        return self._forwards.elements() | self._ended

    def _differs(self, text: str, elements: set[Element]) -> bool:
        if not self._text or self._text != text or self._elements() != elements:
            return True
        return self._drifted()

    def apply(self, state: HostState) -> None:
        """Make the table say what the interfaces and their peers need; nothing is touched where it says so already."""
        forwards, ended = _forwards(state.interfaces), _ended(state.interfaces)
        differs = self._differs(
            _table(state.interfaces, state.web_port, (), _mine(state.mesh)), forwards.elements() | ended
        )
        before, self._forwards, self._ended = self._elements(), forwards, ended
        if differs:
            self._text, self._mesh = "", _mine(state.mesh)
            self._replace(state.interfaces, state.web_port)
            self._forget(before ^ self._elements())

    def _replace(self, interfaces: Sequence[Interface], web_port: int) -> None:
        self._seen = _loaded(_table(interfaces, web_port, self._elements(), self._mesh))
        self._text = _table(interfaces, web_port, (), self._mesh)
        self._interfaces, self._web_port = tuple(interfaces), web_port

    def change(self, interface: Interface, gone: Sequence[Peer], new: Sequence[Peer]) -> None:
        """Follow a change of peers of ``interface`` in one transaction, which costs what changed, not what there is.

        A peer that was altered is in both. Open peers without forwards cost nothing at all. After a ``FirewallError``
        the same change may be asked for again; the next ``apply`` makes up for it in any case.
        """
        gone, new = ([peer for peer in peers if peer.forwards or peer.lingers] for peers in (gone, new))
        if not gone and not new:
            return
        if not self._web_port:
            raise FirewallError("no table yet")
        try:
            over, ended = ended_elements(interface.name, gone), ended_elements(interface.name, new)
            delete, add = self._forwards.change(gone, new)
        except ValueError as error:
            raise FirewallError(f"{interface.name}: {error}") from error
        delete += sorted((over - ended) & self._ended)
        add += sorted(ended - self._ended)
        self._ended = self._ended - over | ended
        self._set_elements(delete, add)

    def _set_elements(self, delete: Sequence[Element], add: Sequence[Element]) -> None:
        if self._text and not delete and not add:
            return
        text, self._text = self._text, ""
        lines = [f"delete element {TABLE} {name} {{ {element} }}\n" for name, element in delete]
        lines += [f"add element {TABLE} {name} {{ {element} }}\n" for name, element in add]
        if text:
            try:
                _load("".join(lines))
                self._text = text
            except FirewallError as error:
                # Somebody changed the table meanwhile. Nobody has to wait with a connect until that is noticed.
                log.warning("the table is not as it was left, and is made anew: %s", error)
        if not self._text:
            self._replace(self._interfaces, self._web_port)
        self._forget([*delete, *add])

    def _forget(self, changed: Collection[Element]) -> None:
        """Have UDP senders that never pause follow their port at once. TCP begins anew by itself, with another port."""
        for version, ports, targets in udp(changed):
            try:
                self._flush_udp(version, ports, targets)
            except ConntrackError as error:
                log.warning("%s", error)

    def remove(self) -> None:
        """Remove the table, if there is one."""
        _nft(["-f", "-"], f"table {TABLE}\ndelete table {TABLE}\n")
        self._text, self._web_port = "", 0


def ruleset(interfaces: Iterable[Interface], web_port: int, mesh: Mesh | None = None) -> str:
    """The whole table as nft text."""
    desired = tuple(interfaces)
    return _table(desired, web_port, _forwards(desired).elements() | _ended(desired), mesh)


def _mine(mesh: Mesh | None) -> Mesh | None:
    """What the table depends on."""
    return dataclasses.replace(mesh, peers=()) if mesh is not None else None


def _forwards(interfaces: Iterable[Interface]) -> Forwards:
    try:
        return Forwards(peer for interface in interfaces for peer in interface.peers)
    except ValueError as error:
        raise FirewallError(str(error)) from error


def _ended(interfaces: Iterable[Interface]) -> set[Element]:
    try:
        return {each for interface in interfaces for each in ended_elements(interface.name, interface.peers)}
    except ValueError as error:
        raise FirewallError(str(error)) from error


def _table(interfaces: Iterable[Interface], web_port: int, elements: Iterable[Element], mesh: Mesh | None) -> str:
    try:
        return table(interfaces, web_port, elements, mesh)
    except ValueError as error:
        raise FirewallError(str(error)) from error


def _loaded(text: str) -> str:
    """Load the table ``text``; what nftables made of it, without elements of peers.

    Somebody may change it before it is listed, and what they did must not be taken for ours: then once more.
    """
    listed = ""
    for _ in range(LOADS):
        _load(text)
        listed, _ = _split(_listing())
        if _shape(listed) == _shape(_split(text)[0]):
            return listed
    if not listed:
        raise FirewallError("somebody removes our table as soon as it is there")
    log.warning("the table is listed in another form than it was loaded")
    return listed


def _shape(text: str) -> dict[str, int]:
    """How many lines each chain, set and map of a table has."""
    found: dict[str, int] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("\t\t"):
            found[name] += 1
        elif line.startswith("\t") and line.endswith("{"):
            name = line
            found[name] = 0
    return found


def _load(text: str) -> None:
    _nft(["-f", "-"], text)


def _listing() -> str:
    """The table as nftables has it, without counters; empty where there is none."""
    tables = _nft(["list", "tables"])
    return _nft(["--stateless", "list", "table", *TABLE.split()]) if f"table {TABLE}" in tables.splitlines() else ""


def _split(listing: str) -> tuple[str, set[Element]]:
    """The listing without the elements that follow the peers, and those elements.

    Elements are sorted: the kernel hands out those of a hash in an order of its own.
    """
    lines: list[str] = []
    found: set[Element] = set()
    name = ""
    # An element list goes on over lines until its brace.
    for line in ELEMENTS.sub(lambda match: f"\t\telements = {' '.join(match[1].split())}\n", listing).splitlines():
        if named := SET.match(line):
            name = named[1]
        _, given, elements = line.partition("\t\telements = ")
        if not given:
            lines.append(line)
        elif OF_PEERS.fullmatch(name):
            found.update((name, element) for element in elements.split(", "))
        else:
            lines.append(", ".join(sorted(elements.split(", "))))
    return "\n".join(lines), found


def _nft(arguments: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(
            ["nft", *arguments], input=text, capture_output=True, text=True, timeout=NFT_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FirewallError(f"nft: {type(error).__name__}") from error
    if done.returncode != 0:
        raise FirewallError(f"nft: {done.stderr.strip()[:300]}")
    return done.stdout
