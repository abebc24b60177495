"""What is wrong on a host, as it reports it: several conditions at once, each with a code that does not change."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass

MOST = 50  # conditions of one report; the first ones are kept
LONGEST_TEXT = 2000  # characters; the rest is cut off
_CODE = re.compile(r"[a-z_]{1,40}")


class Severity(enum.StrEnum):
    """ERROR: something that is desired does not work. WARNING: all that is ours works as far as it can."""

    WARNING = "warning"
    ERROR = "error"


class Code(enum.StrEnum):
    """The catalogue: every code that a host reports, or the control side says of it."""

    HOST_UNREADABLE = "host_unreadable"  # neither devices nor links could be read, so nothing was applied
    FIREWALL_FAILED = "firewall_failed"  # our nftables table or forwarding; no new tunnel is made without them
    INTERFACE_FAILED = "interface_failed"  # a server's tunnel, or peers of it
    ROUTE_FAILED = "route_failed"  # the kernel refused a route to a network behind a client
    ROUTE_REFUSED = "route_refused"  # we refused it, since the host has that network itself
    NETWORK_COLLIDES = "network_collides"  # a tunnel network is one that the host has itself
    OUTER_FAILED = "outer_failed"  # routing rules that keep WireGuard's own packets out of tunnels
    DNS_FAILED = "dns_failed"  # a server's resolver does not answer its clients
    GATEWAY_FAILED = "gateway_failed"  # what forwards pings to gateway web on another machine does not run
    FOREIGN_FIREWALL = "foreign_firewall"  # a firewall that is not ours drops our packets, or may
    FOREIGN_UNREADABLE = "foreign_unreadable"  # whether one does could not be found out
    MESH_FAILED = "mesh_failed"  # the tunnel to the other machines, or what is routed into it
    LINK_DOWN = "link_down"  # a link that OpenVPN carries has no connection to its other end
    CLOCK_OFF = "clock_off"  # its clock is not the control side's, who says so of the host
    WORKER_OUTDATED = "worker_outdated"  # the control side says so: it does not understand all messages of this release
    CONTESTED = "contested"  # somebody changes what is ours again and again, however often it is put back


SEVERITY = {
    Code.HOST_UNREADABLE: Severity.ERROR,
    Code.FIREWALL_FAILED: Severity.ERROR,
    Code.INTERFACE_FAILED: Severity.ERROR,
    Code.ROUTE_FAILED: Severity.ERROR,
    Code.ROUTE_REFUSED: Severity.WARNING,
    Code.NETWORK_COLLIDES: Severity.ERROR,
    Code.OUTER_FAILED: Severity.ERROR,
    Code.DNS_FAILED: Severity.ERROR,
    Code.GATEWAY_FAILED: Severity.ERROR,
    Code.FOREIGN_FIREWALL: Severity.WARNING,
    Code.FOREIGN_UNREADABLE: Severity.WARNING,
    Code.MESH_FAILED: Severity.ERROR,
    Code.LINK_DOWN: Severity.ERROR,
    Code.CLOCK_OFF: Severity.WARNING,
    Code.WORKER_OUTDATED: Severity.WARNING,
    Code.CONTESTED: Severity.ERROR,
}


@dataclass(frozen=True, slots=True)
class HostCondition:
    """``code`` is one of ``Code``, or that of another release. ``text`` is for people."""

    code: str
    severity: Severity
    text: str

    @classmethod
    def of(cls, code: Code, text: str) -> HostCondition:
        return cls(code.value, SEVERITY[code], text)

    def __str__(self) -> str:
        return f"{self.severity.value} {self.code}: {self.text}"


def conditions_to_json(conditions: Iterable[HostCondition]) -> list[dict[str, str]]:
    return [{"code": each.code, "severity": each.severity.value, "text": each.text} for each in conditions]


def conditions_from_json(data: object) -> list[HostCondition]:
    """The conditions of a report, which is not trusted: at most ``MOST``, and no text longer than ``LONGEST_TEXT``.

    Raise ``KeyError``, ``TypeError`` or ``ValueError`` where it is not a list of conditions.
    """
    if not isinstance(data, list):
        raise TypeError("conditions are no list")
    return [_condition(each) for each in data[:MOST]]


def _condition(data: object) -> HostCondition:
    if not isinstance(data, dict):
        raise TypeError("a condition is no object")
    code, text = data["code"], data["text"]
    if not isinstance(code, str) or not isinstance(text, str) or not _CODE.fullmatch(code):
        raise ValueError("code or text of a condition")
    # Half of a surrogate pair is valid JSON, but could be neither stored nor shown. It raises a ``ValueError``.
    text.encode()
    return HostCondition(code, Severity(data["severity"]), text[:LONGEST_TEXT])
