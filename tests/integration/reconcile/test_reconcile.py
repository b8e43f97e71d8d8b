"""What a clerk does to our documents, as reconciling sees it over real PostgreSQL."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from meterpost.core.errors import Transient
from meterpost.core.ids import TransactionId
from meterpost.posting.model import DocumentState
from meterpost.reconcile.model import ReceiptState, Verdict
from meterpost.staging.model import State
from meterpost.staging.review import Answer
from meterpost.workflows.close import Ask

pytestmark = pytest.mark.integration


class Ada:
    user = "ada"
    roles = frozenset({"approver"})


def receipt(bench: Any, document: str = "1") -> Any:
    [row] = bench.sql("SELECT * FROM meterpost.receipt WHERE document_id = :d", d=document)
    return row


def held(bench: Any, document: str = "1") -> dict[str, Decimal]:
    rows = bench.sql(
        "SELECT l.line, l.held FROM meterpost.receipt_line AS l JOIN meterpost.receipt AS r "
        "ON r.id = l.receipt_id WHERE r.document_id = :d",
        d=document,
    )
    return {row.line: row.held for row in rows}


def test_an_untouched_document_is_reconciled(billed: Any) -> None:
    """An equal draft makes its transaction reconciled, once; a second run changes nothing."""
    [transaction] = billed.transactions()
    assert transaction.state is State.RECONCILED
    before = billed.sql("SELECT count(*) AS n FROM meterpost.transition")[0].n
    report = billed.reconcile()
    assert report.clean
    [document] = report.documents
    assert (document.verdict, document.ours, document.theirs) == (
        Verdict.EQUAL,
        transaction.due,
        transaction.due,
    )
    assert {c.name for c in document.amounts} == {"net", "tax", "gross"}
    assert {c.name: c.difference for c in document.lines} == {
        "L-tokens": 0,
        "L-users": 0,
        "L-fee": 0,
    }
    assert billed.sql("SELECT count(*) AS n FROM meterpost.transition")[0].n == before


def test_an_edited_draft_waits_for_an_answer(billed: Any) -> None:
    """An edit opens one exception with both values; accepted, it stays quiet until it changes."""
    billed.clerk_edits_line("1", "L-tokens", "10.00")
    report = billed.reconcile()
    [document] = report.documents
    assert (document.state, document.verdict) == (ReceiptState.EDITED, Verdict.CHANGED)
    assert [c.difference for c in document.lines if c.name == "L-tokens"] == [Decimal("-2.00")]
    [transaction] = billed.transactions()
    assert transaction.state is State.POSTED
    [waiting] = billed.exceptions("document_edited")
    assert waiting["fact"] == transaction.posting_key
    assert waiting["detail"]["net"] == {"ours": "15.3", "theirs": "13.3"}
    assert held(billed)["L-tokens"] == Decimal("10.00")
    assert receipt(billed).answer is None

    billed.app.review.answer_receipt(TransactionId(transaction.id), Answer.ACCEPT, Ada(), "fine")
    billed.reconcile()
    assert billed.exceptions("document_edited") == []
    assert (receipt(billed).answer, receipt(billed).adjustment) == ("accept", Decimal("-2.00"))
    assert billed.balance().unexplained == 0

    billed.clerk_edits_line("1", "L-tokens", "9.00")
    billed.reconcile()
    assert receipt(billed).answer is None
    assert len(billed.exceptions("document_edited")) == 1


def test_a_document_that_is_as_sent_again_needs_no_answer(billed: Any) -> None:
    """Equality closes the exception, forgets what was accepted and reconciles again."""
    sent = billed.erp.documents["1"][1]
    billed.clerk_edits_line("1", "L-tokens", "10.00")
    billed.reconcile()
    [transaction] = billed.transactions()
    billed.app.review.answer_receipt(TransactionId(transaction.id), Answer.ACCEPT, Ada(), "fine")
    billed.clerk("1", lines=sent.lines, net=sent.net, tax=sent.tax, gross=sent.gross)
    report = billed.reconcile()
    assert report.steps == {"reconciled": 1}
    assert billed.exceptions("document_edited") == []
    assert (receipt(billed).answer, receipt(billed).adjustment) == (None, Decimal(0))


def test_a_changed_tax_is_an_edit(billed: Any) -> None:
    """Tax is never sent; it is compared with what the ERP itself made of the document first."""
    billed.clerk("1", tax=Decimal("0.00"), gross=billed.erp.documents["1"][1].net)
    [document] = billed.reconcile().documents
    assert document.state is ReceiptState.EDITED
    assert [text.partition(":")[0] for text in document.differences] == ["tax", "gross"]


def test_a_deleted_draft_holds_nothing(billed: Any) -> None:
    """A missing document counts 0 on every line and asks a person; late usage waits for it."""
    billed.clerk_deletes("1")
    report = billed.reconcile()
    assert report.count(Verdict.MISSING) == 1
    assert (receipt(billed).state, receipt(billed).comparison) == ("missing", "missing")
    assert set(held(billed).values()) == {Decimal(0)}
    assert len(billed.exceptions("document_missing")) == 1
    assert billed.balance().unexplained == 0


def test_a_cancelled_draft_holds_nothing(billed: Any) -> None:
    """A cancelled document counts 0 and asks a person, once."""
    billed.clerk("1", state=DocumentState.CANCELLED)
    billed.reconcile()
    billed.reconcile()
    assert receipt(billed).state == "cancelled"
    assert receipt(billed).held_net == 0
    assert len(billed.exceptions("document_cancelled")) == 1


def test_a_numbered_document_is_found_by_its_number(billed: Any) -> None:
    """The number the clerk's posting gave is stored, and a trace by it works."""
    billed.clerk("1", state=DocumentState.NUMBERED, number="INV-7")
    assert billed.reconcile().clean
    assert (receipt(billed).state, receipt(billed).number) == ("numbered", "INV-7")
    assert billed.tracer.trace("INV-7").kind == "document"


