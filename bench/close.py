"""A close, from rollups to staged transactions: every contract has one line per meter.

    python -m bench.close [--contracts 100000] [--events 5] [--profile FILE]

Master data, journal and event store are filled first and not counted. Then the period is closed
(master-data snapshot, billing lines, usage, rating, records, documents, staging), 1 % of the
subjects get one more event, and the period is closed again for late usage. The floor answers
the first question alone in one DuckDB statement: usage and amount per line, from the events as
typed columns.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import psycopg
import pyarrow as pa
from psycopg.types.json import Jsonb

from bench.measure import (
    Figure,
    Phases,
    clean_up_when_terminated,
    folder,
    peak_rss_mb,
    progress,
    report,
)
from meterpost.bootstrap import Application
from meterpost.config.settings import Settings
from meterpost.config.workspace import Places, Workspace
from meterpost.core.clock import ManualClock
from meterpost.core.ids import LegalEntityId, MeterId, TargetId
from meterpost.metering.model import Aggregation, Meter
from meterpost.posting.config import ConnectionConfig
from meterpost.staging.model import ApprovalPolicy
from meterpost.staging.service import Staging
from meterpost.storage.duckdb.store import DuckDbEventStore
from meterpost.storage.postgres.closes import PostgresCloseStore
from meterpost.storage.postgres.database import Database, copy_rows
from meterpost.storage.postgres.journal import PARTITION, prepare_journal
from meterpost.storage.postgres.staging import PostgresStagingStore
from meterpost.storage.tables.masterdata import REVISION
from meterpost.testing.fake_erp import FakeErp, FakeErpConnector
from meterpost.testing.postgres import embedded_server, fresh_database
from meterpost.workflows import calculation, close
from meterpost.workflows.close import Ask, CloseReport
from meterpost.workflows.model import Workflow

NOW = datetime(2026, 11, 5, 9, 0, tzinfo=UTC)
_FROM = datetime(2026, 1, 1, tzinfo=UTC)
_PERIOD = (datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
_SOURCE = "//gateway.example"
_PER_ROW = 100
_METERS = (
    Meter(MeterId("calls"), "api.call", Aggregation.COUNT, "call"),
    Meter(MeterId("tokens"), "api.call", Aggregation.SUM, "token", value="data.tokens"),
    Meter(MeterId("seconds"), "api.call", Aggregation.SUM, "s", value="data.seconds"),
)
_PRICES: dict[str, dict[str, object]] = {
    "calls": {"model": "per_unit", "unit_price": "0.002"},
    "tokens": {
        "model": "graduated",
        "tiers": [{"up_to": "1000", "unit_price": "0.01"}, {"unit_price": "0.005"}],
    },
    "seconds": {"model": "per_unit", "unit_price": "0.04", "included": "10"},
}


@contextmanager
def application(contracts: int) -> Iterator[Application]:
    """An application with the contracts and an ERP in memory, over a server of its own."""
    workflow = Workflow(
        name="usage-billing",
        purpose="bill",
        meters=tuple(meter.id for meter in _METERS),
        target=TargetId("erp"),
        approval=ApprovalPolicy(),
    )
    connection = ConnectionConfig(TargetId("erp"), "fake", "sandbox", "memory:")
    with folder() as root, embedded_server(root) as admin, fresh_database(admin) as dsn:
        workspace = Workspace(
            Places(root / "workspace"),
            Settings(installation="bench", environment="sandbox"),
            (),
            _METERS,
            (workflow,),
            (connection,),
            (),
        )
        clock = ManualClock(NOW)
        app = Application(workspace, dsn, clock=clock)
        try:
            app.database.migrate()
            app._connectors["erp"] = FakeErpConnector(FakeErp(clock))
            write_masterdata(app.database, contracts)
            yield app
        finally:
            app.close()


def write_masterdata(database: Database, contracts: int) -> None:
    """One revision with customers, contracts, lines, subscriptions and links, by COPY."""
    with database.begin() as connection:
        rev = connection.execute(
            REVISION.insert()
            .values(recorded_at=_FROM, actor="bench", source="bench", report={})
            .returning(REVISION.c.rev)
        ).scalar_one()

        def put(table: str, columns: str, rows: Iterator[tuple[object, ...]]) -> None:
            names = [*columns.split(), "valid_from", "rev_from"]
            copy_rows(connection, table, names, ((*row, _FROM, rev) for row in rows))

        numbers = range(contracts)
        put("legal_entity", "id name currency zone", iter([("acme", "Acme", "EUR", "UTC")]))
        put(
            "accounting_period",
            "legal_entity id starts_at ends_at status",
            iter([("acme", "2026-10", *_PERIOD, "open")]),
        )
        put(
            "item",
            "id name unit tax_category",
            ((m.id, m.id.title(), m.unit, "domestic") for m in _METERS),
        )
        put(
            "price",
            "id currency definition",
            (
                (f"P-{meter}", "EUR", Jsonb({"id": f"P-{meter}", "currency": "EUR", **price}))
                for meter, price in _PRICES.items()
            ),
        )
        put("customer", "id name", ((f"K-{n}", f"Customer {n}") for n in numbers))
        put(
            "contract",
            "id customer legal_entity currency billing_interval billing_anchor zone",
            (
                (f"C-{n}", f"K-{n}", "acme", "EUR", "month", date(2026, 1, 1), "UTC")
                for n in numbers
            ),
        )
        put(
            "contract_line",
            "id contract meter item price partial_period",
            (
                (f"L-{n}-{m.id}", f"C-{n}", m.id, m.id, f"P-{m.id}", "by_time")
                for n in numbers
                for m in _METERS
            ),
        )
        put(
            "subscription",
            "id customer contract",
            ((f"S-{n}", f"K-{n}", f"C-{n}") for n in numbers),
        )
        put("crosswalk", "system kind external_id canonical_id", _links(contracts))


def _links(contracts: int) -> Iterator[tuple[object, ...]]:
    for n in range(contracts):
        yield _SOURCE, "subject", f"subject-{n}", f"S-{n}"
        yield "erp", "customer", f"E-{n}", f"K-{n}"
    for meter in _METERS:
        yield "erp", "item", f"E-{meter.id}", meter.id
    yield "erp", "tax_category", "VAT20", "domestic"


def events(subjects: Iterator[int], first_id: int) -> Iterator[dict[str, object]]:
    """One event per subject number; figures follow from the event's number."""
    for n, subject in enumerate(subjects, first_id):
        yield {
            "specversion": "1.0",
            "id": f"e-{n}",
            "source": _SOURCE,
            "type": "api.call",
            "subject": f"subject-{subject}",
            "time": f"2026-10-{n * 7 % 31 + 1:02d}T{n * 5 % 24:02d}:{n * 11 % 60:02d}:00Z",
            "data": {"tokens": n * 7919 % 5000, "seconds": n * 104729 % 20000 / 1000},
        }


