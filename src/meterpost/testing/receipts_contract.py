"""What becomes of our documents in an ERP, played through on the whole application.

Subclass `ReceiptsContract` beside the fixtures ``bench`` (a `Whole` on the ERP under test),
``clerk`` (a person at the ERP's screens) and ``names``, run pytest. Each check bills November
2023, lets the clerk work, sends late usage, closes again, and ends with ledgers that balance.

Amounts: 22,361,870 tokens at 0.0000025 are 55.90; each 4,000,000 late ones 10.00 more.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from meterpost.core.money import round_half_up
from meterpost.posting.model import differences
from meterpost.reconcile.model import Comparison, DocumentReport, ReceiptState, Verdict
from meterpost.staging.model import StagedTransaction, State
from meterpost.staging.review import Answer
from meterpost.testing.whole import ErpNames, Somebody, Whole
from meterpost.workflows.close import Ask

GOLDEN, LATE = 22_361_870, 4_000_000
_FIRST, _HALF = Decimal("55.90"), Decimal("27.95")


class InvoiceClerk(Protocol):
    """A person who works on invoices by hand."""

    def halve(self, document_id: str) -> None:
        """Edit a draft of one line so that it holds half: 55.90 becomes 27.95."""
        ...

    def double(self, document_id: str) -> None:
        """Edit a draft of one line so that it holds twice as much."""
        ...

    def rewrite(self, document_id: str) -> None:
        """Replace all the texts of a draft's first line, our reference included."""
        ...

    def delete(self, document_id: str) -> None:
        """Remove a draft."""
        ...

    def cancel(self, document_id: str) -> None:
        """Cancel a draft."""
        ...

    def post(self, document_id: str) -> str:
        """Post a draft; its number."""
        ...

    def credit(self, document_id: str) -> None:
        """Credit what is left of a posted invoice."""
        ...

    def credit_half(self, document_id: str) -> None:
        """Credit 27.95 of a posted invoice over 55.90."""
        ...


