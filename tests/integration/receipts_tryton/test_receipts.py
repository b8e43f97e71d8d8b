"""Receipts live on: a clerk works on our documents in a real Tryton between two closes."""

from __future__ import annotations

from decimal import Decimal

import psycopg
import pytest

from meterpost.reconcile.model import ReceiptState
from meterpost.staging.model import State
from meterpost.testing.receipts_contract import GOLDEN, LATE, ReceiptsContract
from meterpost.testing.whole import Whole

from .conftest import TrytonClerk

pytestmark = [pytest.mark.integration, pytest.mark.tryton, pytest.mark.timeout(900)]


class TestTrytonReceipts(ReceiptsContract):
    """Every check, on Tryton."""


def test_the_golden_line_is_one_times_the_amount(bench: Whole) -> None:
    """Tryton keeps 4 decimals of prices: the line is 1 × 55.90, its text has the quantity."""
    bench.use(GOLDEN)
    (line,) = bench.document(bench.bill().id).lines
    assert (line.quantity, line.unit_price) == (Decimal(1), Decimal("55.90"))
    assert line.description == "Tokens: 22361870 token"


def test_an_invoice_credited_with_refund_is_credited(bench: Whole, clerk: TrytonClerk) -> None:
    """Tryton cancels an invoice that it refunds; for us it is credited like any other."""
    bench.use(GOLDEN)
    first = bench.bill()
    document_id = str(bench.receipt(first.id)["document_id"])
    number = clerk.post(document_id)
    clerk.person.credit(document_id, refund=True)
    (report,) = bench.reconcile().documents
    assert (report.state, report.held, report.number) == (
        ReceiptState.CREDITED,
        Decimal(0),
        number,
    )
    assert bench.exceptions() == []
    assert bench.transaction(first.id).state is State.RECONCILED
    bench.use(LATE)
    second = bench.bill()
    assert (second.state, second.due) == (State.POSTED, Decimal("65.90"))
    assert bench.reconcile().clean
    bench.require_whole()


def test_a_credit_that_is_dropped_holds_again(bench: Whole, clerk: TrytonClerk) -> None:
    """A draft credit note counts while it is there; deleted, the invoice holds all of it."""
    bench.use(GOLDEN)
    first = bench.bill()
    document_id = str(bench.receipt(first.id)["document_id"])
    clerk.post(document_id)
    note = clerk.person.credit(document_id)
    bench.reconcile()
    assert bench.receipt(first.id)["held_net"] == 0
    clerk.delete(note)
    (report,) = bench.reconcile().documents
    assert (report.state, report.held) == (ReceiptState.NUMBERED, Decimal("55.90"))
    bench.use(LATE)
    assert bench.bill().due == Decimal("10.00")
    bench.require_whole()


def test_a_number_means_the_document_that_bears_it(
    bench: Whole, clerk: TrytonClerk, books: psycopg.Connection[tuple[object, ...]]
) -> None:
    """Tryton's numbers are bare digits, as its ids are: where both fit, the number wins."""
    bench.use(GOLDEN)
    first = bench.bill()
    bench.use(LATE)
    second = bench.bill()
    first_id, second_id = (bench.receipt(each.id)["document_id"] for each in (first, second))
    clerk.post(str(second_id))
    books.execute(
        "UPDATE account_invoice SET number = %s WHERE id = %s", (first_id, int(str(second_id)))
    )
    bench.reconcile()
    assert bench.receipt(second.id)["number"] == first_id
    found = bench.app.tracer.trace(f"document:{first_id}").transactions
    assert [each.id for each in found if each.focus] == [second.id]
