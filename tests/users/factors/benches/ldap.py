"""A slapd."""

from __future__ import annotations

from ..ldap.liars import Listener
from ..ldap.slapd import OURS, OURS_PASSWORD, PASSWORD, PEOPLE, Authority, Slapd, person
from .bench import Bench, free_port


class LdapBench(Bench):
    kind = "ldap"

    def at(self, servers: str, ca: str, timeout: int = 30) -> None:
        says = {"servers": servers, "bind_dn": OURS, "base": PEOPLE, "ca": ca, "timeout": timeout, "patience": 30}
        self.provider(says, {"bind_password": OURS_PASSWORD})

    def real(self) -> Slapd:
        people = person("alice") + person("bob", "bob's own")
        slapd = self.stack.enter_context(Slapd(people))
        self.at(slapd.ldaps, slapd.authority.pem)
        return slapd

    def right(self) -> str:
        self.real()
        return self.code(PASSWORD)

    def wrong(self) -> str:
        self.real()
        return self.code("another")

    def expired(self) -> str:
        slapd = self.stack.enter_context(Slapd(person("alice", more="pwdChangedTime: 20200101000000Z")))
        self.at(slapd.ldaps, slapd.authority.pem)
        return self.code(PASSWORD)

    def others(self) -> str:
        self.real()
        assert self.code("bob's own", self.bob) == "allowed"
        return self.code("bob's own")

    def down(self) -> str:
        self.at(f"ldaps://localhost:{free_port()}", Authority.new().pem)
        return self.code(PASSWORD)

    def slow(self) -> str:
        listener = self.stack.enter_context(Listener())
        self.at(f"ldaps://{listener.host}", Authority.new().pem, timeout=1)
        return self.code(PASSWORD)

    def lying(self) -> str:
        slapd = self.real()
        self.at(slapd.ldaps, Authority.new().pem)
        return self.code(PASSWORD)