def write_journal(app: Application, made: Iterator[dict[str, object]]) -> None:
    """Requests of 100 events each, at the journal's end."""
    end = app.journal.end().sequence
    rows: list[tuple[object, ...]] = []
    batch: list[dict[str, object]] = []

    def flush() -> None:
        if batch:
            body = json.dumps(batch, separators=(",", ":")).encode()
            name = f"c{end + len(rows):025d}"
            rows.append((end + len(rows) + 1, NOW, len(batch), name, "bench", body))
            batch.clear()

    for event in made:
        batch.append(event)
        if len(batch) == _PER_ROW:
            flush()
    flush()
    put_journal_rows(app.database, rows)


def put_journal_rows(database: Database, rows: list[tuple[object, ...]]) -> None:
    """(sequence, moment, events, correlation id, key, body) as the journal has them."""
    columns = ("sequence", "recorded_at", "events", "correlation_id", "api_key", "body")
    with database.raw_connection() as raw:
        prepare_journal(raw)
        statement = psycopg.sql.SQL("COPY meterpost.journal ({}) FROM STDIN").format(
            psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, columns))
        )
        with raw.cursor().copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
        raw.execute(
            "UPDATE meterpost.journal_state SET last_sequence = last_sequence + %s"
            " WHERE partition = %s",
            (len(rows), PARTITION),
        )


def watched() -> Phases:
    """The phases of a close, timed from now on."""
    phases = Phases()
    phases.watch(Application, "masterdata_snapshot", "snapshot")
    phases.watch(calculation, "billing_lines", "billing lines")
    phases.watch(calculation, "assignments", "billing lines")
    phases.watch(DuckDbEventStore, "usage_of_lines", "usage")
    phases.watch(calculation, "usage_by_line", "usage as values")
    phases.watch(calculation.Calculation, "billed_lines", "rating")
    phases.watch(calculation.Calculation, "unassigned", "unassigned")
    phases.watch(PostgresCloseStore, "known_records", "known records")
    phases.watch(PostgresCloseStore, "add_records", "records: COPY")
    phases.watch(close.Closing, "_write", "records")
    phases.watch(close.Closing, "_names", "names")
    phases.watch(Staging, "stage", "staging: decide, render")
    for name in ("latest_revisions", "holdings", "step_many", "lock_business_periods"):
        phases.watch(PostgresStagingStore, name, "staging: read")
    phases.watch(PostgresStagingStore, "add", "staging: COPY")
    phases.watch(PostgresStagingStore, "move_claims", "staging: claims")
    return phases


def run_close(app: Application, ask: Ask) -> CloseReport:
    """One close of October."""
    return app.closing.run(
        app.configuration("usage-billing"),
        LegalEntityId("acme"),
        "2026-10",
        ask=ask,
        actor="bench",
        correlation_id=app.ids.correlation_id(),
        on_progress=lambda what, done, total: None,
    )


