"""Usage records before and after they have a row, and which of them need a new revision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import pyarrow as pa

from meterpost.core.ids import UsageRecordId
from meterpost.core.period import Period
from meterpost.metering.model import Components, Meter
from meterpost.metering.quantity import components_of, quantity_of
from meterpost.metering.usage_digest import EMPTY, combine

#: meter ('' for lines without one), line ('' for subjects nobody owns), source, subject, start
RecordKey = tuple[str, str, str, str, datetime]

NO_COMPONENTS = Components(0, None, None, None, None, None)


class Fate(StrEnum):
    """What a usage record can become."""

    BILLABLE = "billable"
    UNMATCHED = "unmatched"
    NO_CONTRACT = "no_contract"
    NO_PRICE = "no_price"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a record: one subject, one span, one set of dimension values."""

    source: str
    subject: str
    start: datetime
    end: datetime
    dimensions: str
    components: Components
    digest: str


@dataclass(frozen=True, slots=True)
class UsageDraft:
    """A usage record as a close computed it. ``period`` is the span it covers."""

    key: RecordKey
    period: Period
    fate: Fate
    quantity: Decimal
    unit: str
    components: Components
    digest: str
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True, slots=True)
class KnownRecord:
    """The stored revision of a record that a draft is compared with."""

    id: UsageRecordId
    revision: int
    close: int
    fate: Fate
    quantity: Decimal
    unit: str
    period_end: datetime
    digest: str

    def says(self, draft: UsageDraft) -> bool:
        """Whether the draft adds nothing to what is stored."""
        return (
            self.fate == draft.fate
            and self.quantity == draft.quantity
            and self.unit == draft.unit
            and self.period_end == draft.period.end
            and self.digest == draft.digest
        )


def changed(
    drafts: Iterable[UsageDraft], known: Mapping[RecordKey, KnownRecord]
) -> Iterator[tuple[UsageDraft, int]]:
    """The drafts that need a row, with their revision numbers.

    A known record that no draft speaks of any more gets a last revision that says zero.
    """
    seen: set[RecordKey] = set()
    for draft in drafts:
        seen.add(draft.key)
        before = known.get(draft.key)
        if before is None:
            yield draft, 1
        elif not before.says(draft):
            yield draft, before.revision + 1
    for key, record in known.items():
        if key not in seen and record.fate is not Fate.REMOVED:
            yield _removed(key, record), record.revision + 1


def _removed(key: RecordKey, record: KnownRecord) -> UsageDraft:
    return UsageDraft(
        key,
        Period(key[4], record.period_end),
        Fate.REMOVED,
        Decimal(0),
        record.unit,
        NO_COMPONENTS,
        EMPTY,
    )


@dataclass(frozen=True, slots=True)
class LineUsage:
    """What the event store says of one assigned line and meter."""

    components: Components
    quantity: Decimal
    digest: str
    segments: tuple[Segment, ...]


def usage_by_line(
    meters: Mapping[str, Meter], totals: pa.Table, segments: pa.Table
) -> dict[tuple[str, str], LineUsage]:
    """(line, meter) → usage, from the two tables `EventStore.usage_of_lines` gives."""
    parts: dict[tuple[str, str], list[Segment]] = {}
    for line, meter, segment in zip(
        segments.column("line").to_pylist(),
        segments.column("meter").to_pylist(),
        segments_of(segments),
        strict=True,
    ):
        parts.setdefault((line, meter), []).append(segment)
    usage: dict[tuple[str, str], LineUsage] = {}
    for line, meter, components in zip(
        totals.column("line").to_pylist(),
        totals.column("meter").to_pylist(),
        components_of(totals),
        strict=True,
    ):
        mine = tuple(parts.get((line, meter), ()))
        usage[line, meter] = LineUsage(
            components,
            quantity_of(meters[meter], components),
            combine(segment.digest for segment in mine),
            mine,
        )
    return usage


def segments_of(table: pa.Table) -> Sequence[Segment]:
    """The rows of a segments table."""
    names = ("source", "subject", "start_utc", "end_utc", "dimensions", "digest")
    columns = [table.column(name).to_pylist() for name in names]
    return [
        Segment(source, subject, start, end, dimensions, components, digest)
        for source, subject, start, end, dimensions, digest, components in zip(
            *columns, components_of(table), strict=True
        )
    ]
