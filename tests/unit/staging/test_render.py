"""Documents: what is shown as quantity × price, what as 1 × amount, and what is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest

from meterpost.core.ids import (
    CloseId,
    ContractLineId,
    CustomerId,
    ItemId,
    LegalEntityId,
    MeterId,
    TargetId,
    UsageRecordId,
)
from meterpost.core.period import Period
from meterpost.posting.model import Document, Precision
from meterpost.staging.model import Holding, Proposal, ProposedLine
from meterpost.staging.render import TargetNames, render
from meterpost.staging.revise import with_dues

OCTOBER = Period.month("2026-10", "Europe/Vienna")
TODAY = date(2026, 11, 5)


def proposed(**changes: object) -> ProposedLine:
    line = ProposedLine(
        line=ContractLineId("L-1"),
        meter=MeterId("tokens"),
        usage_record=UsageRecordId(7),
        item=ItemId("tokens"),
        description="Tokens",
        unit="token",
        quantity=Decimal(22_361_870),
        included=Decimal(0),
        charged=Decimal(22_361_870),
        price="p",
        unit_price=Decimal("0.0000025"),
        amount=Decimal("55.90"),
        working={},
        tax_category="standard",
        revenue_account="usage",
        service=OCTOBER,
    )
    return replace(line, **changes)  # type: ignore[arg-type]


def proposal(*lines: ProposedLine) -> Proposal:
    return Proposal(
        purpose="bill",
        kind="billing.usage",
        workflow="usage-billing",
        target=TargetId("erp"),
        legal_entity=LegalEntityId("acme"),
        accounting_period="2026-10",
        business_key="C-1",
        customer=CustomerId("initech"),
        period=OCTOBER,
        zone="Europe/Vienna",
        currency="EUR",
        payment_term=None,
        close=CloseId(1),
        lines=lines,
    )


NAMES = TargetNames(
    target=TargetId("erp"),
    precision=Precision(quantity_decimals=2, price_decimals=8),
    customers={"initech": "E-1"},
    items={"tokens": "TOK"},
    tax_categories={"standard": "VAT"},
    revenue_accounts={"usage": "4000"},
)


def rendered(
    *lines: ProposedLine, names: TargetNames = NAMES, held: dict[str, str] | None = None
) -> Document:
    the_proposal = proposal(*lines)
    holding = Holding({ContractLineId(k): Decimal(v) for k, v in (held or {}).items()})
    prices = {line.line: line.unit_price for line in lines}
    document, problems = render(
        the_proposal, with_dues(the_proposal, None, holding), dict(prices), names, "cfg", TODAY
    )
    assert problems == ()
    assert document is not None
    return document


def test_the_golden_tokens_are_shown_as_they_are_where_the_erp_keeps_the_price() -> None:
    """22,361,870 × 0.0000025 rounds to 55.90, and eight price decimals hold the price."""
    [line] = rendered(proposed()).lines
    assert (line.quantity, line.unit_price, line.amount) == (
        Decimal(22_361_870),
        Decimal("0.0000025"),
        Decimal("55.90"),
    )


def test_the_golden_tokens_are_one_times_the_amount_where_it_does_not() -> None:
    """With four price decimals the amount is sent, and the text tells the quantity."""
    names = replace(NAMES, precision=Precision(price_decimals=4))
    [line] = rendered(proposed(), names=names).lines
    assert (line.quantity, line.unit_price, line.amount) == (1, Decimal("55.90"), Decimal("55.90"))
    assert "22361870 token" in line.description


def test_a_tie_is_sent_as_an_amount() -> None:
    """Where rounding half up and half to even differ, no ERP is left the choice."""
    line = proposed(
        quantity=Decimal("0.5"),
        charged=Decimal("0.5"),
        unit_price=Decimal("0.01"),
        amount=Decimal("0.01"),
    )
    [shown] = rendered(line).lines
    assert (shown.quantity, shown.unit_price) == (1, Decimal("0.01"))


def test_a_difference_is_an_amount_that_says_so() -> None:
    """What was billed before is taken off, and the line says how much that was."""
    [line] = rendered(proposed(), held={"L-1": "50.00"}).lines
    assert (line.quantity, line.amount) == (1, Decimal("5.90"))
    assert "50" in line.description


def test_a_credit_has_a_negative_quantity() -> None:
    """Below zero: quantity −1 at a positive price, the form every ERP takes."""
    [line] = rendered(proposed(), held={"L-1": "60.00"}).lines
    assert (line.quantity, line.unit_price, line.amount) == (
        -1,
        Decimal("4.10"),
        Decimal("-4.10"),
    )


def test_lines_without_a_due_are_left_out() -> None:
    """Only what changes money goes to the ERP."""
    other = proposed(line=ContractLineId("L-2"), amount=Decimal(0), charged=Decimal(0))
    assert [line.reference for line in rendered(proposed(), other).lines] == ["L-1"]


def test_service_days_are_local_and_the_posting_day_has_a_range() -> None:
    """Lines carry the service period in the contract's zone; the range starts at its last day."""
    document = rendered(proposed())
    assert (document.lines[0].service_from, document.lines[0].service_to) == (
        date(2026, 10, 1),
        date(2026, 10, 31),
    )
    assert (document.date_from, document.date_to) == (date(2026, 10, 31), date(2026, 12, 31))


@pytest.mark.parametrize(
    ("missing", "code"),
    [
        ("customers", "unmapped-customer"),
        ("items", "unmapped-item"),
        ("tax_categories", "unmapped-tax-category"),
        ("revenue_accounts", "unmapped-revenue-account"),
    ],
)
def test_a_missing_name_is_a_problem_with_the_command_that_helps(missing: str, code: str) -> None:
    """No document is written, and the hint names the crosswalk command."""
    the_proposal = proposal(proposed())
    lines = with_dues(the_proposal, None, Holding())
    names = replace(NAMES, **{missing: {}})
    document, problems = render(the_proposal, lines, {}, names, "cfg", TODAY)
    assert document is None
    assert [problem.code for problem in problems] == [code]
    assert "meterpost crosswalk link" in problems[0].hint


def test_a_document_survives_its_row() -> None:
    """JSON and back gives an equal document with the same hash."""
    document = rendered(proposed())
    again = Document.from_plain(document.to_plain())
    assert again == document
    assert again.hash == document.hash
