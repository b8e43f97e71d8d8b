# SQL is put together from our own words; values are parameters or quoted
"""One drain: journal rows in, events, measurements, counts and outbox out, in one transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import pyarrow as pa

from meterpost.metering.expression_sql import identifier, path_name
from meterpost.metering.model import DrainReport, JournalRow, Position
from meterpost.storage.duckdb.decode import LONG_NUMBER_PATTERN, Decoded, decode_ahead, exact_data
from meterpost.storage.duckdb.measuring import (
    FRAME,
    distinct_columns,
    measuring_sql,
    table_name,
    with_fields,
)
from meterpost.storage.duckdb.plans import MeterPlan
from meterpost.storage.duckdb.schema import Connection, run, text

_TIME_PATTERN = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_KEY_SQL = "md5_number(concat(length(a.source), ':', a.source, a.id))"

# The dictionaries may come to know a name from an event that is then refused or repeated.
_NEW_TYPES = """
INSERT INTO types
SELECT row_number() OVER (ORDER BY type) + (SELECT coalesce(max(no), 0) FROM types), type, FALSE
FROM (SELECT DISTINCT type FROM arrived ANTI JOIN types USING (type))
"""
_NEW_SERIES = """
INSERT INTO series
SELECT row_number() OVER (ORDER BY source, subject)
           + (SELECT coalesce(max(no), 0) FROM series), source, subject
FROM (SELECT DISTINCT source, coalesce(subject, '') AS subject FROM arrived)
    ANTI JOIN series USING (source, subject)
"""
# One pass, one copy. The cast to TIMESTAMPTZ reads the offset (a cast to TIMESTAMP drops it) and
# cuts at microseconds. to_hex, since DuckDB writes a UHUGEINT as decimal text 400 times slower.
_BATCH = f"""
SELECT seq, source, id, type, subject, coalesce(given, recorded_at) AS time,
       given IS NOT NULL AS time_given, data, NULL::VARCHAR AS exact_data, extensions, traceparent,
       key, CAST(fp >> 64 AS UBIGINT) AS fp_hi, CAST(fp & 18446744073709551615 AS UBIGINT) AS fp_lo,
       series, type_no, CASE
           WHEN time_text IS NOT NULL AND (given IS NULL
               OR NOT regexp_full_match(time_text, {text(_TIME_PATTERN)})
               OR given NOT BETWEEN TIMESTAMP '0001-01-01'
                   AND TIMESTAMP '9999-12-31 23:59:59.999999')
           THEN 'time is not a moment with a zone (RFC 3339)'
           WHEN NOT json_valid(data) THEN 'data is not valid JSON' END AS problem
FROM (
    SELECT *, md5_number(concat(to_hex(key), '|', length(type), ':', type,
        '|', length(subject), ':', subject,
        '|', coalesce(CAST(epoch_us(given) AS VARCHAR), '-'), '|', data)
        ) AS fp
    FROM (
        SELECT a.* REPLACE (coalesce(a.subject, '') AS subject), r.recorded_at, s.no AS series,
               t.no AS type_no, {_KEY_SQL} AS key,
               TRY(make_timestamp(epoch_us(TRY_CAST(upper(a.time_text) AS TIMESTAMPTZ)))) AS given
        FROM arrived a JOIN drained_requests r ON r.sequence = a.seq >> 17
             JOIN types t ON t.type = a.type
             JOIN series s ON s.source = a.source AND s.subject = coalesce(a.subject, '')))
