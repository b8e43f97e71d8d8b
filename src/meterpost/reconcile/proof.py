"""Meter and price run again over what a trace lists, compared with what was stored and posted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Protocol

import pyarrow as pa

from meterpost.core.canonical import plain_decimal, to_plain
from meterpost.core.errors import InvalidInput, NotFound
from meterpost.core.ids import PriceId
from meterpost.core.money import EXACT
from meterpost.metering.model import Cutoff, Meter
from meterpost.metering.ports import EventStore
from meterpost.metering.quantity import components_of, quantity_of
from meterpost.metering.usage_digest import EMPTY, combine
from meterpost.rating.model import WHOLE, Price, Share, rate
from meterpost.reconcile.replay import Replay
from meterpost.reconcile.trace import (
    TracedClose,
    TracedEvent,
    TracedLine,
    TracedRecord,
    TracedTransaction,
)
from meterpost.reconcile.tracer import EVENTS_PAGE_MAX, CloseMeters, TraceStore, segment_events

_ZERO = Decimal(0)
_SPANS = pa.schema(
    [
        ("line", pa.string()),
        ("meter", pa.string()),
        ("source", pa.string()),
        ("subject", pa.string()),
        ("start_utc", pa.timestamp("us", tz="UTC")),
        ("end_utc", pa.timestamp("us", tz="UTC")),
    ]
)
OnProgress = Callable[[int, int], None]


class PriceBook(Protocol):
    """Prices as master data knew them."""

    def price(self, price_id: PriceId, at: datetime, rev: int) -> Price | None:
        """The price in force at a moment, as known at a revision; None where there was none."""
        ...


class ProofStore(TraceStore, Protocol):
    """What proofs read beside traces."""

    def records_of_close(self, close: int) -> Sequence[int]:
        """Ids of the latest revisions as of a close."""
        ...

    def transactions_of_close(self, close: int) -> Sequence[int]:
        """Ids of the transactions that charge the records as of a close."""
        ...

    def close(self, close: int) -> TracedClose | None:
        """The frame of a close."""
        ...


class ProofStores(Protocol):
    """Opens snapshots."""

    def snapshot(self) -> AbstractContextManager[ProofStore]:
        """A read-only view of one moment."""
        ...


@dataclass(frozen=True, slots=True)
class ProofDifference:
    """One value that came out otherwise.

    ``way``: ``measurements`` (the event store, without rollups), ``events`` (raw events, in
    memory), ``price`` (the price as known at the close) or ``sum``.
    """

    fact: str
    field: str
    stored: str
    recomputed: str
    way: str

    def __str__(self) -> str:
        return (
            f"{self.fact}: {self.field} is stored as {self.stored}, "
            f"recomputed from {self.way} as {self.recomputed}"
        )


@dataclass(frozen=True, slots=True)
class ProofReport:
    """What was run again and what came out otherwise; ``events`` were read one by one."""

    what: str
    records: int
    lines: int
    events: int
    differences: tuple[ProofDifference, ...]

    @property
    def proved(self) -> bool:
        """Whether everything came out as it is stored."""
        return not self.differences

    def to_plain(self) -> dict[str, object]:
        """JSON's own types."""
        plain = to_plain(self)
        assert isinstance(plain, dict)
        return {**plain, "proved": self.proved}


