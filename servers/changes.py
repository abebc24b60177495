"""A change that concerns hosts: their versions are raised in its own transaction, and they are told after commit."""

from __future__ import annotations

from collections.abc import Iterable

from core.changes import after_commit
from core.sql import fetch_one
from core.task_names import CONVERGE, ENFORCE

# As SQL, because only so does the raised version come back with the same statement.
_RAISE = "UPDATE servers_host SET version = version + 1 WHERE id = %s RETURNING version"


def bump_versions(hosts: Iterable[int]) -> dict[int, int]:
    """Raise ``version`` of each host by one; the new versions by primary key, without hosts that are gone. Must run
    inside the change's transaction: on PostgreSQL the row's lock then puts changes of one host in the order of their
    versions.

    In order of id, so that two changes of the same hosts cannot wait for each other.
    """
    versions = {}
    for host in sorted(set(hosts)):
        if row := fetch_one(_RAISE, host):
            versions[host] = int(row[0])
    return versions


def record(hosts: Iterable[int]) -> None:
    """Hosts (primary keys) whose state this transaction changes: each gets one new version and one full state after
    commit, however often it is recorded. Must run inside the change's transaction.

    One version is enough: what the transaction changes before and after it is seen by others all at once.
    """
    concerned = sorted(set(hosts))
    bump_versions([host for host in concerned if after_commit(CONVERGE, host)])
    if concerned:
        # A server stopped, a host detached: whoever is connected there no longer is.
        after_commit(ENFORCE)
