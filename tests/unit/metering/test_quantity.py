"""From components to one quantity."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest

from meterpost.core.ids import MeterId
from meterpost.metering.model import Aggregation, Components, Meter
from meterpost.metering.quantity import (
    COMPONENT_COLUMNS,
    components_of,
    quantities,
    quantity_of,
)

PARTS = Components(3, Decimal(10), Decimal(-1), Decimal("8.5"), 2, Decimal(3))
NONE = Components(0, None, None, None, None, None)


def meter(aggregation: Aggregation) -> Meter:
    return Meter(MeterId("m"), "t", aggregation, "u", "data.n")


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        (Aggregation.SUM, "10"),
        (Aggregation.COUNT, "3"),
        (Aggregation.UNIQUE, "2"),
        (Aggregation.MIN, "-1"),
        (Aggregation.MAX, "8.5"),
        (Aggregation.LATEST, "3"),
        (Aggregation.AVERAGE, "3.333333333"),
    ],
)
def test_each_aggregation_takes_its_component(aggregation, expected):
    """Six are exact; the average is rounded once, half-even at nine decimals."""
    assert quantity_of(meter(aggregation), PARTS) == Decimal(expected)
    assert quantity_of(meter(aggregation), NONE) == 0


def test_the_average_rounds_halves_to_even():
    """0.0000000005 is exactly half a step and goes to the even neighbour, 0."""
    parts = Components(2, Decimal("0.000000001"), None, None, None, None)
    assert quantity_of(meter(Aggregation.AVERAGE), parts) == 0


def test_a_table_gives_the_same_quantities_as_its_rows():
    """The helper for Arrow tables and the function agree."""
    rows = [PARTS, NONE]
    table = pa.table({n: [getattr(row, n) for row in rows] for n in COMPONENT_COLUMNS})
    for aggregation in Aggregation:
        one = meter(aggregation)
        assert quantities(one, table).to_pylist() == [quantity_of(one, row) for row in rows]
    assert components_of(table) == rows
