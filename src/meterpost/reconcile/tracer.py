"""Finds what a reference means and follows it to both ends."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import pyarrow as pa

from meterpost.core.errors import InvalidInput, NotFound
from meterpost.metering.model import Meter
from meterpost.metering.ports import EventStore
from meterpost.reconcile.trace import (
    EventPage,
    Trace,
    TracedEvent,
    TracedRecord,
    TracedSegment,
    TracedTransaction,
)

REF_LENGTH_MAX = 1_000
EVENTS_PAGE_MAX = 1_000
#: A subject or an event leads to at most this many usage records, the latest first.
RECORDS_MAX = 200
#: Segments of one trace that have their events listed; the others are asked for one by one.
LISTED_SEGMENTS_MAX = 50

_KEY = re.compile(r"U[0-9A-HJKMNP-TV-Z]{15}")
_TICK = timedelta(microseconds=1)

CloseMeters = Callable[[str], Mapping[str, Meter]]
"""Configuration digest → the meters of that configuration, by id."""


class TraceStore(Protocol):
    """One snapshot of the operational database."""

    def transactions_named(self, kind: str, name: str, limit: int) -> Sequence[int]:
        """Ids of transactions by ``key``, ``transaction``, ``document`` (number or id) or
        ``correlation``.
        """
        ...

    def transactions(self, ids: Collection[int]) -> Sequence[TracedTransaction]:
        """The transactions and every other revision of the same business periods, in order."""
        ...

    def transactions_of_records(self, records: Collection[int]) -> Sequence[int]:
        """Ids of transactions whose lines charge one of these usage records."""
        ...

    def records(self, ids: Collection[int]) -> Sequence[TracedRecord]:
        """The usage records with their segments; unknown ids are absent."""
        ...

    def records_of_subject(
        self, source: str | None, subject: str, at: datetime | None, limit: int
    ) -> Sequence[int]:
        """Ids of usage records with a segment of the subject (that holds the moment)."""
        ...

    def event_keys(self, correlation_id: str, limit: int) -> Sequence[tuple[str, str]]:
        """(source, id) of events that came in with that correlation id and are in the journal."""
        ...


class TraceStores(Protocol):
    """Opens snapshots."""

    def snapshot(self) -> AbstractContextManager[TraceStore]:
        """A read-only view of one moment."""
        ...


class SubjectVault(Protocol):
    """The way from personal values to the tokens that stand for them, and back."""

    def find(self, field: str, value: str) -> str | None:
        """The token of a value, or None where it never came in."""
        ...

    def reveal(self, tokens: Iterable[str]) -> Mapping[str, str]:
        """The values behind tokens; erased and unknown tokens are absent."""
        ...


class Tracer:
    """Answers ``trace REF`` from the event store and the operational database."""

    def __init__(
        self,
        stores: TraceStores,
        events: EventStore,
        meters: CloseMeters,
        vault: SubjectVault | None = None,
        personal_fields: Sequence[str] = ("subject",),
    ) -> None:
        self._stores = stores
        self._events = events
        self._meters = meters
        self._vault = vault
        self._personal_fields = personal_fields

    def trace(
        self, ref: str, *, source: str | None = None, events_max: int = 20, reveal: bool = False
    ) -> Trace:
        """Everything the reference leads to.

        ``ref``: ``event:ID`` (``source`` narrows it), ``subject:NAME`` (in clear or as a token),
        ``key:POSTING_KEY``, ``document:NUMBER_OR_ID``, ``transaction:ID``, ``correlation:ID``;
        without a prefix the first of these kinds that knows it, in the order key, document,
        transaction, event, correlation, subject. ``events_max`` events are listed per segment.
        ``reveal`` shows personal subjects in clear.

        Raises: InvalidInput, NotFound.
        """
        if not ref.strip() or len(ref) > REF_LENGTH_MAX:
            raise InvalidInput(f"A reference has 1 to {REF_LENGTH_MAX} characters.")
        if not 0 <= events_max <= EVENTS_PAGE_MAX:
            raise InvalidInput(f"Between 0 and {EVENTS_PAGE_MAX} events are listed at a time.")
        prefix, colon, name = ref.partition(":")
        kinds = self._kinds()
        with self._stores.snapshot() as store:
            if colon and prefix in kinds:
                found = kinds[prefix](store, name, source, events_max)
                also: list[str] = []
            else:
                found, also = None, []
                for kind, ask in kinds.items():
                    if kind == "key" and not _KEY.fullmatch(ref):
                        continue
                    if found is None:
                        found = ask(store, ref, source, events_max)
                    elif ask(store, ref, source, 0) is not None:
                        also.append(f"{kind}:{ref}")
            if found is None:
                raise NotFound(
                    f"Nothing is known as {ref!r}.",
                    hint="Name an event id, subject:NAME, a posting key, a document number or a "
                    "transaction id.",
                )
        trace = replace(found, ref=ref, also=tuple(also))
        return replace(trace, names=self._names(trace)) if reveal else trace

    def events(
        self, record: int, ordinal: int, *, after: int = 0, events_max: int = 100
    ) -> EventPage:
        """The next events behind a segment of a usage record.

        Raises: NotFound, InvalidInput.
        """
        if not 1 <= events_max <= EVENTS_PAGE_MAX:
            raise InvalidInput(f"Between 1 and {EVENTS_PAGE_MAX} events are listed at a time.")
        with self._stores.snapshot() as store:
            records = store.records([record])
        for found in records:
            for segment in found.segments:
                if segment.ordinal == ordinal:
                    return segment_events(
                        self._events, self._meter(found), found, segment, after, events_max
                    )
        raise NotFound(f"Usage record {record} has no segment {ordinal}.")

    def _kinds(self) -> dict[str, Callable[[TraceStore, str, str | None, int], Trace | None]]:
        def named(kind: str) -> Callable[[TraceStore, str, str | None, int], Trace | None]:
            def ask(store: TraceStore, name: str, _: str | None, events_max: int) -> Trace | None:
                ids = store.transactions_named(kind, name, RECORDS_MAX)
                if kind == "document" and len(ids) > 1:
                    ids = _numbered(store.transactions(ids), ids, name) or ids
                return self._down(store, kind, ids, events_max) if ids else None

            return ask

        return {
            "key": named("key"),
            "document": named("document"),
            "transaction": named("transaction"),
            "event": self._event,
            "correlation": self._correlation,
            "subject": self._subject,
        }

    def _down(self, store: TraceStore, kind: str, ids: Sequence[int], events_max: int) -> Trace:
        transactions = _focused(store.transactions(ids), ids)
        wanted = {
            line.usage_record
            for each in transactions
            if each.focus
            for line in each.lines
            if line.usage_record is not None
        }
        records = [
            self._with_events(record, events_max, number)
            for number, record in enumerate(store.records(wanted))
        ]
        return Trace("", kind, (), tuple(records), transactions)

    def _event(
        self, store: TraceStore, id: str, source: str | None, events_max: int
    ) -> Trace | None:
        table = self._events.find_events(id=id, source=source, rows_max=RECORDS_MAX)
        if table.num_rows == 0:
            return None
        return self._up(store, "event", traced_events(table))

    def _correlation(
        self, store: TraceStore, name: str, source: str | None, events_max: int
    ) -> Trace | None:
        ids = store.transactions_named("correlation", name, RECORDS_MAX)
        if ids:
            return self._down(store, "correlation", ids, events_max)
        events: list[TracedEvent] = []
        for of, event_id in store.event_keys(name, max(events_max, 1)):
            table = self._events.find_events(id=event_id, source=of, rows_max=RECORDS_MAX)
            events += [e for e in traced_events(table) if e.correlation_id == name]
        return self._up(store, "correlation", events) if events else None

    def _subject(
        self, store: TraceStore, name: str, source: str | None, events_max: int
    ) -> Trace | None:
        for subject in self._tokens(name):
            table = self._events.find_events(
                subject=subject, source=source, rows_max=max(events_max, 1) + 1
            )
            records = store.records_of_subject(source, subject, None, RECORDS_MAX)
            if table.num_rows == 0 and not records:
                continue
            ids = store.transactions_of_records(records)
            return Trace(
                "",
                "subject",
                tuple(traced_events(table))[:events_max],
                tuple(store.records(records)),
                _focused(store.transactions(ids), ids),
                more_events=table.num_rows > events_max,
            )
        return None

    def _tokens(self, name: str) -> list[str]:
        """The name itself, and the tokens it would be stored under were it personal."""
        found = [name]
        if self._vault is not None:
            for field in self._personal_fields:
                token = self._vault.find(field, name)
                if token is not None:
                    found.append(token)
        return found

    def _up(self, store: TraceStore, kind: str, events: Sequence[TracedEvent]) -> Trace:
        """From events to the records that count them, and to what those were charged in."""
        counting: dict[int, TracedRecord] = {}
        for event in events:
            if event.subject is None or event.time is None or not event.fates:
                continue
            ids = store.records_of_subject(event.source, event.subject, event.time, RECORDS_MAX)
            for record in store.records(ids):
                segments = self._segments_with(record, event)
                if segments:
                    known = counting.get(record.id)
                    before = known.segments if known else ()
                    segments += tuple(s for s in before if s not in segments)
                    counting[record.id] = replace(record, segments=segments)
        ids = store.transactions_of_records(counting)
        return Trace(
            "",
            kind,
            tuple(events),
            tuple(counting.values()),
            _focused(store.transactions(ids), ids),
        )

    def _segments_with(self, record: TracedRecord, event: TracedEvent) -> tuple[TracedSegment, ...]:
        """The record's segments that count the event, asked of the event store at its cutoff."""
        meter = self._meter(record)
        if meter is None or event.time is None or event.fates.get(meter.id) == "filtered":
            return ()
        found = []
        for segment in record.segments:
            mine = (segment.source, segment.subject) == (event.source, event.subject)
            if not mine or not segment.start <= event.time < segment.end:
                continue
            table = self._events.events_of(
                meter,
                segment.source,
                segment.subject,
                event.time,
                event.time + _TICK,
                record.close.cutoff,
                after_sequence=event.sequence - 1,
                rows_max=1,
            )
            rows = [row for row in table.to_pylist() if row["sequence"] == event.sequence]
            if rows and _in_dimensions(segment, rows[0]["dimensions"]):
                listed = replace(event, value=rows[0]["value"], fates={})
                found.append(replace(segment, listed=(listed,)))
        return tuple(found)

    def _with_events(self, record: TracedRecord, events_max: int, number: int) -> TracedRecord:
        if not events_max or number >= LISTED_SEGMENTS_MAX:
            return record
        meter = self._meter(record)
        segments = []
        for place, segment in enumerate(record.segments):
            if meter is not None and place < LISTED_SEGMENTS_MAX:
                page = segment_events(self._events, meter, record, segment, 0, events_max)
                segment = replace(segment, listed=page.events, next_after=page.next_after)
            segments.append(segment)
        return replace(record, segments=tuple(segments))

    def _meter(self, record: TracedRecord) -> Meter | None:
        if not record.meter:
            return None
        return self._meters(record.close.config_digest).get(record.meter)

    def _names(self, trace: Trace) -> Mapping[str, str]:
        if self._vault is None:
            return {}
        subjects = {event.subject for event in trace.events if event.subject}
        for record in trace.records:
            subjects |= {segment.subject for segment in record.segments}
            subjects |= {record.subject} - {""}
        return dict(self._vault.reveal(sorted(subjects)))


