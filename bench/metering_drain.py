"""How fast journal rows become usage: dedupe, measurements and rollups, beside plain SQL.

    python bench/metering_drain.py [--events 1000000] [--runs 3] [--late]

``--late`` adds 2 % of events up to 35 days late and 1 % duplicates. The floor reads the same
events as Arrow columns (decoded beforehand), drops duplicates by (source, id), stores them and
adds up the three meters, in one DuckDB transaction per batch and without measurements, digests,
outbox, exact number checks or quarantine.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import tempfile
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from meterpost.core.ids import MeterId
from meterpost.metering.model import Aggregation, JournalRow, Meter, Position
from meterpost.metering.service import drain_to
from meterpost.storage.duckdb import DuckDbEventStore
from meterpost.storage.duckdb.decode import decode

START = datetime(2026, 9, 1, tzinfo=UTC)
PER_ROW = 100
METERS = [
    Meter(MeterId("requests"), "llm.request", Aggregation.COUNT, "request"),
    Meter(
        MeterId("tokens"),
        "llm.request",
        Aggregation.SUM,
        "token",
        "data.input_tokens + data.output_tokens",
        dimensions={"model": "data.model"},
    ),
    Meter(
        MeterId("seconds"),
        "llm.request",
        Aggregation.SUM,
        "s",
        "data.seconds",
        "data.region = 'eu'",
    ),
]


class MemoryJournal:
    """Journal rows in a list."""

    def __init__(self, rows: Sequence[JournalRow]) -> None:
        self.rows = rows

    def end(self) -> Position:
        return Position("bench", len(self.rows))

    def read(self, after: Position, events_max: int) -> Sequence[JournalRow]:
        count = max(events_max // PER_ROW, 1)
        return self.rows[after.sequence : after.sequence + count]


def journal(events: int, late: bool, seed: int = 1) -> MemoryJournal:
    """Rows of 100 events in time order; ids are UUIDs, 2,000 subjects."""
    rng = random.Random(seed)
    step = timedelta(days=14) / events
    sent: list[dict[str, object]] = []
    rows = []
    for sequence in range(1, events // PER_ROW + 1):
        body = []
        for n in range(PER_ROW):
            moment = START + step * (sequence * PER_ROW + n)
            if late and sent and rng.random() < 0.01:
                body.append(sent[rng.randrange(len(sent))])
                continue
            if late and rng.random() < 0.02:
                moment -= timedelta(days=35 * rng.random())
            event: dict[str, object] = {
                "specversion": "1.0",
                "id": str(uuid.UUID(int=rng.getrandbits(128))),
                "source": "/gateway/eu-1",
                "type": "llm.request",
                "subject": f"customer-{rng.randrange(2000)}",
                "time": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                "data": {
                    "model": rng.choice(["small", "medium", "large"]),
                    "region": rng.choice(["eu", "us"]),
                    "input_tokens": rng.randrange(8000),
                    "output_tokens": rng.randrange(2000),
                    "seconds": rng.randrange(100_000) / 1000,
                },
            }
            body.append(event)
            if late and rng.random() < 0.05:
                sent.append(event)
        recorded = START + step * (sequence + 1) * PER_ROW
        payload = json.dumps(body, separators=(",", ":")).encode()
        rows.append(JournalRow(sequence, recorded, payload, PER_ROW, f"c{sequence:025d}", None))
    return MemoryJournal(rows)


def drained(source: MemoryJournal, events: int) -> tuple[float, float, str]:
    """Events per second and bytes per event of one run through the product."""
    with tempfile.TemporaryDirectory() as folder:
        with DuckDbEventStore(Path(folder)) as store:
            store.apply_meters(METERS)
            store.bind("bench")
            begun, cpu = time.perf_counter(), time.process_time()
            report = drain_to(source, store, source.end())
            store.cutoff()
            took = time.perf_counter() - begun
            worked = time.process_time() - cpu
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        cells = (
            f"processed {report.processed:,}, duplicate {report.duplicate:,},"
            f" {worked / events * 1e6:.1f} µs of processor time an event"
        )
        return events / took, size / report.processed, cells


def floor(source: MemoryJournal, events: int) -> float:
    """Events per second of plain DuckDB SQL over decoded columns."""
    batches = [
        decode(source.rows[start : start + 1000]).arrived
        for start in range(0, len(source.rows), 1000)
    ]
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(f"{folder}/floor.duckdb") as db:
        db.execute("SET threads = 2; SET memory_limit = '700MiB'; SET TimeZone = 'UTC'")
        db.execute("CREATE TABLE e (seq BIGINT, source VARCHAR, id VARCHAR, type VARCHAR,"
                   " subject VARCHAR, time TIMESTAMPTZ, data VARCHAR)")  # fmt: skip
        begun = time.perf_counter()
        for batch in batches:
            db.register("batch", batch)
            db.execute("""INSERT INTO e SELECT DISTINCT ON (source, id) seq, source, id, type,
                subject, CAST(time_text AS TIMESTAMPTZ), data FROM batch
                ANTI JOIN e USING (source, id)""").fetchall()
        for value, group in (
            ("1", "1"),
            ("CAST(data->>'input_tokens' AS DECIMAL(27,9))"
             " + CAST(data->>'output_tokens' AS DECIMAL(27,9))", "data->>'model'"),
            ("CASE WHEN data->>'region' = 'eu'"
             " THEN CAST(data->>'seconds' AS DECIMAL(27,9)) END", "1"),
        ):  # fmt: skip
            db.execute(f"""CREATE OR REPLACE TABLE r AS SELECT time_bucket(INTERVAL 1 HOUR, time),
                subject, {group} AS g, count(*), sum({value}) FROM e GROUP BY ALL""").fetchall()
        return events / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--late", action="store_true")
    options = parser.parse_args()
    source = journal(options.events, options.late)
    results = [drained(source, options.events) for _ in range(options.runs)]
    floors = [floor(source, options.events) for _ in range(options.runs)]
    figures = {
        "events": options.events,
        "late": options.late,
        "events_per_s": round(statistics.median(rate for rate, _, _ in results)),
        "bytes_per_event": round(statistics.median(size for _, size, _ in results), 1),
        "floor_events_per_s": round(statistics.median(floors)),
        "cells": results[0][2],
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    figures["of_floor"] = round(figures["events_per_s"] / figures["floor_events_per_s"], 2)  # type: ignore[operator]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
