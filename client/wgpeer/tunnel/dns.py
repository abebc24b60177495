"""DNS servers of a tunnel, set through whatever manages them on this machine. /etc/resolv.conf itself is never touched.

What can be had differs. systemd-resolved sends each name to one interface or another: only there can some names go
through the tunnel and the others not. The two programs called resolvconf put together one list for all names.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from wgpeer.text import printable

TIMEOUT = 10.0
RESOLV_CONF = Path("/etc/resolv.conf")
NSSWITCH = Path("/etc/nsswitch.conf")
RESOLVED, OPENRESOLV, RESOLVCONF = "systemd-resolved", "openresolv", "resolvconf"
INSTALL = "install systemd-resolved, openresolv or resolvconf, or enter it where this machine keeps its name servers"


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """Which servers to ask (addresses), and for what. ``search_domains`` are tried behind short names; ``routing``
    domains only say which names are asked for there, none of them meaning all names, as does ``default_route``.
    ``yields``: another tunnel is asked for all names, so that this one may have only those under its domains."""

    servers: tuple[str, ...]
    search_domains: tuple[str, ...] = ()
    routing_domains: tuple[str, ...] = ()
    default_route: bool = False
    yields: bool = False

    @property
    def all_names(self) -> bool:
        """Whether these servers are asked for every name."""
        return not self.yields and (self.default_route or not self.routing_domains)


@dataclass(frozen=True, slots=True)
class DnsChange:
    """What is about to be set, and by which manager: enough to revert it, by another process too. ``name`` is what the
    manager calls it, an interface or a record of resolvconf; ``index`` is the interface's. An empty ``manager``:
    nothing."""

    manager: str = ""
    name: str = ""
    index: int = 0
    servers: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: object) -> DnsChange:
        """The reverse of ``as_dict``; an empty change where the value is not of this kind."""
        if not isinstance(value, dict):
            return cls()
        manager, name, index, servers = (value.get(key) for key in ("manager", "name", "index", "servers"))
        if not isinstance(manager, str) or not isinstance(name, str) or not isinstance(index, int):
            return cls()
        texts = servers if isinstance(servers, list) else []
        return cls(manager, name, index, tuple(text for text in texts if isinstance(text, str)))


def apply(interface: str, index: int, config: DnsConfig, before: Callable[[DnsChange], None]) -> str:
    """Use these servers from now on. Returns a text for people that says what was done, or what to do where it could
    not be.

    ``before`` is called with each change before it is made, so that it can be written down first.
    """
    shown = ", ".join(config.servers)
    problems = []
    for change in _possible_changes(interface, index, config):
        before(change)
        problem = (_set_resolved if change.manager == RESOLVED else _set_resolvconf)(change, config)
        if not problem:
            return f"{shown} {_purpose(change, config)} (by {change.manager})"
        revert(change)
        problems.append(problem)
    before(DnsChange())
    why = "; ".join(problems) or "no manager of name servers is here"
    return f"not set: {why}. To use {shown}, {INSTALL}"


def revert(change: DnsChange) -> None:
    """Remove our servers. Nothing else is changed, and nothing happens when they are gone already."""
    if change.manager == RESOLVED and _index(change.name) in (0, change.index):
        _run(["resolvectl", "revert", change.name])
        _run(["resolvectl", "flush-caches"])
    if change.manager in (OPENRESOLV, RESOLVCONF):
        _run(["resolvconf", "-d", change.name, *(["-f"] if change.manager == OPENRESOLV else [])])


def revert_after_boot(change: DnsChange) -> None:
    """Revert a change of before the last boot. The managers have forgotten it, but openresolv's last list is a file
    that stays: have it made anew, unless that has happened already."""
    if change.manager == OPENRESOLV and set(change.servers) & set(_listed()):
        _run(["resolvconf", "-u"])


def _possible_changes(interface: str, index: int, config: DnsConfig) -> list[DnsChange]:
    """One for each manager that is installed, the best manager first."""
    found = []
    if shutil.which("resolvectl"):
        found.append(DnsChange(RESOLVED, interface, index, config.servers))
    program = None if config.yields else shutil.which("resolvconf")  # it keeps no names apart
    # systemd-resolved brings a resolvconf that is resolvectl by another name.
    if program and Path(program).resolve().name != "resolvectl":
        manager = OPENRESOLV if "openresolv" in _run([program, "--version"])[1] else RESOLVCONF
        # Both sort by name, and put what is called tun before Ethernet and the like. The index makes the record ours
        # alone, whoever has the interface's name later.
        found.append(DnsChange(manager, f"tun.{interface}.{index}", index, config.servers))
    return found


def _set_resolved(change: DnsChange, config: DnsConfig) -> str:
    """What went wrong, for people; empty when programs now ask these servers."""
    if not _asks_resolved():
        return (
            f"{RESOLV_CONF} does not lead to systemd-resolved; if it should, "
            f"ln -sf /run/systemd/resolve/stub-resolv.conf {RESOLV_CONF}"
        )
    # "~." makes these servers the ones for every name; "~domain" for the names under it.
    domains = [
        *config.search_domains,
        *(f"~{domain}" for domain in config.routing_domains),
        *(["~."] if config.all_names else []),
    ]
    commands = [
        ["dns", change.name, *config.servers],
        ["domain", change.name, *domains],
        ["default-route", change.name, "yes" if config.all_names else "no"],
    ]
    for command in commands:
        done, said = _run(["resolvectl", *command])
        if not done:
            return f"systemd-resolved does not take it ({said or 'it is not running'})"
    _run(["resolvectl", "flush-caches"])  # names that did not exist outside may exist in here
    return ""


def _asks_resolved() -> bool:
    """Whether programs ask systemd-resolved, by its local address or by the C library's module."""
    hosts = [line for line in _lines(NSSWITCH) if line.startswith("hosts:")]
    by_module = any("resolve" in line.split() for line in hosts)
    by_address = any(server in ("127.0.0.53", "127.0.0.54") for server in _listed())
    return by_module or by_address or str(RESOLV_CONF.resolve()).startswith("/run/systemd/resolve/")


