"""For how long what a heartbeat says stands in Redis, which lets it expire: no clock of two machines is compared."""

from __future__ import annotations

ALIVE_FOR = 10  # seconds: a host without one is down
FRESH_FOR = 4  # seconds for which new clients are sent to the host: two heartbeats, of which one may be late