"""


@dataclass(slots=True)
class Drain:
    """A drain in the caller's transaction. ``plans`` are all known meters, by event type."""

    connection: Connection
    incarnation: str
    plans: Mapping[str, Sequence[MeterPlan]]
    active: frozenset[str]

    def store(self, rows: Sequence[JournalRow]) -> DrainReport:
        """Write everything the rows mean and move the position behind them.

        Raises: RuntimeError where the cells do not add up to what was accepted, which is a
        defect of this program and leaves nothing behind.
        """
        accepted = sum(row.events for row in rows)
        for step, decoded in enumerate(decode_ahead(rows)):
            self._arrive(decoded, first=step == 0)
        quarantined = self._set_refused_apart()
        self._keep_long_numbers_exact()
        duplicate, conflicting = self._set_repeated_apart()
        self._insert_events()
        processed = self._measure(rows[0].sequence)
        [[fresh]] = run(self.connection, "SELECT count(*) FROM batch")
        report = DrainReport(
            Position(self.incarnation, rows[-1].sequence),
            accepted,
            duplicate,
            conflicting,
            quarantined,
            fresh - processed,
            processed,
        )
        if accepted != duplicate + conflicting + quarantined + fresh:
            raise RuntimeError(f"a drain lost or invented events: {report}")
        self._owe(rows[0].sequence)
        run(self.connection, "UPDATE state SET position = ?", [rows[-1].sequence])
        return report

    def _register(self, name: str, table: pa.Table) -> None:
        self.connection.register(name, table)

    def _arrive(self, decoded: Decoded, *, first: bool) -> None:
        """Append decoded events to the temp tables ``batch`` and ``refused``."""
        tables = {
            "arrived": decoded.arrived,
            "broken": decoded.broken,
            "drained_requests": decoded.requests,
        }
        for name, table in tables.items():
            self._register(name, table)
        run(self.connection, "INSERT INTO requests SELECT * FROM drained_requests")
        run(self.connection, _NEW_TYPES)
        run(self.connection, _NEW_SERIES)
        into = "CREATE OR REPLACE TEMP TABLE {} AS {}" if first else "INSERT INTO {} {}"
        run(self.connection, into.format("batch", _BATCH))
        run(self.connection, into.format("refused", "SELECT * FROM broken"))
        for name in tables:
            self.connection.unregister(name)

    def _set_refused_apart(self) -> int:
        """Move events that cannot be typed out of the batch and store all refused ones."""
        run(
            self.connection,
            "INSERT INTO refused SELECT seq, source, id, problem, split_part(problem, ' ', 1), data"
            " FROM batch WHERE problem IS NOT NULL",
        )
        [[count]] = run(self.connection, "SELECT count(*) FROM refused")
        if count:
            run(self.connection, "INSERT INTO quarantined SELECT * FROM refused ORDER BY seq")
            run(self.connection, "DELETE FROM batch WHERE problem IS NOT NULL")
        return int(count)

    def _keep_long_numbers_exact(self) -> None:
        found = run(
            self.connection,
            f"SELECT seq, data FROM batch WHERE regexp_matches(data, {text(LONG_NUMBER_PATTERN)})",
        )
        exact = [(seq, changed) for seq, data in found if (changed := exact_data(data)) is not None]
        if not exact:
            return
        rewritten = pa.table(
            {
                "seq": pa.array([seq for seq, _ in exact], pa.int64()),
                "exact": pa.array([data for _, data in exact], pa.string()),
            }
        )
        self._register("rewritten", rewritten)
        run(
            self.connection,
            "UPDATE batch SET exact_data = r.exact FROM rewritten r WHERE r.seq = batch.seq",
        )
        self.connection.unregister("rewritten")

    def _set_repeated_apart(self) -> tuple[int, int]:
        """Move events whose key is known out of the batch; counts of duplicates, conflicts."""
        run(
            self.connection,
            "CREATE OR REPLACE TEMP TABLE again AS"
            " SELECT b.seq, k.seq AS first_seq FROM event_keys k JOIN batch b ON b.key = k.key",
        )
        [[keys, events]] = run(self.connection, "SELECT count(DISTINCT key), count(*) FROM batch")
        if keys != events:
            run(
                self.connection,
                """INSERT INTO again SELECT seq, first FROM (
                       SELECT seq, min(seq) OVER (PARTITION BY key) AS first
                       FROM batch ANTI JOIN again USING (seq)) WHERE seq <> first""",
            )
        [[repeated]] = run(self.connection, "SELECT count(*) FROM again")
        if not repeated:
            run(self.connection, "CREATE OR REPLACE TEMP TABLE clashes AS SELECT * FROM again")
            return 0, 0
        self._find_clashes()
        run(
            self.connection,
            """INSERT INTO duplicates SELECT a.seq, a.first_seq, b.series
               FROM (SELECT * FROM again ANTI JOIN clashes USING (seq)) a
               JOIN batch b ON b.seq = a.seq ORDER BY a.seq""",
        )
        run(
            self.connection,
            """INSERT INTO conflicting
               SELECT b.seq, c.first_seq, b.series, b.id, b.type, b.subject, b.time, b.data
               FROM clashes c JOIN batch b ON b.seq = c.seq ORDER BY b.seq""",
        )
        run(
            self.connection,
            "CREATE OR REPLACE TEMP TABLE firsts AS SELECT c.seq, f.time AS first_time FROM"
            " clashes c JOIN (SELECT seq, time FROM events UNION ALL SELECT seq, time FROM batch) f"
            " ON f.seq = c.first_seq",
        )
        [[clashes]] = run(self.connection, "SELECT count(*) FROM clashes")
        run(self.connection, "DELETE FROM batch WHERE seq IN (SELECT seq FROM again)")
        return repeated - clashes, clashes

    def _find_clashes(self) -> None:
        """Keep in ``clashes`` the repeated events whose content differs from the first's."""
        run(
            self.connection,
            """CREATE OR REPLACE TEMP TABLE clashes AS
               SELECT a.seq, a.first_seq FROM again a JOIN batch b ON b.seq = a.seq
               JOIN (SELECT seq, fp_hi, fp_lo FROM events WHERE seq IN (SELECT first_seq FROM again)
                     UNION ALL SELECT seq, fp_hi, fp_lo FROM batch) f ON f.seq = a.first_seq
               WHERE (b.fp_hi, b.fp_lo) <> (f.fp_hi, f.fp_lo)""",
        )
        # The bytes differ; the same JSON in another spelling is still the same content.
        pairs = run(
            self.connection,
            """SELECT c.seq, b.data, f.data FROM clashes c JOIN batch b ON b.seq = c.seq
               JOIN (SELECT e.seq, t.type, s.subject, e.time, e.time_given, e.data FROM events e
                     JOIN types t ON t.no = e.type JOIN series s ON s.no = e.series
                     WHERE e.seq IN (SELECT first_seq FROM clashes)
                     UNION ALL SELECT seq, type, subject, time, time_given, data FROM batch) f
                   ON f.seq = c.first_seq
               WHERE b.type = f.type AND b.subject = f.subject AND b.time_given = f.time_given
                 AND (b.time = f.time OR NOT b.time_given)""",
        )
        equal = [seq for seq, one, other in pairs if same_json(one, other)]
        if equal:
            self._register("equal", pa.table({"seq": pa.array(equal, pa.int64())}))
            run(self.connection, "DELETE FROM clashes WHERE seq IN (SELECT seq FROM equal)")
            self.connection.unregister("equal")

    def _insert_events(self) -> None:
        run(self.connection, "INSERT INTO event_keys SELECT key, seq FROM batch")
        run(
            self.connection,
            """INSERT INTO events SELECT seq, series, type_no, id, time, time_given, data,
               exact_data, extensions, traceparent, fp_hi, fp_lo FROM batch""",
        )

    def _measure(self, first_sequence: int) -> int:
        """Write measurements of every measured type in the batch; how many events have one."""
        processed = 0
        measured = run(
            self.connection,
            "SELECT t.no, t.type FROM types t SEMI JOIN batch f ON f.type_no = t.no"
            " WHERE t.measured ORDER BY t.no",
        )
        for no, type_name in measured:
            plans = self.plans[type_name]
            columns = distinct_columns(plans)
            source = (
                "(SELECT seq, time, series, fp_hi AS lane1, fp_lo AS lane2, id, source, subject,"
                f" type, data, exact_data FROM batch WHERE type_no = {no})"
            )
            names = ", ".join([*FRAME, *(column.sql_name for column in columns)])
            [[count]] = run(
                self.connection,
                f"INSERT INTO {table_name(no)} ({names})"
                f" {measuring_sql(source, columns, keep=FRAME)}",
            )
            processed += int(count)
            for plan in plans:
                if plan.meter.id in self.active:
                    owe_failures(
                        self.connection, no, plan, first_sequence, "batch", first_sequence << 17
                    )
        return processed

    def _owe(self, first_sequence: int) -> None:
        """Put conflicts and quarantined events into the outbox."""
        owe(
            self.connection,
            first_sequence,
            "conflicting_duplicate",
            """SELECT b.seq, json_object('source', s.source, 'id', b.id, 'type', b.type,
                   'subject', b.subject, 'sequence', b.seq, 'first_sequence', b.first_seq,
                   'time', strftime(b.time, '%Y-%m-%dT%H:%M:%S.%fZ'),
                   'first_time', strftime(f.first_time, '%Y-%m-%dT%H:%M:%S.%fZ')) AS payload
               FROM conflicting b JOIN clashes c ON c.seq = b.seq JOIN firsts f ON f.seq = b.seq
               JOIN series s ON s.no = b.series"""
            if run(self.connection, "SELECT 1 FROM clashes LIMIT 1")
            else None,
        )
        owe(
            self.connection,
            first_sequence,
            "quarantined_event",
            """SELECT seq, json_object('source', source, 'id', id, 'sequence', seq,
                   'reason', reason, 'field', field) AS payload FROM refused"""
            if run(self.connection, "SELECT 1 FROM refused LIMIT 1")
            else None,
        )


