"""Fills the four ledgers: every total and every cell from a query of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

from meterpost.core.errors import NotFound, Transient
from meterpost.core.ids import UNASSIGNED, CloseId
from meterpost.metering.model import Meter, Position
from meterpost.metering.ports import EventStore
from meterpost.reconcile.balance import Balance, Bridge, Ledger, exact_sum, partition
from meterpost.reconcile.trace import TracedClose
from meterpost.reconcile.tracer import CloseMeters

Key = tuple[str, ...]
Cells = Mapping[Key, Decimal]

EVENT_CELLS = (
    "not_drained",
    "duplicate",
    "conflicting",
    "quarantined",
    "correction",
    "no_meter",
    "processed",
)
MEASUREMENT_CELLS = ("after_cutoff", "failed", "filtered", "measured")
QUANTITY_CELLS = (
    "unmatched",
    "no_contract_or_price",
    "period_open",
    "not_for_this_purpose",
    "unclaimed",
    "included",
    "charged_open",
    "charged_settled",
)
#: The event store may be drained while it is counted; it is counted again, so many times.
_ROUNDS_MAX = 20


@dataclass(frozen=True, slots=True)
class RecomputedRow:
    """Usage of one contract line, or of one unassigned subject, computed anew from measurements.

    ``line`` is '' for unassigned subjects, ``source`` and ``subject`` are '' for lines;
    ``period_start`` is that of the usage record.
    """

    meter: str
    line: str
    source: str
    subject: str
    period_start: datetime
    quantity: Decimal


Recompute = Callable[[CloseId], Iterable[RecomputedRow]]
"""A close → all its usage, from measurements at the close's cutoff, without its records."""


class LedgerStore(Protocol):
    """One snapshot of the operational database; each method is one query."""

    def intake(self) -> Mapping[str, Cells]:
        """``received``, ``invalid`` and ``accepted`` by (source, hour)."""
        ...

    def refused(self) -> Cells:
        """Events in quarantine by (source, hour), counted row by row."""
        ...

    def not_drained(self, position: Position | None) -> Cells:
        """Events of journal rows behind a position by (source, hour), read from their bodies."""
        ...

    def journal_events(self, position: Position | None = None) -> Decimal:
        """Events of journal rows (up to a position), with those of dropped partitions."""
        ...

    def entities(self, period: str) -> Sequence[str]:
        """Legal entities with a close or a transaction of that accounting period."""
        ...

    def span(self, period: str, entities: Sequence[str]) -> tuple[datetime, datetime] | None:
        """From the first start to the last end of the entities' accounting periods."""
        ...

    def closes(self, period: str, entities: Sequence[str]) -> Sequence[TracedClose]:
        """The latest close of each workflow and entity that has its records."""
        ...

    def quantities(self, cell: str, closes: Sequence[int]) -> Cells:
        """One cell by (purpose, entity, meter, line, source, subject, period start)."""
        ...

    def staged(self, period: str, entities: Sequence[str]) -> Mapping[str, Cells]:
        """``count`` and ``due`` by (entity, currency, state), from histories and lines."""
        ...

    def in_state(self, state: str, period: str, entities: Sequence[str]) -> Mapping[str, Cells]:
        """``count`` and ``due`` of one state by (entity, currency, state)."""
        ...

    def compared(
        self, comparison: str, period: str, entities: Sequence[str]
    ) -> Mapping[str, Cells]:
        """``count`` and ``due`` of posted documents with one comparison, from receipts, by
        (entity, currency).
        """
        ...

    def bridges(self, period: str, entities: Sequence[str]) -> Sequence[Bridge]:
        """What claims, lines, transactions and receipts say of each other."""
        ...


class LedgerStores(Protocol):
    """Opens snapshots."""

    def snapshot(self) -> AbstractContextManager[LedgerStore]:
        """A read-only view of one moment."""
        ...


STATES = (
    "proposed",
    "held",
    "in_review",
    "approved",
    "sending",
    "in_doubt",
    "deferred",
    "rejected",
    "nothing_due",
    "posted",
    "reconciled",
    "reversed",
    "superseded",
    "withdrawn",
)
COMPARISONS = ("not_yet", "equal", "changed", "missing")


