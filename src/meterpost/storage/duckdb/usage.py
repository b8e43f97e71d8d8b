# SQL is put together from our own words; values are parameters or quoted
"""Usage: cells added up by window, group, contract line or segment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pyarrow as pa

from meterpost.core.errors import InvalidInput
from meterpost.core.period import Period, local_midnight, zone_info
from meterpost.metering.model import Meter, UsageQuery
from meterpost.storage.duckdb.plans import MeterPlan, plan_of
from meterpost.storage.duckdb.rollups import MERGE, cells_sql
from meterpost.storage.duckdb.schema import Connection, run, table, text

WINDOWS_MAX = 20_000

_HOUR = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: The components as they leave the store, with their digest.
_COMPONENTS = """
    events, CAST(total AS DECIMAL(38,9)) AS total, CAST(minimum AS DECIMAL(38,9)) AS minimum,
    CAST(maximum AS DECIMAL(38,9)) AS maximum, distinct_values AS "distinct",
    CAST(latest AS DECIMAL(38,9)) AS latest
"""
_DIGEST = """
    lpad(lower(to_hex(lane1)), 16, '0') || lpad(lower(to_hex(lane2)), 16, '0')
    || lpad(lower(to_hex(events)), 16, '0') AS digest
"""
_NO_COMPONENTS = """
    0::BIGINT AS events, NULL::DECIMAL(38,9) AS total, NULL::DECIMAL(38,9) AS minimum,
    NULL::DECIMAL(38,9) AS maximum, NULL::BIGINT AS "distinct", NULL::DECIMAL(38,9) AS latest
