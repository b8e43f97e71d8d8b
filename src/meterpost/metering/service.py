"""Use cases of metering: follow the journal, apply meters, relay what the store owes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from meterpost.core.crashpoints import reach
from meterpost.core.errors import Conflict
from meterpost.metering.model import DrainReport, JournalRow, Meter, OutboxItem, Position
from meterpost.metering.ports import EventStore, Journal

#: A batch is read by events and bounded by bytes, so that a few huge bodies fit in memory too.
#: 245,000 fill two of DuckDB's row groups of 122,880: two cores then work on one statement.
BATCH_EVENTS_MAX = 245_000
BATCH_BYTES_MAX = 80 * 1024 * 1024
RELAY_ITEMS_MAX = 1_000

#: Called after each batch with the report so far.
OnProgress = Callable[[DrainReport], None]


class OutboxSink(Protocol):
    """Where owed facts go: the operational database, by insert-on-conflict-do-nothing."""

    def accept(self, items: Sequence[OutboxItem]) -> None:
        """Store the items durably; one that is there already changes nothing."""
        ...


def drain_to(
    journal: Journal,
    store: EventStore,
    position: Position,
    *,
    on_progress: OnProgress | None = None,
    batch_events_max: int = BATCH_EVENTS_MAX,
) -> DrainReport:
    """Store journal rows until the position is included; the sum of all batches.

    A batch takes what has come together, so batches grow with the backlog up to their bounds.
    Raises: Conflict when the journal ends before the position, or is another journal.
    """
    before = store.position()
    if before is None:
        store.bind(position.incarnation)
        before = Position(position.incarnation, 0)
    if before.incarnation != position.incarnation:
        raise Conflict(
            f"The event store follows journal {before.incarnation}, not {position.incarnation}.",
            hint="Restore the matching backup, or run `meterpost recover`.",
        )
    report = DrainReport(before)
    events_max = batch_events_max
    while report.position.sequence < position.sequence:
        rows = _read(journal, report.position, events_max)
        report = _sum(report, store.drain(rows))
        if on_progress is not None:
            on_progress(report)
        size = sum(len(row.body) for row in rows)
        events = sum(row.events for row in rows)
        fitting = BATCH_BYTES_MAX * max(events, 1) // max(size, 1)
        events_max = max(1, min(batch_events_max, fitting))
    return report


def _read(journal: Journal, after: Position, events_max: int) -> Sequence[JournalRow]:
    rows = journal.read(after, events_max)
    if not rows:
        raise Conflict(
            f"The journal has nothing behind {after.sequence}, although more was announced.",
            hint="Check that the event store and the database belong together.",
        )
    return rows


def _sum(report: DrainReport, more: DrainReport) -> DrainReport:
    return replace(
        more,
        accepted=report.accepted + more.accepted,
        duplicate=report.duplicate + more.duplicate,
        conflicting=report.conflicting + more.conflicting,
        quarantined=report.quarantined + more.quarantined,
        no_meter=report.no_meter + more.no_meter,
        processed=report.processed + more.processed,
    )


class Metering:
    """Metering over one journal, one event store and one sink for what a drain owes."""

    def __init__(self, journal: Journal, store: EventStore, sink: OutboxSink) -> None:
        self._journal = journal
        self._store = store
        self._sink = sink

    def apply(self, meters: Sequence[Meter]) -> Sequence[str]:
        """Make these the meters; a sentence per change.

        Raises: InvalidInput.
        """
        changes = self._store.apply_meters(meters)
        self.relay()
        return changes

    def drain(self, on_progress: OnProgress | None = None) -> DrainReport:
        """Store everything the journal holds now and relay what that owes.

        Raises: Conflict when store and journal do not belong together.
        """
        report = drain_to(self._journal, self._store, self._journal.end(), on_progress=on_progress)
        self.relay()
        return report

    def relay(self) -> int:
        """Hand over every owed item, then delete it; how many there were.

        A crash between the two hands items over again, which the sink takes without effect.
        """
        count = 0
        while items := self._store.outbox(RELAY_ITEMS_MAX):
            self._sink.accept(items)
            reach("engine.relay.before_forget")
            self._store.forget_outbox(items)
            count += len(items)
        return count
