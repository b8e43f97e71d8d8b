# SQL is put together from our own words; values are parameters or quoted
"""Rollups: measurements added up per hour, series and dimensions, epoch by epoch.

An epoch is a stretch of event sequences that ends when a close asks for a cutoff, or when enough
events have come together; it is added up once and never again. Whatever lies behind the last
epoch that ends before a cutoff is read from the measurements, so any cutoff gives the same sums.
"""

from __future__ import annotations

from collections.abc import Iterable

from meterpost.storage.duckdb.measuring import (
    STORED_EVENTS,
    distinct_columns,
    measuring_sql,
    table_name,
)
from meterpost.storage.duckdb.plans import MeterPlan
from meterpost.storage.duckdb.schema import LANE, Connection, run, text

#: Events that come together before an epoch ends by itself.
EPOCH_EVENTS = 500_000

#: What a cell carries besides its place: exact parts that add up.
CELL = (
    "events",
    "total",
    "minimum",
    "maximum",
    "latest",
    "latest_key",
    "first_at",
    "last_at",
    "lane1",
    "lane2",
)

#: Cells into one cell. Addition of DECIMALs and of UBIGINT lanes is exact and raises on overflow.
MERGE = f"""
    CAST(sum(events) AS BIGINT) AS events, sum(total) AS total, min(minimum) AS minimum,
    max(maximum) AS maximum, arg_max(latest, latest_key) AS latest, max(latest_key) AS latest_key,
    min(first_at) AS first_at, max(last_at) AS last_at,
    CAST(sum(lane1) % {LANE} AS UBIGINT) AS lane1, CAST(sum(lane2) % {LANE} AS UBIGINT) AS lane2
"""


def roll_up(connection: Connection, plans: Iterable[MeterPlan]) -> None:
    """Add up every epoch that a measure does not have yet; in the caller's transaction."""
    epochs = [upto for (upto,) in run(connection, "SELECT upto FROM epochs ORDER BY upto")]
    for plan in plans:
        if plan.unique:
            continue  # distinct values of parts do not add up
        no, rolled_to = _measure(connection, plan)
        before = rolled_to
        for upto in epochs:
            if upto <= before:
                continue
            _roll_up_epoch(connection, plan, no, before, upto)
            before = upto
        if before != rolled_to:
            run(connection, "UPDATE measures SET rolled_to = ? WHERE no = ?", [before, no])


def _measure(connection: Connection, plan: MeterPlan) -> tuple[int, int]:
    found = run(connection, "SELECT no, rolled_to FROM measures WHERE key = ?", [plan.measure_key])
    if found:
        return found[0][0], found[0][1]
    [[no]] = run(connection, "SELECT coalesce(max(no), 0) + 1 FROM measures")
    run(connection, "INSERT INTO measures VALUES (?, ?, 0)", [no, plan.measure_key])
    return no, 0


def _roll_up_epoch(
    connection: Connection, plan: MeterPlan, measure: int, after: int, upto: int
) -> None:
    source = measurements_sql(connection, plan, stored=True)
    if source is None:
        return
    names = [column.sql_name for _, column in plan.dimensions]
    value = plan.value.sql_name if plan.value else "NULL::DECIMAL(27,9)"
    order = latest_key_sql("time", "seq")
    latest = (
        f"arg_max({value}, {order}) AS latest, max({order}) AS latest_key"
        if plan.latest
        else "NULL AS latest, NULL AS latest_key"
    )
    run(
        connection,
        f"""INSERT INTO rollups
            SELECT {measure}, {upto}, hour, series, {plan.dims_json}, {", ".join(CELL)} FROM (
                SELECT date_trunc('hour', time) AS hour, {", ".join(["series", *names])},
                       count(*) AS events, sum({value}) AS total, min({value}) AS minimum,
                       max({value}) AS maximum, {latest},
                       min(time) AS first_at, max(time) AS last_at,
                       CAST(sum(lane1) % {LANE} AS UBIGINT) AS lane1,
                       CAST(sum(lane2) % {LANE} AS UBIGINT) AS lane2
                FROM {source} WHERE seq > {after} AND seq <= {upto} AND {plan.measured}
                GROUP BY ALL)
            ORDER BY hour, series""",
    )


