"""A machine with other firewalls on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from servers.hostnet.firewall.table import FirewallError
from servers.hostnet.foreign import manager
from servers.hostnet.foreign.manager import Foreign
from servers.hostnet.state import HostCondition, HostState, Interface
from tests.lab import Namespace
from tests.servers.hostnet.fakes import state_of

from .tables import (
    ONE,
    WEB_PORT,
    listing,
)

LOOK = manager.examine
SIX = dataclasses.replace(ONE, addresses=("fd01::1/64",))


def desired(*interfaces: Interface, insert_rules: bool = True) -> HostState:
    return state_of(*interfaces, web_port=WEB_PORT, open_foreign_firewalls=insert_rules)


def told(tool: Foreign, *interfaces: Interface, insert_rules: bool = True) -> list[HostCondition]:
    """What it reports of a full state."""
    tool.apply(desired(*interfaces, insert_rules=insert_rules))
    return tool.conditions()


@dataclasses.dataclass
class Machine:
    """A namespace with a way out over ``wan``, and ``foreign`` as it works there; ``asked`` is what it ran."""

    where: Namespace
    asked: list[list[str]]

    @property
    def foreign(self) -> Foreign:
        return Foreign(self.run, Path(f"/proc/{self.where.pid}/net"))

    def run(self, command: Sequence[str], text: str) -> str:
        self.asked.append([*command])
        done = self.where.run(*command, text=text, check=False)
        if done.returncode:
            raise FirewallError(done.stderr)
        return done.stdout

    def check(self, *interfaces: Interface) -> list[str]:
        return [condition.text for condition in self.foreign.check(interfaces or [ONE], WEB_PORT)]

    def apply(self, *interfaces: Interface, insert_rules: bool = True) -> list[str]:
        return [condition.text for condition in told(self.foreign, *(interfaces or [ONE]), insert_rules=insert_rules)]

    def preview(self, *interfaces: Interface, insert_rules: bool = True) -> list[str]:
        return self.foreign.preview(desired(*(interfaces or [ONE]), insert_rules=insert_rules))

    def rules(self) -> str:
        return listing(self.where)


def kinds(findings: Sequence[str]) -> list[str]:
    """The chain and how it treats us, without the commands."""
    return [finding.partition(". To let")[0] for finding in findings]
