"""A change that concerns hosts: their versions are raised in its own transaction, and they are told after commit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from django.db import connection, transaction

from core.task_queue import after_commit

# As SQL, because only so does the raised version come back with the same statement.
_RAISE = "UPDATE servers_host SET version = version + 1 WHERE id = %s RETURNING version"


def bump_versions(hosts: Iterable[int]) -> dict[int, int]:
    """Raise ``version`` of each host by one; the new versions by primary key, without hosts that are gone. Must run
    inside the change's transaction: on PostgreSQL the row's lock then puts changes of one host in the order of their
    versions.

    In order of id, so that two changes of the same hosts cannot wait for each other.
    """
    versions = {}
    with connection.cursor() as cursor:
        for host in sorted(set(hosts)):
            cursor.execute(_RAISE, [host])
            if row := cursor.fetchone():
                versions[host] = int(row[0])
    return versions


@contextmanager
def of_hosts() -> Iterator[set[int]]:
    """A transaction; the hosts put into the set it gives (primary keys) get a new full state after commit."""
    hosts: set[int] = set()
    with transaction.atomic():
        yield hosts
        bump_versions(hosts)
        for host in sorted(hosts):
            after_commit("wgpeers.converge", host)
        if hosts:
            # A server stopped, a host detached: whoever is connected there no longer is.
            after_commit("wgpeers.enforce")