class Ledgers:
    """Balances accounting periods.

    ``current`` are the meters of today's configuration, for periods without a close.
    """

    def __init__(
        self,
        stores: LedgerStores,
        events: EventStore,
        meters: CloseMeters,
        recompute: Recompute,
        current: Sequence[Meter] = (),
    ) -> None:
        self._stores = stores
        self._events = events
        self._meters = meters
        self._recompute = recompute
        self._current = current

    def balance(self, period: str, legal_entities: Sequence[str] = ()) -> Balance:
        """The ledgers of an accounting period, of these entities or of all that have any.

        Events are counted up to now, over all time. Raises: NotFound for a period that nobody
        has; Transient where the event store does not hold still long enough.
        """
        position, drained = self._drained()
        with self._stores.snapshot() as store:
            entities = self._entities(store, period, legal_entities)
            closes = store.closes(period, entities)
            notes = [] if closes else [f"No close of {period} has been computed yet."]
            intake = store.intake()
            events = self._event_ledger(store, intake, position, drained)
            bridges = [
                *self._journal_bridges(store, intake, position, events),
                *_door_bridges(intake, store.refused()),
            ]
            ledgers = (
                events,
                self._measurement_ledger(store, period, entities, closes),
                self._quantity_ledger(store, closes),
                *self._transaction_ledgers(store, period, entities),
            )
            bridges += store.bridges(period, entities)
        ids = tuple(close.id for close in closes)
        return Balance(period, tuple(entities), ids, ledgers, tuple(bridges), tuple(notes))

    @staticmethod
    def _entities(store: LedgerStore, period: str, asked: Sequence[str]) -> list[str]:
        known = store.entities(period)
        if not known:
            raise NotFound(f"Nothing was closed or staged in accounting period {period}.")
        return sorted({*(asked or known), UNASSIGNED})

    def _drained(self) -> tuple[Position | None, Sequence[Mapping[str, Any]]]:
        """The event ledger's cells and the position they belong to."""
        for _ in range(_ROUNDS_MAX):
            before = self._events.position()
            counts = self._events.ledger_counts()
            if self._events.position() == before:
                return before, counts
        raise Transient("Events arrive faster than they can be counted.", after_s=5.0)

    def _event_ledger(
        self,
        store: LedgerStore,
        intake: Mapping[str, Cells],
        position: Position | None,
        drained: Sequence[Mapping[str, Any]],
    ) -> Ledger:
        cells: dict[str, dict[Key, Decimal]] = {name: {} for name in ("invalid", *EVENT_CELLS)}
        cells["invalid"] = dict(intake["invalid"])
        cells["not_drained"] = dict(store.not_drained(position))
        for row in drained:
            key = (row["source"], hour_name(row["interval_start"]))
            for name in EVENT_CELLS[1:]:
                if row[name]:
                    cells[name][key] = Decimal(row[name])
        rows = partition(intake["received"], cells, ("source",), 1)
        return Ledger("events", "events", "received", rows)

    @staticmethod
    def _journal_bridges(
        store: LedgerStore,
        intake: Mapping[str, Cells],
        position: Position | None,
        events: Ledger,
    ) -> list[Bridge]:
        accepted = exact_sum(intake["accepted"].values())
        rows = store.journal_events()
        cells = events.cells()
        stored = exact_sum(cells.get(name, Decimal(0)) for name in EVENT_CELLS[1:])
        drained = Decimal(0) if position is None else store.journal_events(position)
        return [
            _bridge("journal", "accepted = events of journal rows and dropped", accepted, rows),
            _bridge("drain", "events of drained rows = events in the store", drained, stored),
        ]

    def _measurement_ledger(
        self,
        store: LedgerStore,
        period: str,
        entities: Sequence[str],
        closes: Sequence[TracedClose],
    ) -> Ledger:
        span = store.span(period, entities)
        totals: dict[Key, Decimal] = {}
        cells: dict[str, dict[Key, Decimal]] = {name: {} for name in MEASUREMENT_CELLS}
        if span is not None and self._events.position() is not None:
            latest = max(closes, key=lambda close: close.id, default=None)
            cutoff = latest.cutoff if latest else self._events.cutoff()
            meters = list(self._meters(latest.config_digest).values()) if latest else self._current
            for row in self._events.measurement_counts(meters, *span, cutoff):
                totals[(row["meter"],)] = Decimal(row["selected"])
                for name in MEASUREMENT_CELLS:
                    cells[name][(row["meter"],)] = Decimal(row[name])
        rows = partition(totals, cells, ("meter",), 1)
        return Ledger("measurements", "measurements", "selected", rows)

    def _quantity_ledger(self, store: LedgerStore, closes: Sequence[TracedClose]) -> Ledger:
        measured: dict[Key, Decimal] = {}
        for close in closes:
            for row in self._recompute(CloseId(close.id)):
                if row.quantity:
                    key = (close.purpose, close.legal_entity, row.meter, row.line, row.source)
                    measured[(*key, row.subject, moment_name(row.period_start))] = row.quantity
        ids = [close.id for close in closes]
        cells = {name: store.quantities(name, ids) for name in QUANTITY_CELLS}
        rows = partition(measured, cells, ("purpose", "legal_entity", "meter"), 3)
        return Ledger("quantity", "metered units", "measured", rows)

    @staticmethod
    def _transaction_ledgers(
        store: LedgerStore, period: str, entities: Sequence[str]
    ) -> list[Ledger]:
        """Count and money per state, then posted documents by comparison."""
        staged = store.staged(period, entities)
        states = {state: store.in_state(state, period, entities) for state in STATES}
        compared = {name: store.compared(name, period, entities) for name in COMPARISONS}
        posted: dict[str, dict[Key, Decimal]] = {"count": {}, "due": {}}
        for state in ("posted", "reconciled"):
            for kind, values in posted.items():
                for (entity, currency, _), value in states[state][kind].items():
                    key = (entity, currency)
                    values[key] = exact_sum([values.get(key, Decimal(0)), value])
        ledgers = []
        for kind, unit in (("count", "transactions"), ("due", "money due")):
            by_state = {state: cells[kind] for state, cells in states.items()}
            names = ("legal_entity", "currency")
            rows = partition(staged[kind], by_state, names, 2)
            ledgers.append(Ledger(f"transactions ({kind})", unit, "staged", rows))
            by_comparison = {name: cells[kind] for name, cells in compared.items()}
            rows = partition(posted[kind], by_comparison, names, 2)
            ledgers.append(Ledger(f"documents ({kind})", unit, "posted or reconciled", rows))
        return ledgers


def _door_bridges(intake: Mapping[str, Cells], refused: Cells) -> list[Bridge]:
    """What senders were told adds up, and what was refused lies in quarantine, hour by hour."""
    told = {
        key: exact_sum(intake[name].get(key, Decimal(0)) for name in ("invalid", "accepted"))
        for key in {*intake["invalid"], *intake["accepted"]}
    }
    return [
        _by_part("told", "received = invalid + accepted", intake["received"], told),
        _by_part("refused", "invalid = rows in quarantine", intake["invalid"], refused),
    ]


def _by_part(name: str, sentence: str, left: Cells, right: Cells) -> Bridge:
    zero = Decimal(0)
    return Bridge(
        name,
        sentence,
        exact_sum(left.values()),
        exact_sum(right.values()),
        exact_sum(abs(left.get(k, zero) - right.get(k, zero)) for k in {*left, *right}),
    )


def _bridge(name: str, sentence: str, left: Decimal, right: Decimal) -> Bridge:
    return Bridge(name, sentence, left, right, abs(left - right))


def hour_name(moment: datetime) -> str:
    """An hour of recording as a key."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%HZ}"


def moment_name(moment: datetime) -> str:
    """A moment as a key, to the microsecond."""
    return moment.astimezone(UTC).isoformat()
