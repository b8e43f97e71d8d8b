"""The journal of accepted requests: its state, its partitions, and reading it in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from meterpost.core.errors import Conflict
from meterpost.core.ids import Ids, RandomIds
from meterpost.metering.model import JournalRow, Position
from meterpost.storage.postgres.database import Database
from meterpost.storage.tables.base import SCHEMA
from meterpost.storage.tables.ingest import JOURNAL_PARTITION_ROWS

#: Today there is one; the name keeps room for more writers than one row can serialise.
PARTITION = "0"

#: The next partition is made when less than this is left of the newest.
PARTITION_MARGIN_ROWS = JOURNAL_PARTITION_ROWS // 4

#: One read brings at most this many bytes of bodies (and always a whole row).
READ_BYTES_MAX = 64_000_000
_READ_ROWS_MAX = 20_000


def prepare_journal(connection: psycopg.Connection[Any], ids: Ids | None = None) -> int:
    """The highest sequence that has a partition, after making what is missing.

    The first call ever gives the journal its incarnation. Commits; safe to call at any time
    and from several processes, since the state row's lock puts them in order.
    """
    incarnation = (ids or RandomIds()).correlation_id()
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO meterpost.journal_state"
            " (partition, incarnation, last_sequence, started_at) VALUES (%s, %s, 0, now())"
            " ON CONFLICT (partition) DO NOTHING",
            (PARTITION, incarnation),
        )
        cursor.execute(
            "SELECT last_sequence FROM meterpost.journal_state WHERE partition = %s FOR UPDATE",
            (PARTITION,),
        )
        (last,) = _one(cursor)
        newest = (last + PARTITION_MARGIN_ROWS) // JOURNAL_PARTITION_ROWS
        for number in range(last // JOURNAL_PARTITION_ROWS, newest + 1):
            _make_partition(cursor, number)
    return int((newest + 1) * JOURNAL_PARTITION_ROWS - 1)


def renew_incarnation(connection: psycopg.Connection[Any], ids: Ids | None = None) -> Position:
    """The journal's end under a new incarnation, after a restore or fail-over.

    Positions of the old one are refused from now on, since what they point to may differ.
    """
    incarnation = (ids or RandomIds()).correlation_id()
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE meterpost.journal_state SET incarnation = %s, started_at = now()"
            " WHERE partition = %s RETURNING last_sequence",
            (incarnation, PARTITION),
        )
        return Position(incarnation, int(_one(cursor)[0]))


class PostgresJournal:
    """`metering.ports.Journal` over the journal table.

    Sequences are taken under a row lock that is held until the commit, so they become visible
    in order and without gaps: remembering the highest one read misses nothing.
    """

    def __init__(self, database: Database, *, read_bytes_max: int = READ_BYTES_MAX) -> None:
        self._database = database
        self._read_bytes_max = read_bytes_max

    def end(self) -> Position:
        """See `Journal`; an unused journal is started."""
        with self._database.snapshot() as connection:
            found = self._state(_raw(connection).cursor())
        if found is None:
            with self._database.raw_connection() as raw:
                prepare_journal(raw)
            return self.end()
        return found

    def read(self, after: Position, events_max: int) -> Sequence[JournalRow]:
        """See `Journal`.

        Raises: Conflict also where rows after the position were dropped already.
        """
        with self._database.snapshot() as connection:
            cursor = _raw(connection).cursor(binary=True)
            end = self._state(cursor)
            if end is None or end.incarnation != after.incarnation:
                raise Conflict(
                    f"The journal has the incarnation {end.incarnation if end else 'none'}, the "
                    f"position is of {after.incarnation}.",
                    hint="The database was restored or replaced: run `meterpost recover`.",
                )
            if after.sequence > end.sequence:
                raise Conflict(
                    f"The journal ends at {end.sequence}, before the position {after.sequence}.",
                    hint="The database is older than the event store: run `meterpost recover`.",
                )
            last = self._last_of_read(cursor, after.sequence, events_max)
            cursor.execute(
                "SELECT sequence, recorded_at, body, events, correlation_id, traceparent"
                " FROM meterpost.journal WHERE sequence > %s AND sequence <= %s"
                " ORDER BY sequence",
                (after.sequence, last),
            )
            rows = [JournalRow(*row) for row in cursor]
        expected = last - after.sequence if last else end.sequence - after.sequence
        if len(rows) != expected:
            raise Conflict(
                f"The journal no longer holds all rows after {after.sequence}: {expected} are "
                f"due, {len(rows)} are there.",
                hint="They were dropped before the event store had them: restore its backup.",
            )
        return rows

    def _last_of_read(self, cursor: psycopg.Cursor[Any], after: int, events_max: int) -> int:
        """The last sequence of the next read; 0 where there is no row."""
        cursor.execute(
            "SELECT sequence, events, octet_length(body) FROM meterpost.journal"
            " WHERE sequence > %s ORDER BY sequence LIMIT %s",
            (after, max(1, min(events_max, _READ_ROWS_MAX))),
        )
        last = events = size = 0
        for sequence, row_events, row_size in cursor:
            events += row_events
            size += row_size
            if last and (events > events_max or size > self._read_bytes_max):
                break
            last = sequence
        return last

    @staticmethod
    def _state(cursor: psycopg.Cursor[Any]) -> Position | None:
        cursor.execute(
            "SELECT incarnation, last_sequence FROM meterpost.journal_state WHERE partition = %s",
            (PARTITION,),
        )
        row = cursor.fetchone()
        return None if row is None else Position(row[0], row[1])


def _make_partition(cursor: psycopg.Cursor[Any], number: int) -> None:
    """Made first and attached then, which lets readers and writers of the journal go on."""
    name = f"journal_{number:06d}"
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (f"{SCHEMA}.{name}",))
    if _one(cursor)[0]:
        return
    words = {
        "new": sql.Identifier(SCHEMA, name),
        "journal": sql.Identifier(SCHEMA, "journal"),
        "first": sql.Literal(number * JOURNAL_PARTITION_ROWS),
        "end": sql.Literal((number + 1) * JOURNAL_PARTITION_ROWS),
    }
    cursor.execute(sql.SQL("CREATE TABLE {new} (LIKE {journal} INCLUDING ALL)").format(**words))
    cursor.execute(
        sql.SQL(
            "ALTER TABLE {journal} ATTACH PARTITION {new} FOR VALUES FROM ({first}) TO ({end})"
        ).format(**words)
    )


def _one(cursor: psycopg.Cursor[Any]) -> tuple[Any, ...]:
    row = cursor.fetchone()
    assert row is not None
    return tuple(row)


def _raw(connection: Any) -> psycopg.Connection[Any]:
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    return raw
