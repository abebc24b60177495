"""A tunnel's name servers beside those of other tunnels: one of them is asked for all names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from wgpeer.tunnel import dns
from wgpeer.tunnel.dns import DnsChange, DnsConfig
from wgpeer.tunnel.recovery import Claim


@dataclass(slots=True)
class Names:
    """``said`` is for people. ``change`` is what is set; ``servers`` are those in use. ``winner`` is the tunnel that is
    asked for all names in place of this one, None where none is."""

    said: str = ""
    change: DnsChange = field(default_factory=DnsChange)
    servers: tuple[str, ...] = ()
    winner: Claim | None = None

    def winner_now(self, mine: Claim, others: list[Claim]) -> Claim | None:
        """Which tunnel gets all names, where both want them: one that everything goes through, then the one that has
        the lower interface number."""
        before = [claim for claim in others if claim.all_names and claim.rank < mine.rank]
        return min(before, key=lambda claim: claim.rank, default=None) if mine.all_names else None

    def apply(
        self,
        interface: str,
        index: int,
        config: DnsConfig,
        mine: Claim,
        others: list[Claim],
        write: Callable[[], None],
    ) -> None:
        """Use these servers from now on. ``write`` is called with ``change`` up to date, before each change."""
        self.winner = self.winner_now(mine, others)
        if self.winner:
            config = replace(config, yields=True, routing_domains=config.routing_domains or config.search_domains)
        if not config.servers or (config.yields and not config.routing_domains):
            self.revert()  # the last host had some, this one has none
            if self.winner and config.servers:
                self.said = f"not used: all names are asked through {self.winner.title}"
            return

        def before(change: DnsChange) -> None:
            if (self.change.manager, self.change.name) != (change.manager, change.name):
                dns.revert(self.change)  # of an interface that is no more, or another manager
            self.change = change
            write()

        self.servers = config.servers
        self.said = dns.apply(interface, index, config, before)

    def revert(self) -> None:
        """Take out what is set."""
        dns.revert(self.change)
        self.said, self.change, self.servers = "", DnsChange(), ()