def test_a_partial_credit_is_spread_exactly(billed: Any) -> None:
    """A credit note without lines takes its part of every line, to the minor unit."""
    billed.clerk("1", state=DocumentState.NUMBERED, number="INV-7", credited_net=Decimal("5.01"))
    billed.reconcile()
    assert (receipt(billed).state, receipt(billed).held_net) == ("credited", Decimal("10.29"))
    assert sum(held(billed).values()) == Decimal("10.29")
    assert billed.transactions()[0].state is State.RECONCILED


def test_late_usage_after_a_credit_is_due_from_what_holds(billed: Any, usage: Any) -> None:
    """After a full credit, the next revision's due is its whole amount."""
    net = billed.erp.documents["1"][1].net
    billed.clerk("1", state=DocumentState.NUMBERED, number="INV-7", credited_net=net)
    billed.reconcile()
    billed.send(usage("late", 100))
    second = billed.bill(Ask.LATE)
    assert second.revision == 2
    assert second.due == second.amount


def test_a_fresh_document_may_still_be_hidden(bench: Any, usage: Any) -> None:
    """Shortly after a write an empty look-up proves nothing: no exception, no new state."""
    bench.send(usage("1", 800))
    bench.bill()
    bench.erp.visibility_s = 3600
    [document] = bench.reconcile(wait_s=1).documents
    assert document.verdict is Verdict.HIDDEN
    assert bench.exceptions("document_missing") == []


def test_a_document_nobody_knows_is_unexplained(billed: Any) -> None:
    """A copy under our reference opens an exception until the ERP holds it no longer."""
    billed.erp.store(billed.erp.documents["1"][1])
    report = billed.reconcile()
    assert report.count(Verdict.UNKNOWN) == 1
    assert not report.clean
    [found] = billed.exceptions("document_without_receipt")
    assert found["fact"] == "erp/2"
    assert billed.balance().unexplained == 1
    billed.clerk("2", state=DocumentState.CANCELLED)
    assert billed.reconcile().clean
    assert billed.exceptions("document_without_receipt") == []


def test_an_erp_that_stays_down_ends_the_run(billed: Any) -> None:
    """The ERP is asked a limited number of times; receipts stay as they were."""
    billed.erp.down = True
    before = billed.erp.requests
    with pytest.raises(Transient):
        billed.reconcile()
    assert billed.erp.requests == before + 5
    assert receipt(billed).comparison == "equal"
