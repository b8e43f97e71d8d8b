"""The one number that components become: division and rounding happen here, once."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext

import pyarrow as pa

from meterpost.core.money import EXACT, VALUE_SCALE_MAX
from meterpost.metering.model import Aggregation, Components, Meter

#: The columns that carry the components in every table of usage.
COMPONENT_COLUMNS = ("events", "total", "minimum", "maximum", "distinct", "latest")

#: The Arrow type of totals, extremes and quantities.
QUANTITY_TYPE = pa.decimal128(38, VALUE_SCALE_MAX)

_ZERO = Decimal(0)
_STEP = Decimal(1).scaleb(-VALUE_SCALE_MAX)


def quantity_of(meter: Meter, components: Components) -> Decimal:
    """The quantity in the meter's unit.

    Exact for all aggregations but AVERAGE, which is total ÷ events rounded half-even at nine
    decimals. Without events every aggregation gives 0; ``components.events`` tells it from a
    measured zero.
    """
    return _quantity(
        meter.aggregation,
        components.events,
        components.total,
        components.minimum,
        components.maximum,
        components.distinct,
        components.latest,
    )


def components_of(table: pa.Table) -> list[Components]:
    """The component columns of a usage table, row by row."""
    columns = [table.column(name).to_pylist() for name in COMPONENT_COLUMNS]
    return [Components(*row) for row in zip(*columns, strict=True)]


def quantities(meter: Meter, table: pa.Table) -> pa.Array:
    """The quantities of a usage table's rows, as `quantity_of` gives them (decimal128(38, 9)).

    Raises: pyarrow.ArrowInvalid where a quantity has more than 29 whole digits.
    """
    parts: Sequence[list[object]] = [table.column(name).to_pylist() for name in COMPONENT_COLUMNS]
    aggregation = meter.aggregation
    return pa.array(
        [_quantity(aggregation, *row) for row in zip(*parts, strict=True)],
        QUANTITY_TYPE,
    )


def _quantity(
    aggregation: Aggregation,
    events: int,
    total: Decimal | None,
    minimum: Decimal | None,
    maximum: Decimal | None,
    distinct: int | None,
    latest: Decimal | None,
) -> Decimal:
    if not events:
        return _ZERO
    match aggregation:
        case Aggregation.COUNT:
            return Decimal(events)
        case Aggregation.UNIQUE:
            return Decimal(distinct or 0)
        case Aggregation.SUM:
            return _ZERO if total is None else total
        case Aggregation.MIN:
            return _ZERO if minimum is None else minimum
        case Aggregation.MAX:
            return _ZERO if maximum is None else maximum
        case Aggregation.LATEST:
            return _ZERO if latest is None else latest
        case Aggregation.AVERAGE:
            with localcontext(EXACT):
                return ((_ZERO if total is None else total) / events).quantize(_STEP)