class Prover:
    """Runs closes, records and transactions again."""

    def __init__(
        self, stores: ProofStores, events: EventStore, meters: CloseMeters, prices: PriceBook
    ) -> None:
        self._stores = stores
        self._events = events
        self._meters = meters
        self._prices = prices

    def prove_transaction(
        self, transaction: int, on_progress: OnProgress | None = None
    ) -> ProofReport:
        """Every line of a transaction: its events, quantity, price and amount, and its sums.

        Raises: NotFound.
        """
        with self._stores.snapshot() as store:
            found = [t for t in store.transactions([transaction]) if t.id == transaction]
            if not found:
                raise NotFound(f"There is no transaction {transaction}.")
            wanted = {line.usage_record for line in found[0].lines} - {None}
            records = store.records([record for record in wanted if record is not None])
            return self._report(
                f"transaction {transaction}", store, records, found, True, on_progress
            )

    def prove_record(self, record: int, on_progress: OnProgress | None = None) -> ProofReport:
        """One usage record, and the line that charges it.

        Raises: NotFound.
        """
        with self._stores.snapshot() as store:
            records = store.records([record])
            if not records:
                raise NotFound(f"There is no usage record {record}.")
            claimed = records[0].claimed_by
            charging = [
                replace(t, lines=tuple(line for line in t.lines if line.usage_record == record))
                for t in store.transactions([] if claimed is None else [claimed])
                if t.id == claimed
            ]
            return self._report(
                f"usage record {record}", store, records, charging, True, on_progress, sums=False
            )

    def prove_close(
        self, close: int, *, replay: bool = False, on_progress: OnProgress | None = None
    ) -> ProofReport:
        """Every record as of a close at the close's own cutoff and configuration, in one query
        per meter, and every line that charges one. ``replay`` reads their events one by one too.

        Raises: NotFound.
        """
        with self._stores.snapshot() as store:
            frame = store.close(close)
            if frame is None:
                raise NotFound(f"There is no close {close}.")
            records = [
                replace(record, close=frame)
                for record in store.records(store.records_of_close(close))
            ]
            ids = set(store.transactions_of_close(close))
            charging = [t for t in store.transactions(ids) if t.id in ids]
            return self._report(f"close {close}", store, records, charging, replay, on_progress)

    def _report(
        self,
        what: str,
        store: ProofStore,
        records: Sequence[TracedRecord],
        transactions: Sequence[TracedTransaction],
        replay: bool,
        on_progress: OnProgress | None,
        *,
        sums: bool = True,
    ) -> ProofReport:
        differences: list[ProofDifference] = []
        quantities = self._measure(records, differences)
        events = 0
        if replay:
            for number, record in enumerate(records, 1):
                events += self._replay(record, differences)
                if on_progress is not None:
                    on_progress(number, len(records))
        by_id = {record.id: record for record in records}
        lines = 0
        revisions: dict[int, int] = {}
        for transaction in transactions:
            if transaction.close not in revisions:
                frame = store.close(transaction.close)
                assert frame is not None
                revisions[transaction.close] = frame.masterdata_rev
            for line in transaction.lines:
                if line.usage_record is not None and line.usage_record not in by_id:
                    continue
                lines += 1
                differences += self._price(
                    transaction, line, by_id, quantities, revisions[transaction.close]
                )
            if sums:
                differences += _sums(transaction)
        return ProofReport(what, len(records), lines, events, tuple(differences))

    def _measure(
        self, records: Sequence[TracedRecord], differences: list[ProofDifference]
    ) -> Mapping[int, Decimal]:
        """Quantities from measurements, by record; records of one frame are asked for together."""
        frames: dict[tuple[str, str], list[TracedRecord]] = {}
        for record in records:
            frame = (str(record.close.cutoff), record.close.config_digest)
            frames.setdefault(frame, []).append(record)
        quantities: dict[int, Decimal] = {}
        for group in frames.values():
            close = group[0].close
            meters = self._meters(close.config_digest)
            known = {r.id: r for r in group if r.meter in meters}
            for record in group:
                quantities[record.id] = _ZERO
                if record.meter and record.id not in known:
                    differences.append(
                        _different(record, "meter", record.meter, "not configured", "measurements")
                    )
            found = self._measured(list(known.values()), meters, close.cutoff)
            for record in group:
                quantity, events, digest = found.get(record.id, (_ZERO, 0, EMPTY))
                quantities[record.id] = quantity
                differences += _compare(record, quantity, events, digest, "measurements")
        return quantities

    def _measured(
        self, records: Sequence[TracedRecord], meters: Mapping[str, Meter], cutoff: Cutoff
    ) -> Mapping[int, tuple[Decimal, int, str]]:
        rows = sorted(
            {
                (str(record.id), record.meter, s.source, s.subject, s.start, s.end)
                for record in records
                for s in record.segments
            }
        )
        if not rows:
            return {}
        spans = pa.table(
            [
                pa.array(column, kind)
                for column, kind in zip(zip(*rows, strict=True), _SPANS.types, strict=True)
            ],
            schema=_SPANS,
        )
        used = [meters[meter] for meter in sorted({record.meter for record in records})]
        totals, segments = self._events.usage_of_lines(used, spans, cutoff, exact=True)
        digests: dict[int, list[str]] = {}
        for line, digest in zip(
            segments.column("line").to_pylist(), segments.column("digest").to_pylist(), strict=True
        ):
            digests.setdefault(int(line), []).append(digest)
        return {
            int(line): (
                quantity_of(meters[meter], components),
                components.events,
                combine(digests.get(int(line), ())),
            )
            for line, meter, components in zip(
                totals.column("line").to_pylist(),
                totals.column("meter").to_pylist(),
                components_of(totals),
                strict=True,
            )
        }

    def _replay(self, record: TracedRecord, differences: list[ProofDifference]) -> int:
        """How many events were read; what they say otherwise goes into ``differences``."""
        meter = self._meters(record.close.config_digest).get(record.meter)
        if meter is None:
            return 0
        replay = Replay(meter)
        for page in self._listed(record, meter):
            replay.add(page)
        if replay.left_out:
            differences.append(
                _different(record, "events", "counted", ", ".join(replay.left_out[:5]), "events")
            )
        differences += _compare(
            record, quantity_of(meter, replay.components), replay.events, replay.digest, "events"
        )
        return replay.events

    def _listed(self, record: TracedRecord, meter: Meter) -> Iterator[Sequence[TracedEvent]]:
        for segment in record.segments:
            after: int | None = 0
            while after is not None:
                page = segment_events(self._events, meter, record, segment, after, EVENTS_PAGE_MAX)
                if page.events:
                    yield page.events
                after = page.next_after

    def _price(
        self,
        transaction: TracedTransaction,
        line: TracedLine,
        records: Mapping[int, TracedRecord],
        quantities: Mapping[int, Decimal],
        rev: int,
    ) -> Iterator[ProofDifference]:
        fact = f"line {line.line} of transaction {transaction.id}"

        def differs(field: str, stored: object, recomputed: object) -> Iterator[ProofDifference]:
            if stored != recomputed:
                yield ProofDifference(fact, field, _shown(stored), _shown(recomputed), "price")

        if line.usage_record is None:
            # A line that no longer has the period: it states zero, so that all of it is credited.
            yield from differs("amount", line.amount, _ZERO)
            return
        record = records[line.usage_record]
        quantity = quantities[record.id]
        yield from differs("quantity", line.quantity, quantity)
        price = self._prices.price(PriceId(line.price), record.period_start, rev)
        if price is None:
            yield from differs("price", line.price, "not known then")
            return
        try:
            charge = rate(quantity, price, _share(line))
        except InvalidInput as exc:
            yield from differs("amount", line.amount, str(exc))
            return
        yield from differs("amount", line.amount, charge.amount.amount)
        yield from differs("included", line.included, charge.included)
        with localcontext(EXACT):
            yield from differs("charged", line.charged, quantity - charge.included)
        yield from differs("working", dict(line.working), charge.to_plain())