class ReceiptsContract:
    """The checks; each says in its docstring what a user may rely on."""

    def test_the_golden_tokens(self, bench: Whole, names: ErpNames) -> None:
        """22,361,870 tokens at 0.0000025: one line over 55.90, read back equal, proved."""
        first = _billed(bench)
        assert first.document is not None
        (line,) = first.document.lines
        stored = bench.document(first.id)
        assert differences(first.document, stored, first.posting_key) == ()
        assert (line.amount, stored.net) == (_FIRST, _FIRST)
        tax = round_half_up(_FIRST * names.tax_rate, 2)
        assert (stored.tax, stored.gross) == (tax, _FIRST + tax)
        (theirs,) = stored.lines
        assert (theirs.account, theirs.tax_codes) == (names.account, (names.tax_code,))
        assert str(GOLDEN) in f"{theirs.quantity} {theirs.description}"
        assert bench.reconcile().clean
        assert bench.transaction(first.id).state is State.RECONCILED
        replayed = bench.app.prover.prove_transaction(first.id)
        assert (replayed.differences, replayed.events) == ((), 1)
        _require_nothing_open(bench)

    def test_late_usage_beside_an_untouched_draft(self, bench: Whole, names: ErpNames) -> None:
        """Without anybody's doing the next close posts the difference as a draft of its own."""
        first = _billed(bench)
        bench.reconcile()
        _require_delta(bench, names, "65.90", "10.00")
        assert bench.reconcile().clean
        assert bench.document(first.id).net == _FIRST
        _require_nothing_open(bench)

    def test_an_edited_draft_is_accepted(
        self, bench: Whole, clerk: InvoiceClerk, names: ErpNames
    ) -> None:
        """Late usage waits while an edit is unanswered; accepted, it is billed on top of it."""
        first = _billed(bench)
        clerk.halve(_document_id(bench, first))
        _require_waiting(bench, first, ReceiptState.EDITED, Comparison.CHANGED, _HALF)
        _require_held(bench, "65.90", "37.95")
        bench.app.review.answer_receipt(first.id, Answer.ACCEPT, Somebody("ada"), "a discount")
        assert bench.exceptions() == []
        assert bench.receipt(first.id)["adjustment"] == _HALF - _FIRST
        _require_delta(bench, names, "75.90", "20.00")
        bench.reconcile()
        assert bench.receipt(first.id)["answer"] == "accept"
        assert bench.transaction(first.id).state is State.POSTED
        _require_nothing_open(bench)

    def test_an_edited_draft_is_restated(
        self, bench: Whole, clerk: InvoiceClerk, names: ErpNames
    ) -> None:
        """Restated, the next close posts what the edit took away, with the late usage."""
        first = _billed(bench)
        clerk.halve(_document_id(bench, first))
        _require_waiting(bench, first, ReceiptState.EDITED, Comparison.CHANGED, _HALF)
        _require_held(bench, "65.90", "37.95")
        bench.app.review.answer_receipt(first.id, Answer.RESTATE, Somebody("ada"), "a mistake")
        _require_delta(bench, names, "75.90", "47.95")
        bench.reconcile()
        _require_nothing_open(bench)

    def test_an_edit_upwards_is_restated_below_zero(
        self, bench: Whole, clerk: InvoiceClerk, names: ErpNames
    ) -> None:
        """Where the edit bills more than all usage, the difference is a credit."""
        first = _billed(bench)
        clerk.double(_document_id(bench, first))
        _require_waiting(bench, first, ReceiptState.EDITED, Comparison.CHANGED, Decimal("111.80"))
        bench.app.review.answer_receipt(first.id, Answer.RESTATE, Somebody("ada"), "a mistake")
        _require_delta(bench, names, "65.90", "-45.90")
        bench.reconcile()
        _require_nothing_open(bench)

    def test_a_rewritten_text_is_not_billed_twice(
        self, bench: Whole, clerk: InvoiceClerk, names: ErpNames
    ) -> None:
        """A line that lost our reference is an edit, and its money still counts as billed."""
        first = _billed(bench)
        clerk.rewrite(_document_id(bench, first))
        _require_waiting(bench, first, ReceiptState.EDITED, Comparison.CHANGED, _FIRST)
        bench.app.review.answer_receipt(first.id, Answer.RESTATE, Somebody("ada"), "only the text")
        _require_delta(bench, names, "65.90", "10.00")
        bench.reconcile()
        _require_nothing_open(bench)

    def test_a_deleted_draft_is_restated(
        self, bench: Whole, clerk: InvoiceClerk, names: ErpNames
    ) -> None:
        """A deleted draft is missing once it cannot be hidden; restated, all of it is due again."""
        first = _billed(bench)
        clerk.delete(_document_id(bench, first))
        (report,) = bench.reconcile(wait_s=0).documents
        assert report.verdict is Verdict.HIDDEN
        assert bench.exceptions() == []
        _require_waiting(bench, first, ReceiptState.MISSING, Comparison.MISSING, Decimal(0))
        _require_held(bench, "65.90", "65.90")
        bench.app.review.answer_receipt(first.id, Answer.RESTATE, Somebody("ada"), "by mistake")
        _require_delta(bench, names, "75.90", "75.90")
        bench.reconcile()
        assert bench.receipt(first.id)["state"] == "missing"
        _require_nothing_open(bench)

    def test_a_deleted_draft_is_restated_without_late_usage(
        self, bench: Whole, clerk: InvoiceClerk, names: ErpNames
    ) -> None:
        """Restating needs no new usage: the same period closed again bills what is missing."""
        first = _billed(bench)
        clerk.delete(_document_id(bench, first))
        bench.reconcile()
        bench.app.review.answer_receipt(first.id, Answer.RESTATE, Somebody("ada"), "by mistake")
        second = bench.bill()
        _require_document(bench, names, second, "55.90", "55.90")
        bench.reconcile()
        _require_nothing_open(bench)

    def test_a_cancelled_draft_is_restated(
        self, bench: Whole, clerk: InvoiceClerk, names: ErpNames
    ) -> None:
        """A cancelled draft counts 0 and waits for an answer; restated, all of it is due again."""
        first = _billed(bench)
        clerk.cancel(_document_id(bench, first))
        _require_waiting(bench, first, ReceiptState.CANCELLED, Comparison.CHANGED, Decimal(0))
        _require_held(bench, "65.90", "65.90")
        bench.app.review.answer_receipt(first.id, Answer.RESTATE, Somebody("ada"), "by mistake")
        _require_delta(bench, names, "75.90", "75.90")
        bench.reconcile()
        _require_nothing_open(bench)

    def test_a_posted_invoice_is_billed_on_top_of(
        self, bench: Whole, clerk: InvoiceClerk, names: ErpNames
    ) -> None:
        """A number changes nothing but the receipt's state, and leads to the events."""
        first = _billed(bench)
        number = clerk.post(_document_id(bench, first))
        report = _reconciled(bench, first)
        assert (report.state, report.verdict) == (ReceiptState.NUMBERED, Verdict.EQUAL)
        assert report.number == number
        assert bench.transaction(first.id).state is State.RECONCILED
        second = _require_delta(bench, names, "65.90", "10.00")
        assert bench.document(first.id).net == _FIRST
        second_number = clerk.post(_document_id(bench, second))
        assert bench.reconcile().clean
        for transaction, name in ((first, number), (second, second_number)):
            trace = bench.app.tracer.trace(f"document:{name}")
            assert transaction.id in {each.id for each in trace.transactions if each.focus}
            assert "ev-1" in str(trace.to_plain())
        (down,) = (
            each
            for each in bench.app.tracer.trace("event:ev-1").transactions
            if each.id == first.id
        )
        assert down.receipt is not None
        assert down.receipt.number == number
        _require_nothing_open(bench)

    def test_a_credited_invoice_is_billed_again(
        self, bench: Whole, clerk: InvoiceClerk, names: ErpNames
    ) -> None:
        """Of a wholly credited invoice nothing holds: the next close bills everything."""
        first = _billed(bench)
        clerk.post(_document_id(bench, first))
        clerk.credit(_document_id(bench, first))
        report = _reconciled(bench, first)
        assert (report.state, report.held) == (ReceiptState.CREDITED, Decimal(0))
        assert bench.transaction(first.id).state is State.RECONCILED
        assert bench.exceptions() == []
        _require_delta(bench, names, "65.90", "65.90")
        assert bench.reconcile().clean
        _require_nothing_open(bench)

    def test_of_a_partly_credited_invoice_the_remainder_holds(
        self, bench: Whole, clerk: InvoiceClerk, names: ErpNames
    ) -> None:
        """A credit over half leaves the other half; the next close bills up to all usage."""
        first = _billed(bench)
        clerk.post(_document_id(bench, first))
        clerk.credit_half(_document_id(bench, first))
        report = _reconciled(bench, first)
        assert (report.state, report.held) == (ReceiptState.CREDITED, _HALF)
        _require_delta(bench, names, "65.90", "37.95")
        assert bench.reconcile().clean
        _require_nothing_open(bench)

    def test_a_change_between_approval_and_sending_is_noticed(
        self, bench: Whole, clerk: InvoiceClerk, names: ErpNames
    ) -> None:
        """An approved difference is not sent once what it is a difference to has changed."""
        first = _billed(bench)
        clerk.post(_document_id(bench, first))
        bench.use(LATE)
        bench.close()
        bench.approve()
        clerk.credit(_document_id(bench, first))
        bench.reconcile()
        bench.post()
        (_, second) = bench.transactions()
        assert (second.state, second.due) == (State.PROPOSED, Decimal("10.00"))
        _require_delta(bench, names, "75.90", "75.90")
        assert bench.reconcile().clean
        _require_nothing_open(bench)