def segment_events(
    store: EventStore,
    meter: Meter | None,
    record: TracedRecord,
    segment: TracedSegment,
    after: int,
    events_max: int,
) -> EventPage:
    """The next counted events of a segment after a sequence.

    Segments that differ only by dimensions share a span; the others' events are passed over.
    """
    if meter is None:
        return EventPage((), None)
    found: list[TracedEvent] = []
    while True:
        table = store.events_of(
            meter,
            segment.source,
            segment.subject,
            segment.start,
            segment.end,
            record.close.cutoff,
            after_sequence=after,
            rows_max=EVENTS_PAGE_MAX,
        )
        for event, row in zip(traced_events(table), table.to_pylist(), strict=True):
            if not _in_dimensions(segment, row["dimensions"]):
                continue
            if len(found) == events_max:
                return EventPage(tuple(found), found[-1].sequence if found else after)
            found.append(replace(event, value=row["value"]))
        if table.num_rows < EVENTS_PAGE_MAX:
            return EventPage(tuple(found), None)
        after = table.column("sequence")[-1].as_py()


def traced_events(table: pa.Table) -> list[TracedEvent]:
    """The rows of a table of events."""
    return [_traced(row) for row in table.to_pylist()]


def _traced(row: Mapping[str, Any]) -> TracedEvent:
    fates = json.loads(row["fate"]) if row.get("fate") else {}
    return TracedEvent(
        sequence=row["sequence"],
        source=row["source"],
        id=row["id"],
        type=row["type"],
        subject=row["subject"],
        time=row["time"],
        recorded_at=row["recorded_at"],
        data=row["data"],
        correlation_id=row["correlation_id"],
        traceparent=row["traceparent"],
        fates={name: str(fate) for name, fate in fates.items() if fate is not None},
    )


def _numbered(
    transactions: Sequence[TracedTransaction], ids: Sequence[int], number: str
) -> list[int]:
    """Those whose document bears the number: some ERPs have bare digits for numbers and ids."""
    return [
        each.id
        for each in transactions
        if each.id in ids and each.receipt is not None and each.receipt.number == number
    ]


def _in_dimensions(segment: TracedSegment, dimensions: str) -> bool:
    """Whether the event has the segment's dimension values; a segment without any takes all."""
    return not segment.dimensions or json.loads(dimensions) == dict(segment.dimensions)


def _focused(
    transactions: Sequence[TracedTransaction], ids: Collection[int]
) -> tuple[TracedTransaction, ...]:
    wanted = set(ids)
    return tuple(each.focused() if each.id in wanted else each for each in transactions)
