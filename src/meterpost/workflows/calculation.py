"""What a close's frame says: billed lines and unassigned usage, computed and never stored here.

The same frame gives the same result, so a close can be resumed, repeated and proved by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cached_property, lru_cache

import pyarrow as pa

from meterpost.core.ids import UNASSIGNED, MeterId
from meterpost.core.period import Period, local_midnight, zone_info
from meterpost.masterdata.resolution import (
    NO_CONTRACT,
    UNMATCHED,
    BillingLine,
    assignments,
    billing_lines,
    classify_unassigned,
    coverage,
)
from meterpost.masterdata.snapshot import MasterdataSnapshot
from meterpost.metering.model import Meter
from meterpost.metering.ports import EventStore
from meterpost.metering.quantity import components_of, quantity_of
from meterpost.metering.usage_digest import EMPTY
from meterpost.rating.model import PartialPeriod
from meterpost.workflows.model import Close, Workflow
from meterpost.workflows.records import (
    NO_COMPONENTS,
    Fate,
    LineUsage,
    Segment,
    UsageDraft,
    usage_by_line,
)
from meterpost.workflows.usage_billing import BilledLine, average_prices, billed, line_reference

_NO_USAGE = LineUsage(NO_COMPONENTS, Decimal(0), EMPTY, ())
_MOMENT = pa.timestamp("us", tz="UTC")
_SPANS = pa.schema(
    [
        ("line", pa.string()),
        ("meter", pa.string()),
        ("source", pa.string()),
        ("subject", pa.string()),
        ("start_utc", _MOMENT),
        ("end_utc", _MOMENT),
    ]
)


class Calculation:
    """One frame's calculation. ``exact``: from measurements even where rollups would do."""

    def __init__(
        self,
        workflow: Workflow,
        meters: Mapping[str, Meter],
        snapshot: MasterdataSnapshot,
        events: EventStore,
        close: Close,
        on_progress: Callable[[str, int, int | None], None],
        *,
        exact: bool = False,
    ) -> None:
        self.workflow = workflow
        self.snapshot = snapshot
        self._meters: Mapping[str, Meter] = {meter: meters[meter] for meter in workflow.meters}
        self._events = events
        self._close = close
        self._on_progress = on_progress
        self._exact = exact

    @cached_property
    def _lines(self) -> Sequence[BillingLine]:
        close = self._close
        window = self.snapshot.accounting_period(close.legal_entity, close.accounting_period)
        meters = [MeterId(meter) for meter in self._meters]
        return billing_lines(self.snapshot, close.legal_entity, window.period, meters)

    @cached_property
    def _billed(self) -> Sequence[BilledLine]:
        self._on_progress("lines", 0, None)
        lines = self._lines
        usage = self._usage(assignments(self.snapshot, lines))
        days = self._days_used([line for line in lines if _needs_days(line)])
        self._on_progress("lines", len(lines), len(lines))
        price = lru_cache(maxsize=10_000)(self.snapshot.price)
        return [
            billed(
                line,
                self._draft(line, usage.get((line.key, line.meter or ""), _NO_USAGE)),
                None if line.price is None else price(line.price, line.in_force.start),
                days.get(line.key, 0),
            )
            for line in lines
        ]

    def billed_lines(self) -> Sequence[BilledLine]:
        """Every line in force with its usage and charge, zero included, by contract and period."""
        return self._billed

    def average_prices(self) -> Mapping[str, tuple[Decimal, str]]:
        """Meter → (what a unit costs on average here, currency)."""
        return average_prices(self._billed)

    def unassigned(self) -> list[UsageDraft]:
        """Usage in the accounting period that no contract line of anyone covers."""
        span = self._unassigned_span()
        meters = list(self._meters.values())
        covered = coverage(self.snapshot, span, [meter.id for meter in meters])
        usage = self._events.usage_unassigned(
            meters, covered, span.start, span.end, self._close.cutoff, exact=self._exact
        )
        usage = classify_unassigned(self.snapshot, usage, span)
        gaps = self._gap_usage(usage, covered, span)
        return list(self._unassigned_drafts(usage, gaps, span))

    def _unassigned_span(self) -> Period:
        close = self._close
        own = [
            period.period
            for period in self.snapshot.accounting_periods(UNASSIGNED)
            if period.id == close.accounting_period
        ]
        if own:
            return own[-1]
        try:
            return Period.month(close.accounting_period)
        except ValueError:
            spans = [
                period.period
                for entity in self.snapshot.legal_entities()
                for period in self.snapshot.accounting_periods(entity.id)
                if period.id == close.accounting_period
            ]
            return min(spans)

    def _usage(self, spans: pa.Table) -> dict[tuple[str, str], LineUsage]:
        totals, segments = self._events.usage_of_lines(
            list(self._meters.values()), spans, self._close.cutoff, exact=self._exact
        )
        return usage_by_line(self._meters, totals, segments)

    def _draft(self, line: BillingLine, usage: LineUsage) -> UsageDraft:
        meter = self._meters.get(line.meter or "")
        return UsageDraft(
            key=(line.meter or "", line_reference(line), "", "", line.in_force.start),
            period=line.in_force,
            fate=Fate.BILLABLE,
            quantity=usage.quantity,
            unit=meter.unit if meter else line.unit,
            components=usage.components,
            digest=usage.digest,
            segments=usage.segments,
        )

    def _days_used(self, lines: Sequence[BillingLine]) -> dict[str, int]:
        """Local days with usage per line, for lines whose partial period counts them."""
        if not lines:
            return {}
        spans = assignments(self.snapshot, lines)
        zones = {line.key: line.zone for line in lines}
        rows = [
            (f"{line}|{day}", meter, source, subject, first, last)
            for line, meter, source, subject, start, end in _rows(spans)
            for day, first, last in _local_days(start, end, zones[line])
        ]
        used = self._usage(_table(rows))
        days: dict[str, int] = {}
        for key in {key for (key, _), usage in used.items() if usage.components.events}:
            line = key.rsplit("|", 1)[0]
            days[line] = days.get(line, 0) + 1
        return days

    def _gap_usage(
        self, usage: pa.Table, covered: pa.Table, span: Period
    ) -> dict[tuple[str, str], LineUsage]:
        """Usage of subjects that someone owns for a part of the period, in the other parts."""
        wanted = set(zip(*(usage.column(n).to_pylist() for n in _WHO), strict=True))
        owned: dict[tuple[str, str, str], list[tuple[datetime, datetime]]] = {}
        for _, meter, source, subject, start, end in _rows(covered):
            if (meter, source, subject) in wanted:
                owned.setdefault((meter, source, subject), []).append((start, end))
        rows = [
            (_gap_key(source, subject), meter, source, subject, start, end)
            for (meter, source, subject), spans in owned.items()
            for start, end in _gaps(spans, span)
        ]
        return self._usage(_table(rows)) if rows else {}

    def _unassigned_drafts(
        self, usage: pa.Table, gaps: Mapping[tuple[str, str], LineUsage], span: Period
    ) -> Iterator[UsageDraft]:
        names = (*_WHO, "reason", "digest")
        columns = [usage.column(name).to_pylist() for name in names]
        for meter, source, subject, reason, digest, components in zip(
            *columns, components_of(usage), strict=True
        ):
            definition = self._meters[meter]
            parts = gaps.get((_gap_key(source, subject), meter))
            segments = (
                (Segment(source, subject, span.start, span.end, "{}", components, digest),)
                if parts is None
                else parts.segments
            )
            yield UsageDraft(
                key=(meter, "", source, subject, span.start),
                period=span,
                fate=_FATES.get(reason, Fate.NO_CONTRACT),
                quantity=quantity_of(definition, components),
                unit=definition.unit,
                components=components,
                digest=digest,
                segments=segments,
            )


