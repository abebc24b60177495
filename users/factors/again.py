"""When whoever passed has to pass again, and where nobody has to: what a server says of it beyond lifetimes."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Daily:
    """A time of day on the clocks of ``zone`` (a name of the IANA time zone database)."""

    at: time
    zone: str

    def after(self, now: float) -> float:
        """The next moment at which those clocks show it, in Unix seconds, always later than ``now``. A time that the
        clocks skip, when they are set forward, is as much later as they are; of one that they show twice the first
        counts."""
        zone = ZoneInfo(self.zone)
        day = datetime.fromtimestamp(now, zone).date()
        for days in (-1, 0, 1, 2):
            moment = datetime.combine(day + timedelta(days=days), self.at, zone).astimezone(UTC).timestamp()
            if moment > now:
                return moment
        raise AssertionError("no day is longer than two")


def is_inside(address: str, networks: tuple[Network, ...]) -> bool:
    """False for what is no address: nobody knows where such a request came from."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def line_of(address: str) -> str:
    """What tells one line of a client from another: an IPv4 address; of IPv6 the /64, in which one machine takes
    several addresses and changes them every day."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64 if parsed.version == 6 else 32), strict=False))
