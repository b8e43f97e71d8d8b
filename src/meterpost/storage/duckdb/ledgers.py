# SQL is put together from our own words; values are parameters or quoted
"""The cells of the event ledger and of the measurement ledger, each counted by its own query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from meterpost.metering.model import Meter
from meterpost.storage.duckdb.plans import plan_of
from meterpost.storage.duckdb.rollups import measurements_sql
from meterpost.storage.duckdb.schema import Connection, run

EVENT_CELLS = ("duplicate", "conflicting", "quarantined", "correction", "no_meter", "processed")


def ledger_counts(connection: Connection, upto: int) -> list[Mapping[str, Any]]:
    """The rows of `EventStore.ledger_counts`, ordered by source and hour."""
    measured = [no for (no,) in run(connection, "SELECT no FROM types WHERE measured ORDER BY no")]
    processed = " UNION ALL ".join(f"SELECT seq, series FROM measurements_{no}" for no in measured)
    sources = {
        "duplicate": "SELECT d.seq, s.source FROM duplicates d JOIN series s ON s.no = d.series",
        "conflicting": "SELECT c.seq, s.source FROM conflicting c JOIN series s ON s.no = c.series",
        "quarantined": "SELECT seq, source FROM quarantined",
        "no_meter": "SELECT e.seq, s.source FROM events e JOIN series s ON s.no = e.series"
        + (f" ANTI JOIN ({processed}) m ON m.seq = e.seq" if processed else ""),
    }
    if processed:
        sources["processed"] = (
            f"SELECT m.seq, s.source FROM ({processed}) m JOIN series s ON s.no = m.series"
        )
    cells: dict[tuple[str, datetime], dict[str, int]] = {}
    for name, query in sources.items():
        rows = run(
            connection,
            f"""SELECT source, date_trunc('hour', recorded_at) AS hour, count(*)
                FROM (SELECT q.source, r.recorded_at FROM ({query}) q
                      JOIN requests r ON r.sequence = q.seq >> 17 WHERE q.seq <= {upto})
                GROUP BY ALL""",
        )
        for source, hour, count in rows:
            # Corrections of events are not accepted by this version, so none is stored.
            key = (source, hour.replace(tzinfo=UTC))
            cells.setdefault(key, dict.fromkeys(EVENT_CELLS, 0))[name] = count
    return [
        {"source": source, "interval_start": hour, **counts}
        for (source, hour), counts in sorted(cells.items())
    ]


def measurement_counts(
    connection: Connection, meters: Sequence[Meter], start: datetime, end: datetime, upto: int
) -> list[Mapping[str, Any]]:
    """The rows of `EventStore.measurement_counts`, in the order of the meters."""
    low, high = (moment.astimezone(UTC).replace(tzinfo=None) for moment in (start, end))
    span = f"time >= TIMESTAMP '{low}' AND time < TIMESTAMP '{high}'"
    result: list[Mapping[str, Any]] = []
    for meter in meters:
        plan = plan_of(meter)
        [[selected]] = run(
            connection,
            f"SELECT count(*) FROM events e JOIN types t ON t.no = e.type"
            f" WHERE t.type = ? AND e.{span.replace('AND time', 'AND e.time')}",
            [meter.event_type],
        )
        source = measurements_sql(connection, plan)
        counts = {}
        for name, condition in {
            "after_cutoff": f"seq > {upto}",
            "failed": f"seq <= {upto} AND {plan.failed}",
            "filtered": f"seq <= {upto} AND {plan.filtered}",
            "measured": f"seq <= {upto} AND {plan.measured}",
        }.items():
            [[count]] = (
                run(connection, f"SELECT count(*) FROM {source} WHERE {span} AND {condition}")
                if source
                else [[0]]
            )
            counts[name] = count
        result.append({"meter": meter.id, "selected": selected, **counts})
    return result