"""


def usage(connection: Connection, query: UsageQuery, upto: int) -> pa.Table:
    """The table of `EventStore.usage`; ``upto`` is the last event sequence that counts.

    Raises: InvalidInput for unknown windows, zones and groups, or too many windows.
    """
    plan = plan_of(query.meter)
    windows = windows_of(query.period, query.window, query.zone)
    names = {name for name, _ in plan.dimensions} | {"subject", "source"}
    unknown = [name for name in (*query.by, *query.where) if name not in names]
    if unknown:
        raise InvalidInput(
            f"Meter {query.meter.id} has no dimension {unknown[0]!r}.",
            hint=f"It has {', '.join(sorted(names))}.",
        )
    start, end = _naive(query.period.start), _naive(query.period.end)
    step = _bucket(windows)
    bounds = f"moment >= TIMESTAMP '{start}' AND moment < TIMESTAMP '{end}'"
    cells = cells_sql(connection, plan, upto, exact=step != _HOUR, bounds=bounds)
    groups = [f"{_group(name)} AS {_quoted(name)}" for name in query.by]
    listed = ", ".join(_quoted(name) for name in query.by)
    comma = ", " if query.by else ""
    in_window = (
        f"b.bucket = time_bucket({_interval(step)}, c.moment)" if len(windows) > 1 else "TRUE"
    )
    # A registered table lives as long as the reader's connection, which is closed after.
    connection.register("buckets", _buckets(windows, step))
    if cells is None:
        used = f"SELECT NULL::INTEGER AS window_no{comma}{_empty(query.by)}, {_NO_COMPONENTS}"
        used = f"SELECT * FROM ({used}) WHERE FALSE"
    else:
        conditions = [f"{_group(name)} = {text(value)}" for name, value in query.where.items()]
        used = f"""
            SELECT window_no{comma}{listed}, {_COMPONENTS} FROM (
                SELECT b.window_no{comma}{", ".join(groups)}, {MERGE}, {_distinct(plan)}
                FROM {cells} c JOIN series s ON s.no = c.series
                JOIN buckets b ON {in_window}
                WHERE {" AND ".join(conditions) or "TRUE"}
                GROUP BY ALL)"""
    # Without groups every window has a row; with groups only those with events.
    join = "JOIN" if query.by else "LEFT JOIN"
    zero = "coalesce(u.events, 0) AS events" if not query.by else "u.events"
    return table(
        connection,
        f"""SELECT timezone('UTC', w.window_start) AS window_start,
                   timezone('UTC', w.window_end) AS window_end{comma}{listed},
                   {zero}, u.total, u.minimum, u.maximum, u."distinct", u.latest
            FROM (SELECT DISTINCT window_no, window_start, window_end FROM buckets) w
            {join} ({used}) u USING (window_no)
            ORDER BY ALL""",
    )


def usage_of_lines(
    connection: Connection, meters: Sequence[Meter], assignments: pa.Table, upto: int, exact: bool
) -> tuple[pa.Table, pa.Table]:
    """The tables of `EventStore.usage_of_lines`; leaves the temp table ``spans`` behind."""
    _register_spans(connection, assignments)
    totals, segments = [_empty_totals(connection)], [_empty_segments(connection)]
    for meter, plan, low, high in _used_meters(connection, meters):
        hourly = "s.hourly" if not (exact or plan.unique) else "FALSE"
        bounds = f"moment >= TIMESTAMP '{low}' AND moment < TIMESTAMP '{high}'"
        parts = []
        for condition, by_event in ((hourly, False), (f"NOT {hourly}", True)):
            if not by_event and hourly == "FALSE":
                continue
            cells = cells_sql(connection, plan, upto, exact=by_event, bounds=bounds)
            if cells is not None:
                parts.append(f"""
                    SELECT s.line, s.source, s.subject, s.starts, s.ends, c.*
                    FROM {cells} c JOIN spans s ON s.series = c.series
                        AND c.moment >= s.starts AND c.moment < s.ends
                    WHERE s.meter = {text(meter.id)} AND {condition}""")
        if not parts:
            continue
        joined = " UNION ALL ".join(parts)
        if plan.unique:
            run(connection, f"CREATE OR REPLACE TEMP TABLE pieces AS {joined}")
        else:
            run(
                connection,
                f"""CREATE OR REPLACE TEMP TABLE pieces AS
                    SELECT line, source, subject, starts, ends, dims, {MERGE},
                           NULL::VARCHAR AS distinct_value
                    FROM ({joined}) GROUP BY ALL""",
            )
        segments.append(
            table(
                connection,
                f"""SELECT line, {text(meter.id)} AS meter, source, subject,
                           timezone('UTC', starts) AS start_utc, timezone('UTC', ends) AS end_utc,
                           dims AS dimensions, {_COMPONENTS}, {_DIGEST}
                    FROM (SELECT line, source, subject, starts, ends, dims, {MERGE},
                                 {_distinct(plan)}
                          FROM pieces GROUP BY ALL) ORDER BY ALL""",
            )
        )
        totals.append(
            table(
                connection,
                f"""SELECT line, {text(meter.id)} AS meter, {_COMPONENTS}, {_DIGEST}
                    FROM (SELECT line, {MERGE}, {_distinct(plan)} FROM pieces GROUP BY line)
                    ORDER BY line""",
            )
        )
    run(connection, "DROP TABLE IF EXISTS pieces")
    return pa.concat_tables(totals), pa.concat_tables(segments)


def usage_unassigned(
    connection: Connection,
    meters: Sequence[Meter],
    assignments: pa.Table,
    start: datetime,
    end: datetime,
    upto: int,
    exact: bool,
) -> pa.Table:
    """The table of `EventStore.usage_unassigned`."""
    _register_spans(connection, assignments)
    results = [_empty_unassigned(connection)]
    low, high = _naive(start), _naive(end)
    whole = all(moment == _floor(moment, _HOUR) for moment in (start, end))
    for meter in meters:
        plan = plan_of(meter)
        name = text(meter.id)
        odd = run(connection, f"SELECT 1 FROM spans WHERE meter = {name} AND NOT hourly LIMIT 1")
        bounds = f"moment >= TIMESTAMP '{low}' AND moment < TIMESTAMP '{high}'"
        cells = cells_sql(
            connection, plan, upto, exact=exact or not whole or bool(odd), bounds=bounds
        )
        if cells is None:
            continue
        results.append(
            table(
                connection,
                f"""SELECT {name} AS meter, source, subject, {_COMPONENTS}, {_DIGEST},
                           timezone('UTC', first_at) AS first_at,
                           timezone('UTC', last_at) AS last_at
                    FROM (SELECT s.source, s.subject, {MERGE}, {_distinct(plan)}
                          FROM {cells} c JOIN series s ON s.no = c.series
                          WHERE NOT EXISTS (
                              SELECT 1 FROM spans a WHERE a.meter = {name}
                              AND a.series = c.series
                              AND c.moment >= a.starts AND c.moment < a.ends)
                          GROUP BY s.source, s.subject) ORDER BY ALL""",
            )
        )
    return pa.concat_tables(results)


def windows_of(period: Period, window: str, zone: str) -> list[tuple[datetime, datetime]]:
    """The windows of a period, clipped to it: local days have 23, 24 or 25 hours.

    Raises: InvalidInput.
    """
    try:
        zone_info(zone)
    except ValueError as exc:
        raise InvalidInput(str(exc)) from exc
    match window:
        case "total":
            return [(period.start, period.end)]
        case "day":
            cuts = _days(period, zone)
        case "hour":
            cuts = _hours(period, zone)
        case _:
            raise InvalidInput(f"{window!r} is no window.", hint="Use total, day or hour.")
    bounds = [period.start]
    for cut in cuts:
        if cut >= period.end:
            break
        if cut > bounds[-1]:
            bounds.append(cut)
        if len(bounds) > WINDOWS_MAX:
            raise InvalidInput(
                f"{period} has more than {WINDOWS_MAX} windows.", hint="Ask for days or less time."
            )
    return list(pairwise([*bounds, period.end]))


def _days(period: Period, zone: str) -> Iterator[datetime]:
    day = period.start.astimezone(zone_info(zone)).date()
    while True:
        yield local_midnight(day, zone)
        day += timedelta(days=1)


def _hours(period: Period, zone: str) -> Iterator[datetime]:
    # Local hours begin where the local clock shows minute 0: half past in Adelaide.
    local = period.start.astimezone(zone_info(zone))
    moment = period.start - timedelta(
        minutes=local.minute, seconds=local.second, microseconds=local.microsecond
    )
    while True:
        yield moment
        moment += _HOUR


def _bucket(windows: Sequence[tuple[datetime, datetime]]) -> timedelta:
    """The widest step that all bounds are multiples of: an hour allows rollups.

    The outer bounds are kept by a condition on the time and may lie anywhere.
    """
    inner = [start for start, _ in windows[1:]]
    outer = [windows[0][0], windows[-1][1]]
    if all(moment == _floor(moment, _HOUR) for moment in (*inner, *outer)):
        return _HOUR
    for step in (timedelta(minutes=30), timedelta(minutes=15), timedelta(minutes=1)):
        if all(moment == _floor(moment, step) for moment in inner):
            return step
    return timedelta(seconds=1)


def _buckets(windows: Sequence[tuple[datetime, datetime]], step: timedelta) -> pa.Table:
    starts, numbers, begins, ends = [], [], [], []
    for number, (start, end) in enumerate(windows if len(windows) > 1 else []):
        moment = _floor(start, step)
        while moment < end:
            starts.append(moment)
            numbers.append(number)
            begins.append(start)
            ends.append(end)
            moment += step
    if len(windows) == 1:
        [(start, end)] = windows
        starts, numbers, begins, ends = [_EPOCH], [0], [start], [end]
    naive = pa.timestamp("us")
    aware = pa.timestamp("us", "UTC")
    return pa.table(
        {
            "bucket": pa.array(starts, aware).cast(naive),
            "window_no": pa.array(numbers, pa.int32()),
            "window_start": pa.array(begins, aware).cast(naive),
            "window_end": pa.array(ends, aware).cast(naive),
        }
    )


def _register_spans(connection: Connection, assignments: pa.Table) -> None:
    naive = pa.timestamp("us")
    texts = ("line", "meter", "source", "subject")
    plain = pa.table(
        {
            **{name: assignments.column(name).cast(pa.string()) for name in texts},
            "starts": assignments.column("start_utc").cast(pa.timestamp("us", "UTC")).cast(naive),
            "ends": assignments.column("end_utc").cast(pa.timestamp("us", "UTC")).cast(naive),
        }
    )
    connection.register("assigned", plain)
    run(
        connection,
        """CREATE OR REPLACE TEMP TABLE spans AS
           SELECT a.*, s.no AS series,
                  starts = date_trunc('hour', starts) AND ends = date_trunc('hour', ends)
                      AS hourly
           FROM assigned a JOIN series s ON s.source = a.source AND s.subject = a.subject""",
    )


def _used_meters(
    connection: Connection, meters: Sequence[Meter]
) -> Iterator[tuple[Meter, MeterPlan, str, str]]:
    found = run(connection, "SELECT meter, min(starts), max(ends) FROM spans GROUP BY meter")
    spans = {meter: (low, high) for meter, low, high in found}
    for meter in meters:
        if meter.id in spans:
            low, high = spans[meter.id]
            yield meter, plan_of(meter), str(low), str(high)


def _distinct(plan: MeterPlan) -> str:
    if plan.unique:
        return "count(DISTINCT distinct_value) AS distinct_values"
    return "NULL::BIGINT AS distinct_values"


def _group(name: str) -> str:
    if name in {"subject", "source"}:
        return f"s.{name}"
    path = '$."' + name + '"'
    return f"json_extract_string(c.dims, {text(path)})"


def _empty(names: Sequence[str]) -> str:
    return ", ".join(f"NULL::VARCHAR AS {_quoted(name)}" for name in names)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _interval(step: timedelta) -> str:
    return f"INTERVAL '{int(step.total_seconds())} seconds'"


def _floor(moment: datetime, step: timedelta) -> datetime:
    return moment - (moment - _EPOCH) % step


def _naive(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ")


def _empty_totals(connection: Connection) -> pa.Table:
    return table(
        connection,
        f"""SELECT ''::VARCHAR AS line, ''::VARCHAR AS meter, {_NO_COMPONENTS}, '' AS digest
            LIMIT 0""",
    )


def _empty_segments(connection: Connection) -> pa.Table:
    return table(
        connection,
        f"""SELECT ''::VARCHAR AS line, ''::VARCHAR AS meter, ''::VARCHAR AS source,
                   ''::VARCHAR AS subject, NULL::TIMESTAMPTZ AS start_utc,
                   NULL::TIMESTAMPTZ AS end_utc, ''::VARCHAR AS dimensions,
                   {_NO_COMPONENTS}, '' AS digest LIMIT 0""",
    )


def _empty_unassigned(connection: Connection) -> pa.Table:
    return table(
        connection,
        f"""SELECT ''::VARCHAR AS meter, ''::VARCHAR AS source, ''::VARCHAR AS subject,
                   {_NO_COMPONENTS}, '' AS digest, NULL::TIMESTAMPTZ AS first_at,
                   NULL::TIMESTAMPTZ AS last_at LIMIT 0""",
    )
