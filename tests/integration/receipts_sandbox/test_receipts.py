"""Receipts live on: a clerk works on our documents in the sandbox ERP between two closes."""

from __future__ import annotations

from decimal import Decimal

import pytest

from meterpost.testing.receipts_contract import GOLDEN, ReceiptsContract
from meterpost.testing.whole import Whole

pytestmark = pytest.mark.integration


class TestSandboxReceipts(ReceiptsContract):
    """Every check, on the sandbox."""


def test_the_golden_line_shows_its_price(bench: Whole) -> None:
    """The sandbox keeps 8 decimals of prices: the line is real quantity times real price."""
    bench.use(GOLDEN)
    (line,) = bench.document(bench.bill().id).lines
    assert (line.quantity, line.unit_price) == (Decimal(GOLDEN), Decimal("0.0000025"))
