"""Asking a directory by LDAP: always encrypted, its certificate always verified, no referral followed.

python-ldap is compiled, so it may not be there; ``INSTALLED`` says so, and nothing else here works without it.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import secured
from .secured import Down

try:
    import ldap
    import ldap.dn
    import ldap.filter
except ImportError:
    ldap = None

INSTALLED = ldap is not None
IN_CHAIN = "1.2.840.113556.1.4.1941"
# Of groups that are in groups: how deep, how many in all, and how many are asked about in one search.
DEEPEST, MOST_GROUPS, AT_ONCE = 10, 1000, 50
NO_ATTRIBUTES = ["1.1"]
# Characters of what a server says that administrators are shown.
LONGEST_INFO = 120


class DirectoryRefused(Exception):
    """The directory says no. The arguments: one of the factor's codes, and what is special of this case."""


@dataclass(frozen=True, slots=True)
class Directory:
    """What is asked of whom, as its form has it. Times are in seconds."""

    ca: str
    bind_dn: str
    bind_password: str = field(repr=False)
    base: str
    user_filter: str
    dn_template: str
    group: str
    nested: str
    group_base: str
    timeout: float


class Session:
    """One server, as whoever was last bound. Operations raise ``Down`` and ``DirectoryRefused``."""

    def __init__(self, connection: Any, timeout: float, ends: float) -> None:
        self._connection, self._timeout, self._ends = connection, timeout, ends

    def bind(self, dn: str, password: str) -> None:
        # Without one of them a server may call everybody welcome: that is no proof of anything.
        if not dn or not password:
            raise DirectoryRefused("wrong")
        try:
            self._do(lambda: self._connection.simple_bind_s(dn, password))
        except ldap.LDAPError as error:
            raise DirectoryRefused("wrong", why_refused(error)) from None

    def find(self, base: str, query: str, *, below: bool = True, most: int, more: str) -> list[str]:
        """The DNs of what matches, ``most`` at most. ``more``: the code to refuse with where there are more."""
        scope = ldap.SCOPE_SUBTREE if below else ldap.SCOPE_BASE
        try:
            found = self._do(
                lambda: self._connection.search_ext_s(
                    base, scope, query, NO_ATTRIBUTES, timeout=self._left(), sizelimit=most
                )
            )
        except ldap.SIZELIMIT_EXCEEDED:
            raise DirectoryRefused(more) from None
        except ldap.LDAPError as error:
            raise DirectoryRefused("misconfigured", _info(error)) from None
        return [dn for dn, _ in found if dn]  # a referral has none

    def _left(self) -> float:
        left = min(self._timeout, self._ends - time.monotonic())
        if left <= 0:
            raise Down("unavailable")
        return left

    def _do(self, operation: Callable[[], Any]) -> Any:
        """Raise ``ldap.LDAPError`` for what the server said."""
        left = self._left()
        self._connection.set_option(ldap.OPT_TIMEOUT, left)
        try:
            return operation()
        except (ldap.SERVER_DOWN, ldap.CONNECT_ERROR, ldap.TIMEOUT, ldap.BUSY, ldap.UNAVAILABLE):
            raise Down("unavailable") from None


@contextlib.contextmanager
def session(server: str, ca: str, timeout: float, ends: float) -> Iterator[Session]:
    """``server``: "ldaps://…", or "ldap://…", which is encrypted before anything is said. ``ends``: on the monotonic
    clock. Raise ``Down``."""
    soon = min(ends, time.monotonic() + timeout)
    end = secured.plain_end(secured.connect(server, ca, soon), ends)
    # It neither resolves nor connects nor encrypts: all that is done. It closes the socket, too.
    connection = ldap.initialize("ldap://", fileno=end.detach())
    try:
        connection.set_option(ldap.OPT_PROTOCOL_VERSION, ldap.VERSION3)
        connection.set_option(ldap.OPT_REFERRALS, ldap.OPT_OFF)
        yield Session(connection, timeout, ends)
    finally:
        with contextlib.suppress(ldap.LDAPError):
            connection.unbind_s()


