# SQL is put together from our own words; values are parameters or quoted
"""`meterpost.metering.ports.EventStore` over one DuckDB file."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from meterpost.core.crashpoints import reach
from meterpost.core.errors import Conflict, InvalidInput
from meterpost.core.ids import MeterId
from meterpost.metering.model import (
    ORDINAL_BITS,
    Aggregation,
    Cutoff,
    DrainReport,
    JournalRow,
    Meter,
    OutboxItem,
    Position,
    UsageQuery,
)
from meterpost.storage.duckdb import events, ledgers
from meterpost.storage.duckdb.drain import Drain, owe_failures
from meterpost.storage.duckdb.measuring import STORED_EVENTS, distinct_columns, rebuild
from meterpost.storage.duckdb.plans import MeterPlan, plan_of
from meterpost.storage.duckdb.rollups import EPOCH_EVENTS, roll_up
from meterpost.storage.duckdb.schema import (
    FILE_NAME,
    MEMORY_LIMIT_MB,
    Connection,
    last_seq,
    open_file,
    run,
)
from meterpost.storage.duckdb.types import check_types
from meterpost.storage.duckdb.usage import usage, usage_of_lines, usage_unassigned

#: The journal has one partition in this version; its name in a cutoff.
PARTITION = "0"
_DRAIN_TABLES = ("batch", "again", "clashes", "firsts", "refused")


class DuckDbEventStore:
    """Events, measurements and rollups in one file that no other process can open meanwhile.

    Methods may be called from several threads: writers wait for each other, each reader sees one
    snapshot. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        folder: Path,
        *,
        memory_limit_mb: int = MEMORY_LIMIT_MB,
        threads: int = 2,
        epoch_events: int = EPOCH_EVENTS,
    ) -> None:
        self._connection = open_file(
            folder / FILE_NAME, memory_limit_mb=memory_limit_mb, threads=threads
        )
        self._writing = threading.RLock()
        self._epoch_events = epoch_events
        self._plans: dict[str, list[MeterPlan]] = {}
        self._active: frozenset[str] = frozenset()
        try:
            self._load_meters()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> DuckDbEventStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        with self._writing:
            self._connection.close()

    # Journal and position

    def position(self) -> Position | None:
        """The journal position that the stored events include; None when empty and unbound."""
        with self._reading() as connection:
            return self._position(connection)

    def bind(self, incarnation: str) -> None:
        """Tie an empty store to a journal.

        Raises: Conflict when it holds events of another incarnation.
        """
        with self._transaction() as connection:
            [[bound, position]] = run(connection, "SELECT incarnation, position FROM state")
            if bound == incarnation:
                return
            if bound is not None and position:
                raise Conflict(
                    f"The event store follows journal {bound}, not {incarnation}.",
                    hint="Restore the matching backup, or run `meterpost recover`.",
                )
            run(connection, "UPDATE state SET incarnation = ?", [incarnation])

    def drain(self, rows: Sequence[JournalRow]) -> DrainReport:
        """Store journal rows in one transaction together with the new position.

        Raises: Conflict when the store is unbound, or the rows leave a gap.
        """
        with self._writing:
            before = self._position(self._connection)
            if before is None:
                raise Conflict("The event store is not tied to a journal.", hint="Bind it first.")
            new = [row for row in rows if row.sequence > before.sequence]
            for expected, row in enumerate(new, before.sequence + 1):
                if row.sequence != expected:
                    raise Conflict(
                        f"The event store has journal row {expected - 1} and was given"
                        f" {row.sequence}: the rows between are missing.",
                        hint="Restore the journal that holds them, or run `meterpost recover`.",
                    )
            if not new:
                return DrainReport(before)
            with self._transaction() as connection:
                drain = Drain(connection, before.incarnation, self._plans, self._active)
                report = drain.store(new)
                self._end_epoch_when_large(connection, report.position.sequence)
                reach("engine.drain.before_commit")
            for name in _DRAIN_TABLES:
                run(self._connection, f"DROP TABLE IF EXISTS temp.{name}")
        reach("engine.drain.after_commit")
        return report

    # Meters

    def apply_meters(self, meters: Sequence[Meter]) -> Sequence[str]:
        """Make these the meters that new events are measured by; a sentence per change.

        Raises: InvalidInput for expressions that are refused, with every problem.
        """
        problems = check_types(meters)
        if problems:
            raise InvalidInput("The meters cannot be applied:", problems)
        if len({meter.id for meter in meters}) != len(meters):
            raise InvalidInput("Two meters have the same id.")
        with self._writing:
            changes = self._changes(meters)
            if changes:
                with self._transaction() as connection:
                    self._write_meters(connection, meters)
                self._load_meters()
            return changes

    def _changes(self, meters: Sequence[Meter]) -> list[str]:
        old = dict(run(self._connection, "SELECT id, digest FROM meters WHERE active"))
        changes = []
        for meter in meters:
            if meter.id not in old:
                changes.append(f"Meter {meter.id} is new.")
            elif old[meter.id] != meter.digest:
                changes.append(f"Meter {meter.id} has changed.")
        gone = sorted(set(old) - {meter.id for meter in meters})
        return changes + [f"Meter {name} no longer measures new events." for name in gone]

    def _write_meters(self, connection: Connection, meters: Sequence[Meter]) -> None:
        before = set(run(connection, "SELECT id, digest FROM meters WHERE active"))
        run(connection, "UPDATE meters SET active = FALSE")
        for meter in meters:
            known = run(
                connection,
                "UPDATE meters SET active = TRUE WHERE id = ? AND digest = ? RETURNING id",
                [meter.id, meter.digest],
            )
            if not known:
                run(
                    connection,
                    "INSERT INTO meters VALUES (?, ?, ?, TRUE)",
                    [meter.id, meter.digest, _definition(meter)],
                )
        plans, _ = _known_plans(connection)
        _measure_missing(connection, plans)
        roll_up(connection, [plan for listed in plans.values() for plan in listed])
        [[position]] = run(connection, "SELECT position FROM state")
        for meter in meters:
            if (meter.id, meter.digest) in before:
                continue
            [[no]] = run(connection, "SELECT no FROM types WHERE type = ?", [meter.event_type])
            owe_failures(connection, no, plan_of(meter), position, STORED_EVENTS, 0)

    def _load_meters(self) -> None:
        plans, active = _known_plans(self._connection)
        if _incomplete_types(self._connection, plans):
            # Another version of this program wrote other columns: measure anew.
            with self._transaction() as connection:
                _measure_missing(connection, plans)
        self._plans, self._active = plans, active

    # Outbox

    def outbox(self, items_max: int) -> Sequence[OutboxItem]:
        """The oldest items not yet relayed."""
        with self._reading() as connection:
            rows = run(
                connection,
                f"""SELECT s.incarnation, o.first_sequence, o.no, o.kind, o.payload
                    FROM outbox o, state s ORDER BY o.no LIMIT {int(items_max)}""",
            )
        return [
            OutboxItem(incarnation, first, no, kind, json.loads(payload))
            for incarnation, first, no, kind, payload in rows
        ]

    def forget_outbox(self, items: Sequence[OutboxItem]) -> None:
        """Delete relayed items."""
        if not items:
            return
        numbers = pa.table({"no": pa.array([item.ordinal for item in items], pa.int64())})
        with self._transaction() as connection:
            connection.register("relayed", numbers)
            run(connection, "DELETE FROM outbox WHERE no IN (SELECT no FROM relayed)")
            connection.unregister("relayed")

    # Cutoffs and usage

    def cutoff(self) -> Cutoff:
        """Everything stored so far; seals the current rollup epoch.

        Raises: Conflict when the store is not tied to a journal.
        """
        with self._transaction() as connection:
            position = self._position(connection)
            if position is None:
                raise Conflict("The event store is not tied to a journal.", hint="Bind it first.")
            self._end_epoch(connection, position.sequence, sealed=True)
            return Cutoff({PARTITION: position})

    def usage(self, query: UsageQuery) -> pa.Table:
        """One row per window and group; without groups also for windows without events."""
        with self._reading() as connection:
            return usage(connection, query, self._upto(connection, query.cutoff))

    def usage_of_lines(
        self, meters: Sequence[Meter], assignments: pa.Table, cutoff: Cutoff, *, exact: bool = False
    ) -> tuple[pa.Table, pa.Table]:
        """Usage per assigned line, and the segments it is made of."""
        with self._reading() as connection:
            upto = self._upto(connection, cutoff)
            return usage_of_lines(connection, meters, assignments, upto, exact)

    def usage_unassigned(
        self,
        meters: Sequence[Meter],
        assignments: pa.Table,
        start_utc: datetime,
        end_utc: datetime,
        cutoff: Cutoff,
        *,
        exact: bool = False,
    ) -> pa.Table:
        """Usage in [start, end) that no assignment covers."""
        with self._reading() as connection:
            upto = self._upto(connection, cutoff)
            return usage_unassigned(
                connection, meters, assignments, start_utc, end_utc, upto, exact
            )

    # Events and ledgers

    def events_of(
        self,
        meter: Meter,
        source: str,
        subject: str,
        start_utc: datetime,
        end_utc: datetime,
        cutoff: Cutoff,
        *,
        after_sequence: int = 0,
        rows_max: int = 1000,
    ) -> pa.Table:
        """The measured events behind a segment, in sequence order."""
        with self._reading() as connection:
            upto = self._upto(connection, cutoff)
            period = (start_utc, end_utc)
            return events.events_of(
                connection, meter, source, subject, period, upto, after_sequence, rows_max
            )

    def find_events(
        self,
        *,
        id: str | None = None,
        source: str | None = None,
        subject: str | None = None,
        rows_max: int = 100,
    ) -> pa.Table:
        """Stored events by id, source or subject with what became of each."""
        wanted = {"id": id, "source": source, "subject": subject}
        with self._reading() as connection:
            return events.find_events(connection, self._active_plans(connection), wanted, rows_max)

    def ledger_counts(self, cutoff: Cutoff | None = None) -> Sequence[Mapping[str, Any]]:
        """Cells of the event ledger per source and recording hour."""
        with self._reading() as connection:
            return ledgers.ledger_counts(connection, self._upto(connection, cutoff))

    def measurement_counts(
        self, meters: Sequence[Meter], start_utc: datetime, end_utc: datetime, cutoff: Cutoff
    ) -> Sequence[Mapping[str, Any]]:
        """Cells of the measurement ledger per meter for event times in [start, end)."""
        with self._reading() as connection:
            upto = self._upto(connection, cutoff)
            return ledgers.measurement_counts(connection, meters, start_utc, end_utc, upto)

    def iterate_events(self, cutoff: Cutoff) -> Iterator[pa.RecordBatch]:
        """Every stored event up to the cutoff, in sequence order."""
        connection = self._connection.cursor()
        run(connection, "SET TimeZone = 'UTC'")
        yield from events.iterate_events(connection, self._upto(connection, cutoff))

    # Inside

    def _active_plans(self, connection: Connection) -> dict[str, list[MeterPlan]]:
        current = set(run(connection, "SELECT id, digest FROM meters WHERE active"))
        return {
            type_name: [p for p in listed if (p.meter.id, p.meter.digest) in current]
            for type_name, listed in self._plans.items()
        }

    def _upto(self, connection: Connection, cutoff: Cutoff | None) -> int:
        """The last event sequence that counts."""
        position = self._position(connection)
        if position is None:
            return 0
        if cutoff is None:
            return last_seq(position.sequence)
        wanted = cutoff.positions.get(PARTITION)
        if wanted is None or wanted.incarnation != position.incarnation:
            raise Conflict(
                f"Cutoff {cutoff} belongs to another journal than {position.incarnation}.",
                hint="Restore the matching backup, or run `meterpost recover`.",
            )
        if wanted.sequence > position.sequence:
            raise Conflict(
                f"Cutoff {cutoff} lies beyond the stored events, which end at {position.sequence}.",
                hint="Drain the journal first.",
            )
        return last_seq(wanted.sequence)

    @staticmethod
    def _position(connection: Connection) -> Position | None:
        [[incarnation, sequence]] = run(connection, "SELECT incarnation, position FROM state")
        return None if incarnation is None else Position(incarnation, sequence)

    def _end_epoch_when_large(self, connection: Connection, sequence: int) -> None:
        [[waiting]] = run(
            connection,
            """SELECT coalesce(sum(events), 0) FROM requests
               WHERE sequence > (SELECT coalesce(max(upto), 0) >> ? FROM epochs)""",
            [ORDINAL_BITS],
        )
        if waiting >= self._epoch_events:
            self._end_epoch(connection, sequence, sealed=False)

    def _end_epoch(self, connection: Connection, sequence: int, *, sealed: bool) -> None:
        upto = last_seq(sequence)
        [[last]] = run(connection, "SELECT coalesce(max(upto), 0) FROM epochs")
        if upto > last:
            run(connection, "INSERT INTO epochs VALUES (?, ?)", [upto, sealed])
        elif sealed:
            run(connection, "UPDATE epochs SET sealed = TRUE WHERE upto = ?", [upto])
        roll_up(connection, [plan for listed in self._plans.values() for plan in listed])

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._writing:
            run(self._connection, "BEGIN")
            try:
                yield self._connection
                run(self._connection, "COMMIT")
            except BaseException:
                run(self._connection, "ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """A connection of its own inside one snapshot; its temporary tables vanish with it."""
        with self._connection.cursor() as connection:
            run(connection, "SET TimeZone = 'UTC'")
            run(connection, "BEGIN")
            try:
                yield connection
            finally:
                run(connection, "ROLLBACK")


def _known_plans(connection: Connection) -> tuple[dict[str, list[MeterPlan]], frozenset[str]]:
    """Plans of every meter ever applied, by event type, and the ids of the active ones."""
    plans: dict[str, list[MeterPlan]] = {}
    active = set()
    for definition, current in run(
        connection, "SELECT definition, active FROM meters ORDER BY ALL"
    ):
        plan = plan_of(_meter(definition))
        plans.setdefault(plan.meter.event_type, []).append(plan)
        if current:
            active.add(plan.meter.id)
    return plans, frozenset(active)


def _incomplete_types(
    connection: Connection, plans: Mapping[str, Sequence[MeterPlan]]
) -> list[str]:
    have: dict[str, set[tuple[str, str]]] = {}
    rows = run(
        connection,
        "SELECT t.type, c.name, c.formula FROM measured_columns c JOIN types t ON t.no = c.type",
    )
    for type_name, name, formula in rows:
        have.setdefault(type_name, set()).add((name, formula))
    measured = {name for (name,) in run(connection, "SELECT type FROM types WHERE measured")}
    return [
        type_name
        for type_name, listed in plans.items()
        if type_name not in measured
        or have.get(type_name, set()) != {(c.name, c.formula) for c in distinct_columns(listed)}
    ]


def _measure_missing(connection: Connection, plans: Mapping[str, Sequence[MeterPlan]]) -> None:
    for type_name in _incomplete_types(connection, plans):
        found = run(connection, "SELECT no FROM types WHERE type = ?", [type_name])
        if found:
            no = found[0][0]
        else:
            [[no]] = run(connection, "SELECT coalesce(max(no), 0) + 1 FROM types")
            run(connection, "INSERT INTO types VALUES (?, ?, FALSE)", [no, type_name])
        rebuild(connection, no, distinct_columns(plans[type_name]))


def _definition(meter: Meter) -> str:
    return json.dumps(
        {
            "id": meter.id,
            "event_type": meter.event_type,
            "aggregation": meter.aggregation.value,
            "unit": meter.unit,
            "value": meter.value,
            "filter": meter.filter,
            "dimensions": dict(meter.dimensions),
            "description": meter.description,
        },
        sort_keys=True,
    )


def _meter(definition: str) -> Meter:
    parts = json.loads(definition)
    parts["id"] = MeterId(parts["id"])
    parts["aggregation"] = Aggregation(parts["aggregation"])
    return Meter(**parts)