def owe(connection: Connection, first_sequence: int, kind: str, query: str | None) -> None:
    """Put the payloads of a query (seq, payload) into the outbox, numbered in order."""
    if query is None:
        return
    [[count]] = run(
        connection,
        f"""INSERT INTO outbox
            SELECT row_number() OVER (ORDER BY seq) + (SELECT outbox_no FROM state), ?, ?,
                   CAST(payload AS VARCHAR) FROM ({query})""",
        [first_sequence, kind],
    )
    run(connection, "UPDATE state SET outbox_no = outbox_no + ?", [count])


def owe_failures(
    connection: Connection,
    type_no: int,
    plan: MeterPlan,
    first_sequence: int,
    source: str,
    from_seq: int,
) -> None:
    """Put the failed measurements of one meter into the outbox, each with its reason.

    ``source`` is a table of events with their attributes and data; ``from_seq`` is the first
    event sequence looked at.
    """
    failed = f"SELECT seq FROM {table_name(type_no)} WHERE seq >= {from_seq} AND {plan.failed}"
    if not run(connection, f"{failed} LIMIT 1"):
        return
    events = with_fields(f"(SELECT * FROM {source} WHERE seq IN ({failed}))", plan.columns)
    reasons = []
    for column in plan.columns:
        for path in sorted(column.compiled.fields):
            name = path_name(path)
            shown = identifier(name)
            if path in column.compiled.number_fields:
                reasons.append(
                    f"WHEN {shown} IS NOT NULL AND {identifier('#' + name)} IS NULL"
                    f" THEN {text(name + ' is not an exact number: ')} || left({shown}, 80)"
                )
    for path in sorted(plan.value.compiled.fields if plan.value else ()):
        name = path_name(path)
        reasons.append(f"WHEN {identifier(name)} IS NULL THEN {text(name + ' is missing')}")
    reason = f"CASE {' '.join(reasons)} ELSE" if reasons else "CASE WHEN FALSE THEN '' ELSE"
    owe(
        connection,
        first_sequence,
        "failed_measurement",
        f"""SELECT seq, json_object('meter', {text(plan.meter.id)}, 'source', source, 'id', id,
                'subject', subject, 'sequence', seq,
                'time', strftime(time, '%Y-%m-%dT%H:%M:%S.%fZ'),
                'reason', {reason} 'the expression has no exact result' END) AS payload
            FROM {events}""",
    )


def same_json(one: str | None, other: str | None) -> bool:
    """Whether two JSON texts mean the same: key order, spacing and spelling of numbers aside.

    1, 1.0 and 1e0 are the same number; 1 and "1" and true are not the same.
    """
    if one is None or other is None:
        return one == other
    try:
        return _same(_exact(one), _exact(other))
    except (ValueError, RecursionError, ArithmeticError):
        return one == other


def _exact(data: str) -> object:
    return json.loads(data, parse_float=Decimal, parse_int=Decimal)


def _same(one: object, other: object) -> bool:
    match one, other:
        case (dict(), dict()):
            return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
        case (list(), list()):
            return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other