def latest_key_sql(time: str, seq: str) -> str:
    """SQL of one number that orders by event time, then by sequence."""
    return f"(CAST(epoch_us({time}) AS HUGEINT) * 9223372036854775808 + {seq})"


def measurements_sql(
    connection: Connection, plan: MeterPlan, *, stored: bool = False
) -> str | None:
    """SQL of a meter's measurement rows: the frame and the plan's columns, or None if no events.

    From the measurement table where it has all the columns; else computed from the events, which
    is how a meter that was never applied can be tried. ``stored``: never compute.
    """
    found = run(connection, "SELECT no FROM types WHERE type = ?", [plan.meter.event_type])
    if not found:
        return None
    no = found[0][0]
    wanted = {column.name for column in plan.columns}
    have = run(connection, "SELECT name FROM measured_columns WHERE type = ?", [no])
    measured = run(connection, "SELECT measured FROM types WHERE no = ?", [no])[0][0]
    if measured and wanted <= {name for (name,) in have}:
        return table_name(no)
    if stored:
        raise RuntimeError(f"meter {plan.meter.id} has no measurement columns to roll up")
    source = f"(SELECT * FROM {STORED_EVENTS} WHERE type_no = {no})"
    frame = ("seq", "time", "series", "lane1", "lane2")
    return f"({measuring_sql(source, distinct_columns([plan]), keep=frame)})"


def cells_sql(
    connection: Connection, plan: MeterPlan, upto: int, *, exact: bool, bounds: str = "TRUE"
) -> str | None:
    """SQL of cells (moment, series, dims, the columns of `CELL`, distinct_value) up to a cutoff.

    From rollups as far as they reach (``moment`` is the hour), and measurements behind them
    (``moment`` is the event's time); ``exact``: from measurements alone. ``bounds`` is a
    condition on ``moment``.
    Distinct values exist only in cells of measurements. None where nothing was ever measured.
    """
    source = measurements_sql(connection, plan)
    if source is None:
        return None
    measure, covered = 0, 0
    if not exact and not plan.unique:
        measure, covered = _covered(connection, plan, upto)
    value = plan.value.sql_name if plan.numeric and plan.value else "NULL::DECIMAL(27,9)"
    order = latest_key_sql("time", "seq") if plan.latest else "NULL::HUGEINT"
    distinct = plan.value.sql_name if plan.unique and plan.value else "NULL::VARCHAR"
    cells = f"""
        SELECT time AS moment, series, {plan.dims_json} AS dims, 1::BIGINT AS events,
               {value} AS total, {value} AS minimum, {value} AS maximum,
               {value if plan.latest else "NULL::DECIMAL(27,9)"} AS latest, {order} AS latest_key,
               time AS first_at, time AS last_at, lane1, lane2, {distinct} AS distinct_value
        FROM (SELECT *, time AS moment FROM {source})
        WHERE seq > {covered} AND seq <= {upto} AND {plan.measured} AND {bounds}"""
    if covered:
        cells += f"""
            UNION ALL
            SELECT moment, series, dims, {", ".join(CELL)}, NULL
            FROM (SELECT *, hour AS moment FROM rollups)
            WHERE measure = {measure} AND upto <= {covered} AND {bounds}"""
    return f"({cells})"


def _covered(connection: Connection, plan: MeterPlan, upto: int) -> tuple[int, int]:
    """The plan's measure and the last event sequence its rollups cover, at most ``upto``."""
    found = run(
        connection,
        f"""SELECT m.no, max(e.upto) FROM measures m JOIN epochs e ON e.upto <= m.rolled_to
            WHERE m.key = {text(plan.measure_key)} AND e.upto <= {upto} GROUP BY m.no""",
    )
    return (found[0][0], found[0][1]) if found else (0, 0)
