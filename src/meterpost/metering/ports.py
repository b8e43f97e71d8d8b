"""What metering needs: a journal to read from and an event store that does the arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import pyarrow as pa

from meterpost.metering.model import (
    Cutoff,
    DrainReport,
    JournalRow,
    Meter,
    OutboxItem,
    Position,
    UsageQuery,
)


class Journal(Protocol):
    """Accepted events in the order they were recorded."""

    def end(self) -> Position:
        """The last position written."""
        ...

    def read(self, after: Position, events_max: int) -> Sequence[JournalRow]:
        """The next rows after a position, at least one where there is one, in order.

        Raises: Conflict when the position's incarnation is not the journal's or lies beyond
        its end (an older database under a newer event store).
        """
        ...


class EventStore(Protocol):
    """Events, measurements and rollups, with exactly one writer.

    Every quantity it returns is an exact component; times are UTC.
    """

    def position(self) -> Position | None:
        """The journal position that the stored events include; None when empty and unbound."""
        ...

    def bind(self, incarnation: str) -> None:
        """Tie an empty store to a journal.

        Raises: Conflict when it holds events of another incarnation.
        """
        ...

    def apply_meters(self, meters: Sequence[Meter]) -> Sequence[str]:
        """Make these the meters that new events are measured by; measure stored events for new
        expressions too. Returns a sentence per change. Earlier definitions stay readable, so a
        close made under them can be repeated.

        Raises: InvalidInput for expressions that `metering.expressions` refuses.
        """
        ...

    def drain(self, rows: Sequence[JournalRow]) -> DrainReport:
        """Store journal rows in one transaction together with the new position.

        Exact dedupe by (source, id); rows at or before the stored position are skipped.
        Raises: Conflict when the rows leave a gap or belong to another incarnation.
        """
        ...

    def outbox(self, items_max: int) -> Sequence[OutboxItem]:
        """The oldest items not yet relayed."""
        ...

    def forget_outbox(self, items: Sequence[OutboxItem]) -> None:
        """Delete relayed items."""
        ...

    def cutoff(self) -> Cutoff:
        """Everything stored so far; seals the current rollup epoch."""
        ...

    def usage(self, query: UsageQuery) -> pa.Table:
        """One row per window and group: window_start, window_end, the groups, then components.

        Shape: columns as `COMPONENT_COLUMNS`; quantity itself is `metering.quantity.quantity_of`.
        """
        ...

    def usage_of_lines(
        self, meters: Sequence[Meter], assignments: pa.Table, cutoff: Cutoff, *, exact: bool = False
    ) -> tuple[pa.Table, pa.Table]:
        """Usage per assigned line, and the segments it is made of.

        ``assignments``: line (string), meter, source, subject, start_utc, end_utc; a line may
        have many subjects and spans, spans of one (meter, source, subject) do not overlap.
        Returns (totals, segments): totals has line, meter and components over the union of the
        line's spans; segments has line, meter, source, subject, start_utc, end_utc, dimensions
        (JSON text, keys sorted), components and digest. Lines without events are absent.
        ``exact``: compute from measurements even where sealed rollups would do (`prove`).
        """
        ...

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
        """Usage in [start, end) that no assignment covers: meter, source, subject, components,
        digest, first_at, last_at.
        """
        ...

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
        """The measured events behind a segment, in sequence order: sequence, source, id, type,
        subject, time, recorded_at, value (component of this event), dimensions, data,
        correlation_id, traceparent.
        """
        ...

    def find_events(
        self,
        *,
        id: str | None = None,
        source: str | None = None,
        subject: str | None = None,
        rows_max: int = 100,
    ) -> pa.Table:
        """Stored events by id or subject with what became of each per meter (``fate``: JSON
        text, meter → measured | filtered | failed; or duplicate of, conflicting, quarantined).
        """
        ...

    def ledger_counts(self, cutoff: Cutoff | None = None) -> Sequence[Mapping[str, Any]]:
        """Cells of the event ledger per source and recording hour, each by its own query:
        source, interval_start, duplicate, conflicting, quarantined, correction, no_meter,
        processed.
        """
        ...

    def measurement_counts(
        self, meters: Sequence[Meter], start_utc: datetime, end_utc: datetime, cutoff: Cutoff
    ) -> Sequence[Mapping[str, Any]]:
        """Cells of the measurement ledger per meter for event times in [start, end): meter,
        selected (events of its type, from the event table), after_cutoff, failed, filtered,
        measured (from the measurement table).
        """
        ...

    def iterate_events(self, cutoff: Cutoff) -> Iterator[pa.RecordBatch]:
        """Every stored event up to the cutoff, in sequence order (export, replay, oracle)."""
        ...
