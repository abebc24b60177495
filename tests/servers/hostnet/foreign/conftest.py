"""The machine that the tests of this directory put other firewalls on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import Namespace
from tests.servers.hostnet.foreign.machines import Machine


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    where = Namespace("foreign")
    try:
        for name, address in (("wan", "198.51.100.1/24"), ("lan50", "10.50.0.1/24")):
            where.ip("link", "add", name, "type", "bridge")
            where.ip("addr", "add", address, "dev", name)
            where.ip("link", "set", name, "up")
        where.ip("addr", "add", "2001:db8:1::1/64", "dev", "wan", "nodad")
        where.ip("route", "add", "default", "via", "198.51.100.254")
        where.ip("route", "add", "default", "via", "2001:db8:1::fe")
        yield where
    finally:
        where.close()


@pytest.fixture
def machine(namespace: Namespace) -> Machine:
    namespace.run("nft", "flush", "ruleset")
    return Machine(namespace, [])
