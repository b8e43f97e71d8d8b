"""Partitions keep their differences at the finest grain."""

from __future__ import annotations

from decimal import Decimal

from meterpost.reconcile.balance import Balance, Bridge, Ledger, partition


def test_errors_that_cancel_out_do_not_hide() -> None:
    """Two lines wrong in opposite directions leave the row's sums right and a difference."""
    totals = {("m", "a"): Decimal(5), ("m", "b"): Decimal(5)}
    cells = {"charged": {("m", "a"): Decimal(4), ("m", "b"): Decimal(6)}}
    [row] = partition(totals, cells, ("meter",), 1)
    assert row.total == row.cells["charged"] == 10
    assert row.difference == 2


def test_a_cell_without_a_total_is_a_difference() -> None:
    """What only a cell knows is unexplained too."""
    [row] = partition({}, {"charged": {("m", "a"): Decimal(3)}}, ("meter",), 1)
    assert (row.total, row.difference) == (0, 3)


def test_unexplained_adds_ledgers_and_bridges() -> None:
    """Nothing of one sign can pay for something of the other."""
    rows = partition({("a",): Decimal(1)}, {"x": {}}, ("meter",), 1)
    bridge = Bridge("b", "left = right", Decimal(1), Decimal(3), Decimal(2))
    balance = Balance("2026-10", ("acme",), (), (Ledger("l", "u", "t", rows),), (bridge,))
    assert balance.unexplained == 3
    assert balance.to_plain()["unexplained"] == "3"
    assert ("bridges", "b", "left = right", "1 ≠ 3, unexplained 2") in list(balance.table_rows())
