"""Tables of the event store, and how its file is opened.

Times are stored as TIMESTAMP in UTC, since plain timestamps are cut to hours ten times faster
than those with a zone; they leave the store as moments with their zone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from meterpost.core.errors import Conflict, Permanent
from meterpost.metering.model import ORDINAL_BITS

Connection = duckdb.DuckDBPyConnection

FORMAT = 1
FILE_NAME = "events.duckdb"
MEMORY_LIMIT_MB = 700

#: Two lanes of a usage digest add up modulo this.
LANE = "18446744073709551616"

_TABLES = """
-- One row. position: the last journal sequence stored; outbox_no: the last number given out.
CREATE TABLE state (
    format INTEGER NOT NULL, incarnation VARCHAR, position BIGINT NOT NULL,
    outbox_no BIGINT NOT NULL
);
-- One row per journal row: what all its events share.
CREATE TABLE requests (
    sequence BIGINT NOT NULL, recorded_at TIMESTAMP NOT NULL, events INTEGER NOT NULL,
    correlation_id VARCHAR NOT NULL, traceparent VARCHAR
);
CREATE TABLE types (no INTEGER NOT NULL, type VARCHAR NOT NULL, measured BOOLEAN NOT NULL);
-- A series is one (source, subject); an event without a subject has ''.
CREATE TABLE series (no INTEGER NOT NULL, source VARCHAR NOT NULL, subject VARCHAR NOT NULL);
-- seq = journal sequence << 17 | ordinal in the request. exact_data: the data with numbers that a
-- double cannot carry written as strings; NULL where data has none. fp_*: fingerprint halves.
CREATE TABLE events (
    seq BIGINT NOT NULL, series INTEGER NOT NULL, type INTEGER NOT NULL, id VARCHAR NOT NULL,
    time TIMESTAMP NOT NULL, time_given BOOLEAN NOT NULL, data VARCHAR, exact_data VARCHAR,
    extensions VARCHAR, traceparent VARCHAR, fp_hi UBIGINT NOT NULL, fp_lo UBIGINT NOT NULL
);
-- md5_number over (source, id): identity, exact, and narrow enough to be read whole.
CREATE TABLE event_keys (key UHUGEINT NOT NULL, seq BIGINT NOT NULL);
CREATE TABLE duplicates (seq BIGINT NOT NULL, first_seq BIGINT NOT NULL, series INTEGER NOT NULL);
CREATE TABLE conflicting (
    seq BIGINT NOT NULL, first_seq BIGINT NOT NULL, series INTEGER NOT NULL, id VARCHAR NOT NULL,
    type VARCHAR NOT NULL, subject VARCHAR NOT NULL, time TIMESTAMP NOT NULL, data VARCHAR
);
CREATE TABLE quarantined (
    seq BIGINT NOT NULL, source VARCHAR NOT NULL, id VARCHAR, reason VARCHAR NOT NULL,
    field VARCHAR NOT NULL, body VARCHAR
);
CREATE TABLE outbox (
    no BIGINT NOT NULL, first_sequence BIGINT NOT NULL, kind VARCHAR NOT NULL,
    payload VARCHAR NOT NULL
);
-- The meters ever applied; active ones measure new events.
CREATE TABLE meters (
    id VARCHAR NOT NULL, digest VARCHAR NOT NULL, definition VARCHAR NOT NULL,
    active BOOLEAN NOT NULL
);
-- The columns of each measurement table (measurements_<type no>), complete for all events.
CREATE TABLE measured_columns (
    type INTEGER NOT NULL, name VARCHAR NOT NULL, formula VARCHAR NOT NULL
);
-- A measure is what rollups are kept of: the same events, value and dimensions.
CREATE TABLE measures (no INTEGER NOT NULL, key VARCHAR NOT NULL, rolled_to BIGINT NOT NULL);
-- An epoch is a stretch of event sequences, rolled up once and never again: (last upto, upto].
CREATE TABLE epochs (upto BIGINT NOT NULL, sealed BOOLEAN NOT NULL);
CREATE TABLE rollups (
    measure INTEGER NOT NULL, upto BIGINT NOT NULL, hour TIMESTAMP NOT NULL,
    series INTEGER NOT NULL, dims VARCHAR NOT NULL, events BIGINT NOT NULL,
    total DECIMAL(38,9), minimum DECIMAL(27,9), maximum DECIMAL(27,9), latest DECIMAL(27,9),
    latest_key HUGEINT, first_at TIMESTAMP NOT NULL, last_at TIMESTAMP NOT NULL,
    lane1 UBIGINT NOT NULL, lane2 UBIGINT NOT NULL
);
"""


def open_file(
    path: Path, *, memory_limit_mb: int = MEMORY_LIMIT_MB, threads: int = 2
) -> Connection:
    """A connection to the event store's file, which no other process can open meanwhile.

    Raises: Conflict when another process has it open; Permanent for a file of another format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_limit_mb}MiB",
        "threads": threads,
        "temp_directory": str(path.with_suffix(".tmp")),
        # A commit writes the log; a checkpoint copies it into the file. Every 16 MB, as is the
        # default, would rewrite small row groups over and over.
        "checkpoint_threshold": "256MiB",
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    try:
        connection = duckdb.connect(str(path), config=config)
    except duckdb.IOException as exc:
        if "lock" in str(exc).lower():
            raise Conflict(
                f"The event store {path.name} is open in another process.",
                hint="Ask the running engine, or stop it first.",
            ) from exc
        raise Permanent(f"The event store {path.name} cannot be opened: {exc}") from exc
    run(connection, "SET TimeZone = 'UTC'")
    # It would compute what occurs twice in TRY(…) before and outside of the TRY, so that one
    # overflow in one event would fail the batch.
    run(connection, "SET disabled_optimizers = 'common_subexpressions'")
    _prepare(connection, path)
    return connection


def _prepare(connection: Connection, path: Path) -> None:
    [[tables]] = run(
        connection,
        "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'state' AND NOT temporary",
    )
    if not tables:
        run(connection, "BEGIN")
        for statement in duckdb.extract_statements(_TABLES):
            run(connection, statement.query)
        run(connection, "INSERT INTO state VALUES (?, NULL, 0, 0)", [FORMAT])
        run(connection, "COMMIT")
        return
    [[found]] = run(connection, "SELECT format FROM state")
    if found != FORMAT:
        raise Permanent(
            f"The event store {path.name} has format {found}; this version reads {FORMAT}.",
            hint="Use the version of meterpost that wrote it, or rebuild it from the journal.",
        )


def run(connection: Connection, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """All rows of one statement."""
    return connection.execute(sql, list(values)).fetchall()


def table(connection: Connection, sql: str, values: Sequence[Any] = ()) -> pa.Table:
    """All rows of one query as an Arrow table."""
    return connection.sql(sql, params=list(values)).to_arrow_table()


def text(value: str) -> str:
    """The value as an SQL literal, for the few places that take no parameter."""
    return "'" + value.replace("'", "''") + "'"


def last_seq(sequence: int) -> int:
    """The highest event sequence that a journal sequence can hold."""
    return (sequence << ORDINAL_BITS) | ((1 << ORDINAL_BITS) - 1)