def floor_s(contracts: int, per_subject: int) -> float:
    """Seconds of usage and amounts per line in one statement over typed columns."""
    made = list(events(_subjects(contracts, per_subject), 0))
    rows = pa.table(
        {
            "subject": [event["subject"] for event in made],
            "time": [event["time"] for event in made],
            "tokens": [event["data"]["tokens"] for event in made],  # type: ignore[index]
            "seconds": [str(event["data"]["seconds"]) for event in made],  # type: ignore[index]
        }
    )
    names = [f"subject-{n}" for n in range(contracts)]
    links = pa.table({"subject": names, "contract": [f"C-{n}" for n in range(contracts)]})
    with folder() as place, duckdb.connect(str(place / "floor.duckdb")) as db:
        db.register("arrived", rows)
        db.register("linked", links)
        db.execute("SET threads = 2; SET TimeZone = 'UTC'")
        db.execute("""CREATE TABLE e AS SELECT subject, CAST(time AS TIMESTAMPTZ) AS time,
            tokens, CAST(seconds AS DECIMAL(18,9)) AS seconds FROM arrived""")
        db.execute("CREATE TABLE links AS FROM linked")
        begun = time.perf_counter()
        db.execute("""CREATE TABLE billed AS
            WITH used AS (
                SELECT contract, count(e.subject) AS calls, coalesce(sum(tokens), 0) AS tokens,
                       coalesce(sum(seconds), 0) AS seconds
                FROM links LEFT JOIN e ON e.subject = links.subject
                    AND time >= '2026-10-01' AND time < '2026-11-01'
                GROUP BY contract)
            SELECT contract, 'calls' AS line, calls AS quantity,
                   round(calls * 0.002, 2) AS amount FROM used
            UNION ALL SELECT contract, 'tokens', tokens,
                   round(least(tokens, 1000) * 0.01 + greatest(tokens - 1000, 0) * 0.005, 2)
                FROM used
            UNION ALL SELECT contract, 'seconds', seconds,
                   round(greatest(seconds - 10, 0) * 0.04, 2) FROM used""")
        return time.perf_counter() - begun


def _subjects(contracts: int, per_subject: int) -> Iterator[int]:
    return (n % contracts for n in range(contracts * per_subject))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contracts", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=5, help="per subject")
    parser.add_argument("--profile", type=Path, help="profile the first close into this file")
    options = parser.parse_args()
    clean_up_when_terminated()
    contracts, per_subject = options.contracts, options.events
    lines = contracts * len(_METERS)
    progress(f"close: {lines:,} contract lines, {contracts * per_subject:,} events")
    with application(contracts) as app:
        write_journal(app, events(_subjects(contracts, per_subject), 0))
        app.metering.drain()
        app.events.cutoff()
        app.masterdata_snapshot(1)  # what is read once is in the operating system's cache
        progress("close: master data and events are in place")
        phases = watched()
        profile = cProfile.Profile() if options.profile else None
        first_s, first_cpu_s, first = _timed(app, phases, Ask.LATEST, profile)
        if profile is not None:
            profile.dump_stats(options.profile)
        first_phases = phases.taken()
        assert first.lines == lines
        assert first.staging is not None
        assert sum((first.staging.staged or {}).values()) == contracts
        progress(f"close: first {first_s:.1f} s {first_phases}")
        late = max(contracts // 100, 1)
        write_journal(app, events(iter(range(late)), contracts * per_subject))
        late_s, late_cpu_s, second = _timed(app, phases, Ask.LATE)
        assert second.records == late * len(_METERS), second
        late_phases = phases.taken()
        progress(f"close: late {late_s:.1f} s {late_phases}")
    peak_mb = peak_rss_mb()
    floors = [lines / floor_s(contracts, per_subject) for _ in range(3)]
    shape = {"contract_lines": lines, "contracts": contracts, "events": contracts * per_subject}
    report(
        [
            Figure(
                "close, first",
                "lines/s",
                [lines / first_s],
                floors,
                notes={**shape, "seconds": first_s, "cpu_s": first_cpu_s,
                       "phases_s": first_phases, "peak_rss_mb": peak_mb},
            ),
            Figure(
                "close, 1 % late",
                "lines/s",
                [lines / late_s],
                floors,
                notes={**shape, "seconds": late_s, "cpu_s": late_cpu_s,
                       "phases_s": late_phases},
            ),
        ]
    )  # fmt: skip


def _timed(
    app: Application, phases: Phases, ask: Ask, profile: cProfile.Profile | None = None
) -> tuple[float, float, CloseReport]:
    """Seconds, processor seconds of this process, and the report."""
    begun, cpu = time.perf_counter(), time.process_time()
    if profile is not None:
        profile.enable()
    with phases.within("the rest"):
        done = run_close(app, ask)
    if profile is not None:
        profile.disable()
    return time.perf_counter() - begun, time.process_time() - cpu, done


if __name__ == "__main__":
    main()
