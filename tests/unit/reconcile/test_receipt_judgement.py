"""What becomes of a receipt, decided from two documents alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from meterpost.core.ids import LegalEntityId, PostingKey, ReceiptId, TargetId, TransactionId
from meterpost.posting.model import Document, DocumentLine, DocumentState, ErpDocument, ErpLine
from meterpost.reconcile.model import (
    Comparison,
    HeldLine,
    ReceiptState,
    StoredReceipt,
    judge,
    report_on,
)
from meterpost.staging.model import State

KEY = PostingKey("UAAAAAAAAAAAAAAA")
DAY = date(2026, 10, 31)


def line(reference: str, amount: str) -> DocumentLine:
    value = Decimal(amount)
    return DocumentLine(
        1, reference, "I", reference, Decimal(1), value, value, "4000", "VAT", DAY, DAY
    )


OURS = Document(
    TargetId("erp"),
    "billing.usage",
    "C",
    "EUR",
    "October",
    (line("A", "10.00"), line("B", "5.00")),
    Decimal("15.00"),
    DAY,
    DAY,
    None,
    "m",
    "c",
)
THEIRS = ErpDocument(
    "1",
    None,
    KEY,
    DocumentState.DRAFT,
    "C",
    "EUR",
    DAY,
    Decimal("15.00"),
    Decimal("3.00"),
    Decimal("18.00"),
    tuple(
        ErpLine(each.reference, "I", "", Decimal(1), each.amount, each.amount, "4000", ("VAT",))
        for each in OURS.lines
    ),
)


def stored(**changes: Any) -> StoredReceipt:
    fresh = StoredReceipt(
        ReceiptId(1),
        TargetId("erp"),
        TransactionId(1),
        KEY,
        "1",
        None,
        OURS,
        ReceiptState.DRAFT,
        Comparison.EQUAL,
        (),
        Decimal("15.00"),
        Decimal("3.00"),
        Decimal("18.00"),
        Decimal("15.00"),
        {
            "A": HeldLine(Decimal("10.00"), Decimal("10.00"), Decimal(0)),
            "B": HeldLine(Decimal("5.00"), Decimal("5.00"), Decimal(0)),
        },
        None,
        None,
        datetime(2026, 11, 1, tzinfo=UTC),
        State.POSTED,
        "bill",
        "C-1",
        LegalEntityId("acme"),
        "2026-10",
        "c",
    )
    return replace(fresh, **changes)


def edited(net: str) -> ErpDocument:
    value = Decimal(net)
    lines = (replace(THEIRS.lines[0], unit_price=value, net=value), THEIRS.lines[1])
    return replace(THEIRS, lines=lines, net=value + 5)


@pytest.mark.parametrize(
    ("theirs", "state", "comparison", "held"),
    [
        (THEIRS, ReceiptState.DRAFT, Comparison.EQUAL, "15.00"),
        (
            replace(THEIRS, state=DocumentState.NUMBERED, number="1"),
            ReceiptState.NUMBERED,
            Comparison.EQUAL,
            "15.00",
        ),
        (edited("8.00"), ReceiptState.EDITED, Comparison.CHANGED, "13.00"),
        (
            replace(edited("8.00"), state=DocumentState.NUMBERED),
            ReceiptState.EDITED,
            Comparison.CHANGED,
            "13.00",
        ),
        (
            replace(THEIRS, credited_net=Decimal("4.00")),
            ReceiptState.CREDITED,
            Comparison.EQUAL,
            "11.00",
        ),
        (
            replace(THEIRS, state=DocumentState.CANCELLED),
            ReceiptState.CANCELLED,
            Comparison.CHANGED,
            "0",
        ),
        (None, ReceiptState.MISSING, Comparison.MISSING, "0"),
    ],
)
def test_a_document_has_one_state(
    theirs: ErpDocument | None, state: ReceiptState, comparison: Comparison, held: str
) -> None:
    """Each life of a document gives one state, one comparison, and what holds, line by line."""
    found = judge(stored(), theirs)
    assert (found.state, found.comparison, found.held_net) == (state, comparison, Decimal(held))
    assert sum(found.held.values()) == Decimal(held)


def test_a_foreign_line_is_an_edit_that_belongs_to_no_line_of_ours() -> None:
    """What a clerk added is reported, and counts in the document, not in our lines."""
    extra = ErpLine(None, "X", "postage", Decimal(1), Decimal(2), Decimal(2))
    theirs = replace(THEIRS, lines=(*THEIRS.lines, extra), net=Decimal("17.00"))
    found = judge(stored(), theirs)
    assert found.state is ReceiptState.EDITED
    assert sum(found.held.values()) == Decimal("15.00")
    lines = {each.name: each for each in report_on(stored(), found).lines}
    assert (lines["postage"].ours, lines["postage"].theirs) == (None, Decimal(2))


def test_tax_is_compared_with_what_was_read_first() -> None:
    """The first reading is the baseline; a later tax code or account is an edit."""
    first = judge(stored(), THEIRS)
    assert first.baseline is not None
    moved = replace(THEIRS, lines=(replace(THEIRS.lines[0], tax_codes=("ZERO",)), THEIRS.lines[1]))
    again = judge(stored(baseline=first.baseline), moved)
    assert [each.field for each in again.differences] == ["line A tax codes"]


def test_an_answer_counts_for_what_it_was_given_for() -> None:
    """The same state keeps the answer, another amount asks anew, equality needs none."""
    first = judge(stored(), edited("8.00"))
    answered = stored(
        state=first.state,
        comparison=first.comparison,
        differences=first.differences,
        held_net=first.held_net,
        baseline=first.baseline,
        lines={
            "A": HeldLine(Decimal("10.00"), Decimal("8.00"), Decimal("-2.00")),
            "B": HeldLine(Decimal("5.00"), Decimal("5.00"), Decimal(0)),
        },
        answer="accept",
    )
    kept = judge(answered, edited("8.00"))
    assert (kept.answer, kept.adjustments["A"]) == ("accept", Decimal("-2.00"))
    numbered = replace(edited("8.00"), state=DocumentState.NUMBERED, number="7")
    assert judge(answered, numbered).answer == "accept"
    anew = judge(answered, edited("7.00"))
    assert (anew.answer, anew.adjustments["A"]) == (None, Decimal(0))
    assert judge(answered, THEIRS).answer is None
    assert judge(answered, None).answer is None
