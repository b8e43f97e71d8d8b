"""From the journal in PostgreSQL to usage in DuckDB: dedupe, measurements, rollups, relay.

    python -m bench.drain [--events 1000000] [--runs 3] [--late]

The same 3 meters and events as `bench.metering_drain`, which measures the event store alone;
here the rows come from the real journal. ``--late``: 2 % of the events up to 35 days late, 1 %
duplicates. The floor is plain DuckDB over the same events in a file of JSON lines: read them,
keep one of each (source, id), add up the three meters.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import duckdb

from bench.close import put_journal_rows
from bench.measure import Figure, clean_up_when_terminated, folder, peak_rss_mb, progress, report
from bench.metering_drain import METERS, MemoryJournal, journal
from meterpost.core.clock import SystemClock
from meterpost.metering.service import Metering
from meterpost.storage.duckdb import DuckDbEventStore
from meterpost.storage.postgres.database import Database
from meterpost.storage.postgres.journal import PostgresJournal
from meterpost.storage.postgres.relay import PostgresRelay
from meterpost.testing.postgres import embedded_server, fresh_database

#: Half of what a prototype reached on two cores.
AIM_EVENTS_PER_S = 92_000


def drain_s(database: Database, events: int) -> tuple[float, float]:
    """Seconds until an empty event store holds the whole journal and its rollups, and the
    processor seconds that this process took for it.
    """
    source = PostgresJournal(database)
    with folder() as place, DuckDbEventStore(place) as store:
        store.apply_meters(METERS)
        store.bind(source.end().incarnation)
        metering = Metering(source, store, PostgresRelay(database, SystemClock()))
        begun, cpu = time.perf_counter(), time.process_time()
        drained = metering.drain()
        store.cutoff()
        took = time.perf_counter() - begun, time.process_time() - cpu
    assert drained.accepted == events, drained
    return took


def floor_s(lines: Path) -> tuple[float, float]:
    """Seconds and processor seconds of the same in plain SQL."""
    with folder() as place, duckdb.connect(str(place / "floor.duckdb")) as db:
        db.execute("SET threads = 2; SET memory_limit = '700MiB'; SET TimeZone = 'UTC'")
        begun, cpu = time.perf_counter(), time.process_time()
        db.execute(
            """CREATE TABLE e AS SELECT source, id, any_value(subject) AS subject,
                   any_value(time) AS time, any_value(data) AS data
               FROM read_json(?, format = 'newline_delimited', columns = {source: 'VARCHAR',
                   id: 'VARCHAR', type: 'VARCHAR', subject: 'VARCHAR', time: 'TIMESTAMPTZ',
                   data: 'JSON'})
               GROUP BY source, id""",
            [str(lines)],
        )
        for number, (value, group) in enumerate(
            (
                ("1", "1"),
                (
                    "CAST(data->>'input_tokens' AS DECIMAL(27,9))"
                    " + CAST(data->>'output_tokens' AS DECIMAL(27,9))",
                    "data->>'model'",
                ),
                (
                    "CASE WHEN data->>'region' = 'eu'"
                    " THEN CAST(data->>'seconds' AS DECIMAL(27,9)) END",
                    "1",
                ),
            )
        ):
            db.execute(
                f"""CREATE TABLE r{number} AS SELECT time_bucket(INTERVAL 1 HOUR, time) AS hour,
                    subject, {group} AS dimension, count(*) AS events, sum({value}) AS total
                    FROM e GROUP BY ALL"""
            )
        return time.perf_counter() - begun, time.process_time() - cpu


def put(database: Database, made: MemoryJournal) -> None:
    """The rows of the generated journal as requests in the real one."""
    put_journal_rows(
        database,
        [
            (row.sequence, row.recorded_at, row.events, row.correlation_id, "bench", row.body)
            for row in made.rows
        ],
    )


def figure(events: int, runs: int, late: bool) -> Figure:
    """One drain, several times over the same journal."""
    name = "drain, 2 % late, 1 % twice" if late else "drain"
    made = journal(events, late)
    with folder() as place, embedded_server(place) as admin, fresh_database(admin) as dsn:
        database = Database(dsn)
        database.migrate()
        put(database, made)
        lines = place / "events.ndjson"
        with lines.open("w") as file:
            for row in made.rows:
                file.writelines(
                    json.dumps(event, separators=(",", ":")) + "\n"
                    for event in json.loads(row.body)
                )
        del made
        taken, floors, cpu, floor_cpu = [], [], [], []
        for run in range(1, runs + 1):
            seconds, busy = drain_s(database, events)
            taken.append(events / seconds)
            cpu.append(busy / events * 1e6)
            seconds, busy = floor_s(lines)
            floors.append(events / seconds)
            floor_cpu.append(busy / events * 1e6)
            progress(f"{name}: run {run}, {taken[-1]:,.0f} events/s, floor {floors[-1]:,.0f}")
        database.dispose()
    notes = {
        "events": events,
        "meters": len(METERS),
        "cpu_us_per_event": statistics.median(cpu),
        "floor_cpu_us_per_event": statistics.median(floor_cpu),
        "peak_rss_mb": peak_rss_mb(),
    }
    return Figure(name, "events/s", taken, floors, aim=AIM_EVENTS_PER_S, notes=notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--late", action="store_true")
    options = parser.parse_args()
    clean_up_when_terminated()
    report([figure(options.events, options.runs, options.late)])


if __name__ == "__main__":
    main()
