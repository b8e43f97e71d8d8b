"""Meters, cutoffs, and what is asked of and answered by an event store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from meterpost.core.canonical import digest
from meterpost.core.ids import MeterId
from meterpost.core.period import Period

#: An event's sequence is its journal row's sequence and its ordinal in that row's body.
ORDINAL_BITS = 17
EVENTS_PER_ROW_MAX = 1 << ORDINAL_BITS


class Aggregation(StrEnum):
    """How measurements become one quantity."""

    SUM = "sum"
    COUNT = "count"
    UNIQUE = "unique"
    MIN = "min"
    MAX = "max"
    LATEST = "latest"
    AVERAGE = "average"

    @property
    def additive(self) -> bool:
        """Whether the quantities of parts add up to the quantity of the whole."""
        return self in {Aggregation.SUM, Aggregation.COUNT}


@dataclass(frozen=True, slots=True)
class Meter:
    """One definition of usage: which events count, what each contributes, how they combine.

    ``value`` and ``filter`` are SQL scalar expressions over the event (docs/metering.md,
    "Expressions"); ``dimensions`` maps a name to an expression. COUNT has no value.
    """

    id: MeterId
    event_type: str
    aggregation: Aggregation
    unit: str
    value: str | None = None
    filter: str | None = None
    dimensions: Mapping[str, str] = field(default_factory=dict)
    description: str = ""

    @property
    def digest(self) -> str:
        """Changes exactly when the meter's results could."""
        return digest(
            {
                "event_type": self.event_type,
                "aggregation": self.aggregation,
                "unit": self.unit,
                "value": self.value,
                "filter": self.filter,
                "dimensions": self.dimensions,
            }
        )


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in one incarnation of the journal: everything up to ``sequence`` is before it."""

    incarnation: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Cutoff:
    """The frame of a calculation: which recorded events count. Opaque outside the event store.

    ``positions`` maps a journal partition to the last position that counts.
    """

    positions: Mapping[str, Position]

    def to_plain(self) -> dict[str, list[object]]:
        """JSON form, for the close's row."""
        return {
            name: [position.incarnation, position.sequence]
            for name, position in sorted(self.positions.items())
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, list[object]]) -> Cutoff:
        """The cutoff a close's row names."""
        return cls(
            {
                name: Position(str(incarnation), int(str(sequence)))
                for name, (incarnation, sequence) in plain.items()
            }
        )

    def __str__(self) -> str:
        return ", ".join(f"{p.incarnation}@{p.sequence}" for _, p in sorted(self.positions.items()))


@dataclass(frozen=True, slots=True)
class JournalRow:
    """One accepted request, as it lies in the journal.

    ``body`` holds ``events`` structured CloudEvents: a JSON array, one object, or NDJSON.
    """

    sequence: int
    recorded_at: datetime
    body: bytes
    events: int
    correlation_id: str
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class DrainReport:
    """What became of the events of one drain: the cells add up to ``accepted``."""

    position: Position
    accepted: int = 0
    duplicate: int = 0
    conflicting: int = 0
    quarantined: int = 0
    no_meter: int = 0
    processed: int = 0


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """What a drained batch owes the operational database, keyed so that relaying twice is safe.

    ``kind`` is one of ``conflicting_duplicate``, ``quarantined_event``, ``failed_measurement``;
    ``payload`` is plain JSON.
    """

    incarnation: str
    first_sequence: int
    ordinal: int
    kind: str
    payload: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Components:
    """Exact parts of an aggregate; division and rounding happen in `quantity_of`, once."""

    events: int
    total: Decimal | None
    minimum: Decimal | None
    maximum: Decimal | None
    distinct: int | None
    latest: Decimal | None


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Usage of one meter in one period, cut into windows.

    ``window`` is ``total``, ``hour`` or ``day`` (local days of ``zone``); ``by`` lists
    ``subject``, ``source`` and dimension names; ``where`` fixes any of them.
    """

    meter: Meter
    period: Period
    window: str = "total"
    zone: str = "UTC"
    by: tuple[str, ...] = ()
    where: Mapping[str, str] = field(default_factory=dict)
    cutoff: Cutoff | None = None
