"""Usage: the quantity of a meter for any period, window, dimension and cutoff."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from meterpost.access.model import Scope
from meterpost.core.errors import InvalidInput, NotFound
from meterpost.core.ids import CloseId
from meterpost.core.period import Period
from meterpost.metering.model import Meter, UsageQuery
from meterpost.metering.quantity import components_of, quantity_of
from meterpost.operations.arguments import (
    DayOrMoment,
    ExternalId,
    Id,
    Month,
    Name,
    Zone,
    moment_of,
)
from meterpost.operations.registry import Context, operation

#: More rows than this in one answer are refused: ask by fewer groups or a shorter period.
ROWS_MAX = 100_000

_Group = Annotated[str, Field(min_length=1, max_length=100)]


@dataclass(frozen=True)
class QueryUsage:
    """``period`` is a month, or ``start`` and ``end`` are given; all local to ``zone``.

    ``by`` groups by subject, source and dimension names; ``where`` fixes any of them. ``close``
    counts the events that this close counted, not those that came later.
    """

    meter: Name
    period: Month | None = None
    start: DayOrMoment | None = None
    end: DayOrMoment | None = None
    zone: Zone = "UTC"
    window: Literal["total", "hour", "day"] = "total"
    by: Annotated[tuple[_Group, ...], Field(max_length=10)] = ()
    where: Annotated[Mapping[str, ExternalId], Field(max_length=10)] = field(default_factory=dict)
    close: Id | None = None


@operation(
    "usage.query",
    scope=Scope.USAGE_READ,
    summary="Quantities of one meter, per window and group.",
    needs_events=True,
)
def query_usage(context: Context, asked: QueryUsage) -> object:
    """Every stored event counts, or those of a close's cutoff."""
    meter = _meter(context, asked.meter)
    allowed = {"subject", "source", *meter.dimensions}
    unknown = sorted({*asked.by, *asked.where} - allowed)
    if unknown:
        raise InvalidInput(
            f"Meter {meter.id} cannot be grouped by {', '.join(unknown)}.",
            hint=f"It has: {', '.join(sorted(allowed))}.",
        )
    period = _period(asked)
    cutoff = None
    if asked.close is not None:
        with context.app.closes.begin() as store:
            cutoff = store.get(CloseId(asked.close)).cutoff
    where = dict(asked.where)
    if "subject" in where:
        where["subject"] = context.app.vault.find("subject", where["subject"]) or where["subject"]
    table = context.app.events.usage(
        UsageQuery(meter, period, asked.window, asked.zone, asked.by, where, cutoff)
    )
    if table.num_rows > ROWS_MAX:
        raise InvalidInput(
            f"The answer would have {table.num_rows:,} rows; up to {ROWS_MAX:,} are given.",
            hint="Ask for a shorter period, or by fewer groups.",
        )
    shown = ["window_start", "window_end", *asked.by]
    rows = table.select(shown).to_pylist()
    items = [
        {**row, "events": parts.events, "quantity": quantity_of(meter, parts)}
        for row, parts in zip(rows, components_of(table), strict=True)
    ]
    return {
        "meter": meter.id,
        "unit": meter.unit,
        "aggregation": meter.aggregation,
        "period": {"start": period.start, "end": period.end, "zone": asked.zone},
        "items": items,
        "next": None,
    }


def _meter(context: Context, name: str) -> Meter:
    for meter in context.app.workspace.meters:
        if meter.id == name:
            return meter
    known = ", ".join(meter.id for meter in context.app.workspace.meters) or "none"
    raise NotFound(f"There is no meter {name!r}.", hint=f"Configured in meters/: {known}.")


def _period(asked: QueryUsage) -> Period:
    if asked.period is not None and asked.start is None and asked.end is None:
        return Period.month(asked.period, asked.zone)
    if asked.period is not None or asked.start is None or asked.end is None:
        raise InvalidInput("Give either a month, or both start and end.")
    try:
        return Period(moment_of(asked.start, asked.zone), moment_of(asked.end, asked.zone))
    except ValueError as exc:
        raise InvalidInput(f"{asked.start} to {asked.end} is no period: {exc}.") from exc
