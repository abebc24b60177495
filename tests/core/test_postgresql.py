"""A primary and its standby: a connection is always to the one that takes changes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
import pytest
from django.db import OperationalError, connections, transaction
from django.db.utils import ConnectionHandler
from django.test.utils import CaptureQueriesContext

from core.postgresql.base import DatabaseWrapper
from tests.lab import PostgresPair, until
from vpnproject.env import database

pytestmark = pytest.mark.django_db  # lets the test open databases


@pytest.fixture
def pair() -> Iterator[PostgresPair]:
    with PostgresPair() as made:
        yield made


@pytest.fixture(scope="module")
def lasting_pair() -> Iterator[PostgresPair]:
    """For tests after which the primary is the primary still: most of what the others take is to make the two."""
    with PostgresPair() as made:
        yield made


@contextlib.contextmanager
def opened(pair: PostgresPair) -> Iterator[DatabaseWrapper]:
    """Django's connection to it, with an empty table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", pair.url)
        config = ConnectionHandler({"default": database(pair.directory)}).settings["default"]
    made = DatabaseWrapper(config, alias="other")
    connections["other"] = made
    with made.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS notes")
        cursor.execute("CREATE TABLE notes (text text)")
    yield made
    made.close()
    del connections["other"]


@pytest.fixture
def wrapper(pair: PostgresPair) -> Iterator[DatabaseWrapper]:
    with opened(pair) as made:
        yield made


@pytest.fixture
def lasting(lasting_pair: PostgresPair) -> Iterator[DatabaseWrapper]:
    with opened(lasting_pair) as made:
        yield made


def note(wrapper: DatabaseWrapper, text: str) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute("INSERT INTO notes VALUES (%s)", [text])


def notes(wrapper: DatabaseWrapper) -> list[str]:
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT text FROM notes ORDER BY text")
        return [row[0] for row in cursor.fetchall()]


def begins_request(wrapper: DatabaseWrapper) -> None:
    """As Django does between two requests, and Celery around each task."""
    wrapper.close_if_unusable_or_obsolete()


def where(wrapper: DatabaseWrapper) -> str:
    return str(wrapper.connection.info.host)


def works(wrapper: DatabaseWrapper, text: str) -> bool:
    begins_request(wrapper)
    try:
        note(wrapper, text)
    except OperationalError:
        return False
    return True


def test_the_primary_is_found_behind_a_standby_that_answers(
    lasting_pair: PostgresPair, lasting: DatabaseWrapper
) -> None:
    assert where(lasting) == lasting_pair.primary.address


def test_after_the_primary_died_and_its_standby_was_promoted_the_same_process_goes_on(
    pair: PostgresPair, wrapper: DatabaseWrapper
) -> None:
    assert works(wrapper, "before")
    until(lambda: copied(pair, 1))
    pair.primary.kill()
    assert not works(wrapper, "while none is primary")
    pair.promote()
    until(lambda: works(wrapper, "after"), every=0.1)
    assert where(wrapper) == pair.standby.address
    assert notes(wrapper) == ["after", "before"]


def copied(pair: PostgresPair, count: int) -> bool:
    with pair.standby.connect() as connection, contextlib.suppress(psycopg.errors.UndefinedTable):
        return connection.execute("SELECT count(*) FROM notes").fetchone() == (count,)
    return False


def demote(pair: PostgresPair) -> None:
    """The primary takes no changes any more, and its connections stay: as when a new primary was made of the other one.

    The setting holds for connections that are there as well, as it does on a standby.
    """
    pair.primary.run("ALTER SYSTEM SET default_transaction_read_only = on")
    pair.primary.run("SELECT pg_reload_conf()")
    pair.promote()


def refused(wrapper: DatabaseWrapper, text: str) -> bool:
    """Without what comes between two requests."""
    try:
        note(wrapper, text)
    except OperationalError as error:
        return "takes no changes" in str(error)
    return False


def test_a_refusal_to_write_closes_the_connection(pair: PostgresPair, wrapper: DatabaseWrapper) -> None:
    assert works(wrapper, "before")
    until(lambda: copied(pair, 1))
    demote(pair)
    until(lambda: refused(wrapper, "x"))
    assert wrapper.connection is None
    note(wrapper, "after")
    assert where(wrapper) == pair.standby.address


def test_a_refusal_within_a_transaction_ends_it_and_the_next_is_elsewhere(
    pair: PostgresPair, wrapper: DatabaseWrapper
) -> None:
    until(lambda: copied(pair, 0))
    demote(pair)

    def transactions_fail() -> bool:
        try:
            with transaction.atomic(using="other"), transaction.atomic(using="other"):
                note(wrapper, "x")
        except OperationalError:
            return True
        return False

    until(transactions_fail)
    assert not wrapper.in_atomic_block
    with transaction.atomic(using="other"):
        note(wrapper, "after")
    assert where(wrapper) == pair.standby.address


def test_who_only_reads_has_a_new_connection_with_the_next_request(
    pair: PostgresPair, wrapper: DatabaseWrapper
) -> None:
    until(lambda: copied(pair, 0))
    demote(pair)

    def elsewhere() -> bool:
        begins_request(wrapper)
        notes(wrapper)
        return where(wrapper) == pair.standby.address

    until(elsewhere)


def put(wrapper: DatabaseWrapper, text: str) -> None:
    """The same statement each time."""
    with wrapper.prepared_cursor() as cursor:
        cursor.execute("INSERT INTO notes VALUES (%s)", [text])


def prepared(wrapper: DatabaseWrapper) -> list[str]:
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements WHERE statement LIKE 'INSERT%%'", [])
        return [row[0] for row in cursor.fetchall()]


def test_a_statement_is_prepared_once_and_only_where_that_is_asked_for(lasting: DatabaseWrapper) -> None:
    for _ in range(10):
        note(lasting, "x")
    assert prepared(lasting) == []
    for text in ("a", "b", "it's 100 % c"):
        put(lasting, text)
    assert prepared(lasting) == ["INSERT INTO notes VALUES ($1)"]
    assert notes(lasting) == ["a", "b", "it's 100 % c", *"x" * 10]


def test_what_was_prepared_is_prepared_again_after_a_rollback_and_on_a_new_connection(lasting: DatabaseWrapper) -> None:
    put(lasting, "a")
    with contextlib.suppress(ZeroDivisionError), transaction.atomic(using="other"):
        put(lasting, "never")
        raise ZeroDivisionError
    put(lasting, "b")
    lasting.close()
    put(lasting, "c")
    assert notes(lasting) == ["a", "b", "c"]


def test_a_prepared_statement_that_is_refused_closes_the_connection_too(
    pair: PostgresPair, wrapper: DatabaseWrapper
) -> None:
    put(wrapper, "before")
    until(lambda: copied(pair, 1))
    demote(pair)

    def refused_too() -> bool:
        try:
            put(wrapper, "x")
        except OperationalError as error:
            return "takes no changes" in str(error)
        return False

    until(refused_too)
    assert wrapper.connection is None
    put(wrapper, "after")
    assert where(wrapper) == pair.standby.address


def test_a_statement_is_shown_whether_it_was_sent_by_its_name_or_not(lasting: DatabaseWrapper) -> None:
    with CaptureQueriesContext(lasting) as context:
        put(lasting, "a")
        put(lasting, "b")
        note(lasting, "c")
    assert [query["sql"].split(" VALUES ")[0] for query in context.captured_queries] == ["INSERT INTO notes"] * 3