_WHO = ("meter", "source", "subject")
_FATES = {UNMATCHED: Fate.UNMATCHED, NO_CONTRACT: Fate.NO_CONTRACT}


def _needs_days(line: BillingLine) -> bool:
    return line.meter is not None and line.partial_period is PartialPeriod.BY_USAGE_DAY


def _gap_key(source: str, subject: str) -> str:
    return f"{len(source)}:{source}{subject}"


def _gaps(
    spans: Sequence[tuple[datetime, datetime]], whole: Period
) -> Iterator[tuple[datetime, datetime]]:
    at = whole.start
    for start, end in sorted(spans):
        if start > at:
            yield at, start
        at = max(at, end)
    if at < whole.end:
        yield at, whole.end


def _local_days(
    start: datetime, end: datetime, zone: str
) -> Iterator[tuple[date, datetime, datetime]]:
    tz = zone_info(zone)
    while start < end:
        day = start.astimezone(tz).date()
        after = min(local_midnight(day + timedelta(days=1), zone), end)
        yield day, start, after
        start = after


def _rows(spans: pa.Table) -> Iterator[tuple[str, str, str, str, datetime, datetime]]:
    return zip(*(spans.column(name).to_pylist() for name in _SPANS.names), strict=True)


def _table(rows: Sequence[tuple[object, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(_SPANS.names)
    return pa.table(
        [pa.array(column, kind) for column, kind in zip(columns, _SPANS.types, strict=True)],
        schema=_SPANS,
    )