def _set_resolvconf(change: DnsChange, config: DnsConfig) -> str:
    """What went wrong, for people; empty when programs now ask these servers."""
    if change.manager == OPENRESOLV and not _can_be_given_back():
        return (
            f"openresolv could not keep a copy of {RESOLV_CONF}, which somebody else made: its directory is read-only"
        )
    lines = [f"nameserver {server}" for server in config.servers]
    lines += [f"search {' '.join(config.search_domains)}"] if config.search_domains else []
    # openresolv can be told that these servers are the only ones: the LAN's must not be asked behind their back.
    alone = ["-m", "0", "-x"] if change.manager == OPENRESOLV else []
    done, said = _run(["resolvconf", *alone, "-a", change.name], "\n".join(lines) + "\n")
    if not done:
        return f"{change.manager} does not take it ({said or 'no reason given'})"
    listed = _listed()
    local = any(server.startswith("127.") or server == "::1" for server in listed)
    if config.servers[0] in listed or local:  # a resolver on this machine is fed by resolvconf as well
        return ""
    return f"{change.manager} has it, but {RESOLV_CONF} does not show it; is that a file that {change.manager} makes?"


def _can_be_given_back() -> bool:
    """openresolv writes over a file that it did not make, and goes on where the copy it makes first fails."""
    made = _lines(RESOLV_CONF)[:1] == ["# Generated by resolvconf"]
    return made or not RESOLV_CONF.exists() or os.access(RESOLV_CONF.parent, os.W_OK)


def _purpose(change: DnsChange, config: DnsConfig) -> str:
    short = f", also for short names in {', '.join(config.search_domains)}" if config.search_domains else ""
    if config.all_names:
        return f"for all names{short}"
    under = ", ".join(dict.fromkeys([*config.routing_domains, *config.search_domains]))
    if change.manager == RESOLVED:
        return f"for names under {under}{short}"
    return f"for all names, because {change.manager} cannot keep to those under {under}{short}"


def _listed() -> list[str]:
    """The name servers that the C library asks."""
    lines = [line.split() for line in _lines(RESOLV_CONF)]
    return [line[1] for line in lines if len(line) > 1 and line[0] == "nameserver"]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


def _run(command: list[str], text: str = "") -> tuple[bool, str]:
    """Run a program with ``text`` as its input: whether it worked, and its output on one line."""
    # To a file, not a pipe: resolvconf may restart a service that keeps its output open for ever.
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(
                command,
                input=text.encode(),
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT,
                check=False,
                env={**os.environ, "LC_ALL": "C"},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return False, f"{command[0]}: {type(error).__name__}"
        output.seek(0)
        said = output.read(4096).decode(errors="replace")
    return done.returncode == 0, printable(" ".join(said.split()), 200)
