# SQL is put together from our own words; values are parameters or quoted
"""Reading single events: those behind a quantity, one by its id, all of them in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import pyarrow as pa

from meterpost.metering.model import Meter
from meterpost.storage.duckdb.plans import MeterPlan, plan_of
from meterpost.storage.duckdb.rollups import measurements_sql
from meterpost.storage.duckdb.schema import Connection, run, table, text

_ATTRIBUTES = """
    e.seq AS sequence, s.source, e.id, t.type, s.subject, timezone('UTC', e.time) AS time,
    timezone('UTC', r.recorded_at) AS recorded_at
"""
_JOINED = """
    events e JOIN series s ON s.no = e.series JOIN types t ON t.no = e.type
    JOIN requests r ON r.sequence = e.seq >> 17
"""
_REST = """
    e.data, e.extensions, r.correlation_id, coalesce(e.traceparent, r.traceparent) AS traceparent
"""


def events_of(
    connection: Connection,
    meter: Meter,
    source: str,
    subject: str,
    period: tuple[datetime, datetime],
    upto: int,
    after_sequence: int,
    rows_max: int,
) -> pa.Table:
    """The table of `EventStore.events_of`; UNIQUE has its text in ``unique_value``."""
    plan = plan_of(meter)
    measurements = measurements_sql(connection, plan)
    if measurements is None:
        measured = "SELECT NULL::BIGINT AS seq, NULL AS value, NULL AS text, '' AS dims LIMIT 0"
    else:
        number = "1" if plan.value is None else plan.value.sql_name if plan.numeric else "NULL"
        distinct = plan.value.sql_name if plan.unique and plan.value else "NULL"
        start, end = (moment.astimezone(UTC).replace(tzinfo=None) for moment in period)
        measured = f"""
            SELECT seq, {number} AS value, {distinct} AS text, {plan.dims_json} AS dims
            FROM {measurements} m SEMI JOIN (SELECT no AS series FROM series
                WHERE source = {text(source)} AND subject = {text(subject)}) USING (series)
            WHERE time >= TIMESTAMP '{start}' AND time < TIMESTAMP '{end}'
              AND seq > {int(after_sequence)} AND seq <= {upto} AND {plan.measured}
            ORDER BY seq LIMIT {int(rows_max)}"""
    return table(
        connection,
        f"""SELECT {_ATTRIBUTES}, CAST(m.value AS DECIMAL(38,9)) AS value,
                   CAST(m.text AS VARCHAR) AS unique_value, m.dims AS dimensions, {_REST}
            FROM ({measured}) m JOIN events e ON e.seq = m.seq
                 JOIN series s ON s.no = e.series JOIN types t ON t.no = e.type
                 JOIN requests r ON r.sequence = e.seq >> 17
            ORDER BY e.seq""",
    )


def find_events(
    connection: Connection,
    plans: Mapping[str, Sequence[MeterPlan]],
    wanted: Mapping[str, str | None],
    rows_max: int,
) -> pa.Table:
    """The table of `EventStore.find_events`; ``plans`` are the active meters by event type."""
    given = {name: value for name, value in wanted.items() if value is not None}
    where = " AND ".join(f"{name} = ${name}" for name in given) or "TRUE"
    sql = f"""
        SELECT * FROM (
            SELECT {_ATTRIBUTES}, {_REST}, {_fates(connection, plans)} AS fate FROM {_JOINED}
            UNION ALL
            SELECT d.seq, s.source, f.id, t.type, s.subject, timezone('UTC', f.time),
                   timezone('UTC', r.recorded_at), f.data, f.extensions, r.correlation_id,
                   r.traceparent, json_object('duplicate_of', d.first_seq)
            FROM duplicates d JOIN events f ON f.seq = d.first_seq JOIN types t ON t.no = f.type
                 JOIN series s ON s.no = d.series JOIN requests r ON r.sequence = d.seq >> 17
            UNION ALL
            SELECT c.seq, s.source, c.id, c.type, c.subject, timezone('UTC', c.time),
                   timezone('UTC', r.recorded_at), c.data, NULL, r.correlation_id, r.traceparent,
                   json_object('conflicting_with', c.first_seq)
            FROM conflicting c JOIN series s ON s.no = c.series
                 JOIN requests r ON r.sequence = c.seq >> 17
            UNION ALL
            SELECT q.seq, q.source, q.id, NULL, NULL, NULL, timezone('UTC', r.recorded_at), q.body,
                   NULL, r.correlation_id, r.traceparent, json_object('quarantined', q.reason)
            FROM quarantined q JOIN requests r ON r.sequence = q.seq >> 17)
        WHERE {where} ORDER BY sequence LIMIT {int(rows_max)}"""
    found = connection.sql(sql, params=given) if given else connection.sql(sql)
    result: pa.Table = found.to_arrow_table()
    return result


def _fates(connection: Connection, plans: Mapping[str, Sequence[MeterPlan]]) -> str:
    """SQL of {meter: measured | filtered | failed} for event ``e`` of type ``t``."""
    numbers = dict(run(connection, "SELECT type, no FROM types WHERE measured"))
    cases = []
    for type_name, listed in sorted(plans.items()):
        if type_name not in numbers:
            continue
        pairs = ", ".join(
            f"{text(plan.meter.id)}, CASE WHEN {plan.failed} THEN 'failed'"
            f" WHEN {plan.filtered} THEN 'filtered' WHEN {plan.measured} THEN 'measured' END"
            for plan in listed
        )
        source = f"measurements_{numbers[type_name]} m WHERE m.seq = e.seq"
        cases.append(
            f"WHEN e.type = {numbers[type_name]} THEN (SELECT json_object({pairs}) FROM {source})"
        )
    return f"CASE {' '.join(cases)} ELSE '{{}}'::JSON END" if cases else "'{}'::JSON"


def iterate_events(connection: Connection, upto: int) -> Iterator[pa.RecordBatch]:
    """Every stored event up to a cutoff, in sequence order, in batches; closes the connection."""
    with connection:
        reader = connection.sql(
            f"SELECT {_ATTRIBUTES}, e.time_given, {_REST} FROM {_JOINED}"
            f" WHERE e.seq <= {upto} ORDER BY e.seq"
        ).to_arrow_reader(50_000)
        yield from reader