def _billed(bench: Whole) -> StagedTransaction:
    bench.use(GOLDEN)
    first = bench.bill()
    assert (first.state, first.due) == (State.POSTED, _FIRST)
    return first


def _document_id(bench: Whole, transaction: StagedTransaction) -> str:
    return str(bench.receipt(transaction.id)["document_id"])


def _reconciled(bench: Whole, transaction: StagedTransaction) -> DocumentReport:
    reports = bench.reconcile().documents
    return next(each for each in reports if each.transaction == transaction.id)


def _require_waiting(
    bench: Whole,
    first: StagedTransaction,
    state: ReceiptState,
    comparison: Comparison,
    held: Decimal,
) -> None:
    """Reconcile says what happened and asks a person, once."""
    report = _reconciled(bench, first)
    assert (report.state, report.held) == (state, held)
    _reconciled(bench, first)
    stored = bench.receipt(first.id)
    assert (stored["state"], stored["comparison"], stored["held_net"]) == (state, comparison, held)
    assert bench.exceptions() == [f"document_{state}"]
    assert bench.transaction(first.id).state is State.POSTED
    bench.require_whole()


def _require_held(bench: Whole, amount: str, due: str) -> None:
    """Late usage is computed from what holds, and waits."""
    bench.use(LATE)
    waiting = bench.bill()
    assert (waiting.state, waiting.revision) == (State.HELD, 2)
    assert (waiting.amount, waiting.due) == (Decimal(amount), Decimal(due))
    bench.require_whole()


def _require_delta(bench: Whole, names: ErpNames, amount: str, due: str) -> StagedTransaction:
    """More late usage; what is due now is a new draft with the right amounts."""
    bench.use(LATE)
    posted = bench.bill()
    _require_document(bench, names, posted, amount, due)
    return posted


def _require_document(
    bench: Whole, names: ErpNames, posted: StagedTransaction, amount: str, due: str
) -> None:
    assert posted.state is State.POSTED
    assert (posted.amount, posted.due) == (Decimal(amount), Decimal(due))
    stored = bench.document(posted.id)
    tax = round_half_up(posted.due * names.tax_rate, 2)
    assert (stored.net, stored.tax, stored.gross) == (posted.due, tax, posted.due + tax)
    assert posted.document is not None
    assert differences(posted.document, stored, posted.posting_key) == ()


def _require_nothing_open(bench: Whole) -> None:
    assert bench.exceptions() == []
    bench.require_whole()
    # The same close again finds nothing to do.
    before = len(bench.transactions())
    bench.close(Ask.LATEST)
    assert len(bench.transactions()) == before