def _share(line: TracedLine) -> Share:
    """The part of the period that the line was in force, as its working states it."""
    numerator, slash, denominator = str(line.working.get("share", "")).partition("/")
    return Share(int(numerator), int(denominator)) if slash else WHOLE


def _compare(
    record: TracedRecord, quantity: Decimal, events: int, digest: str, way: str
) -> Iterator[ProofDifference]:
    for name, stored, recomputed in (
        ("quantity", record.quantity, quantity),
        ("events", record.events, events),
        ("digest", record.digest, digest),
    ):
        if stored != recomputed:
            yield _different(record, name, stored, recomputed, way)


def _different(
    record: TracedRecord, name: str, stored: object, recomputed: object, way: str
) -> ProofDifference:
    return ProofDifference(
        f"usage record {record.id}", name, _shown(stored), _shown(recomputed), way
    )


def _sums(transaction: TracedTransaction) -> Iterator[ProofDifference]:
    def total(values: Collection[Decimal]) -> Decimal:
        with localcontext(EXACT):
            return sum(values, _ZERO)

    fact = f"transaction {transaction.id}"
    amounts = total([line.amount for line in transaction.lines])
    dues = total([line.due for line in transaction.lines])
    for name, stored, added in (
        ("amount", transaction.amount, amounts),
        ("due", transaction.due, dues),
    ):
        if stored != added:
            yield ProofDifference(fact, name, _shown(stored), _shown(added), "sum")
    for line in transaction.lines:
        with localcontext(EXACT):
            due = line.amount - line.held
        if line.due != due:
            yield ProofDifference(
                f"line {line.line} of {fact}", "due", _shown(line.due), _shown(due), "sum"
            )


def _shown(value: object) -> str:
    return plain_decimal(value) if isinstance(value, Decimal) else str(value)