def judge(server: str, directory: Directory, name: str, password: str, ends: float) -> None:
    """Return if that is the password of the user ``name``, who is in the group where one is said. Raise ``Down``,
    ``DirectoryRefused``."""
    with session(server, directory.ca, directory.timeout, ends) as ours:
        if directory.dn_template:
            dn = directory.dn_template.replace("{user}", ldap.dn.escape_dn_chars(name))
            ours.bind(dn, password)
        else:
            dn = _search(ours, directory, name)
            with session(server, directory.ca, directory.timeout, ends) as theirs:
                theirs.bind(dn, password)
        if directory.group and not _is_member(ours, directory, dn):
            raise DirectoryRefused("not_in_group")


def bind_ours(asked: Session, directory: Directory) -> None:
    try:
        asked.bind(directory.bind_dn, directory.bind_password)
    except DirectoryRefused:
        raise Down("service_account") from None


def try_out(server: str, directory: Directory, ends: float) -> None:
    """Return if it answers us as it should. Raise ``Down``, ``DirectoryRefused``."""
    with session(server, directory.ca, directory.timeout, ends) as ours:
        if directory.dn_template:
            dn = directory.dn_template.replace("{user}", f"nobody-{secrets.token_hex(4)}")
            with contextlib.suppress(DirectoryRefused):
                ours.bind(dn, secrets.token_hex(8))
        else:
            bind_ours(ours, directory)
            ours.find(directory.base, "(objectClass=*)", below=False, most=1, more="ambiguous")


def _search(ours: Session, directory: Directory, name: str) -> str:
    bind_ours(ours, directory)
    query = directory.user_filter.replace("{user}", ldap.filter.escape_filter_chars(name))
    found = ours.find(directory.base, query, most=2, more="ambiguous")
    if not found:
        raise DirectoryRefused("unknown")
    if len(found) > 1:
        raise DirectoryRefused("ambiguous")
    return found[0]


def _is_member(ours: Session, directory: Directory, dn: str) -> bool:
    if directory.nested == "chain":
        group = ldap.filter.escape_filter_chars(directory.group)
        return bool(ours.find(dn, f"(memberOf:{IN_CHAIN}:={group})", below=False, most=1, more="ambiguous"))
    seen, newest = {dn}, [dn]
    for _ in range(DEEPEST if directory.nested == "walk" else 1):
        if _find_groups(ours, directory.group, newest, below=False):
            return True
        if directory.nested != "walk" or not newest:
            return False
        newest = [each for each in _find_groups(ours, directory.group_base, newest) if each not in seen]
        seen.update(newest)
        if len(seen) > MOST_GROUPS:
            raise DirectoryRefused("too_many_groups")
    return False


def _find_groups(ours: Session, base: str, members: Sequence[str], *, below: bool = True) -> list[str]:
    """Those that have one of ``members``. Their DNs are compared by the directory, which knows how."""
    found: dict[str, None] = {}
    for at in range(0, len(members), AT_ONCE):
        parts = [ldap.filter.escape_filter_chars(each) for each in members[at : at + AT_ONCE]]
        query = "".join(f"(member={each})(uniqueMember={each})" for each in parts)
        found |= dict.fromkeys(ours.find(base, f"(|{query})", below=below, most=MOST_GROUPS, more="too_many_groups"))
    return list(found)


# What Active Directory says in the text of a refused bind.
_WHY = {
    "525": "no such user",
    "530": "not at this time of day",
    "532": "the password has expired",
    "533": "the account is disabled",
    "701": "the account has expired",
    "773": "the password must be changed first",
    "775": "the account is locked",
}


def why_refused(error: Exception) -> str:
    """What of a refused bind administrators can act on; empty where it says nothing."""
    info = _info(error)
    known = next((words for code, words in _WHY.items() if f"data {code}," in info), "")
    return known or ("" if isinstance(error, ldap.INVALID_CREDENTIALS) else info)


def _info(error: Exception) -> str:
    """What libldap and the server say of it, one printable line."""
    said = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    words = " ".join(f"{said.get('desc', '')} {said.get('info', '')}".split())
    return "".join(each for each in words if each.isprintable())[:LONGEST_INFO]
