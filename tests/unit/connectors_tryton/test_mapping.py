"""Our documents as Tryton's invoices and back, without a server."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterpost.connectors.tryton import wire
from meterpost.connectors.tryton.mapping import (
    Credits,
    InvoiceHead,
    LineDefaults,
    credits_of,
    from_tryton_invoice,
    is_posting_key,
    line_reference,
    line_text,
    to_tryton_invoice,
    tryton_amount,
)
from meterpost.core.ids import PostingKey, PostingKeyParts, TargetId
from meterpost.posting.errors import Rejected
from meterpost.posting.model import Document, DocumentLine, DocumentState

KEY = PostingKey("U0123456789ABCDE")
HEAD = InvoiceHead(1, 2, 3, 4, 5, 6, None)
LINE = LineDefaults(product=7, unit=8, account=9, taxes=(10,))


def line(quantity: str, unit_price: str, amount: str, reference: str = "L-1") -> DocumentLine:
    return DocumentLine(
        1,
        reference,
        "ITEM",
        "Tokens",
        Decimal(quantity),
        Decimal(unit_price),
        Decimal(amount),
        None,
        None,
        date(2023, 11, 1),
        date(2023, 11, 30),
    )


def document(*lines: DocumentLine) -> Document:
    net = sum((one.amount for one in lines), Decimal(0))
    day = date(2023, 11, 30)
    return Document(
        TargetId("tryton"), "k", "C-1", "EUR", "Usage", lines, net, day, day, None, "m", "c"
    )


def test_an_invoice_carries_key_day_and_every_id() -> None:
    """The whole creating payload, as Tryton wants it (create runs no defaults of the screen)."""
    values = to_tryton_invoice(
        document(line("12.5", "42.50", "531.25")), KEY, date(2023, 11, 30), HEAD, [LINE]
    )
    assert values == {
        "type": "out",
        "company": 1,
        "party": 2,
        "invoice_address": 3,
        "currency": 4,
        "journal": 5,
        "account": 6,
        "payment_term": None,
        "reference": "U0123456789ABCDE",
        "description": "Usage",
        "invoice_date": date(2023, 11, 30),
        "lines": [
            [
                "create",
                [
                    {
                        "type": "line",
                        "company": 1,
                        "currency": 4,
                        "product": 7,
                        "unit": 8,
                        "quantity": 12.5,
                        "unit_price": Decimal("42.50"),
                        "account": 9,
                        "taxes": [["add", [10]]],
                        "description": "Tokens\n2023-11-01 to 2023-11-30 [L-1]",
                    }
                ],
            ]
        ],
    }


def test_an_amount_that_tryton_would_round_otherwise_is_refused() -> None:
    """Tryton rounds halves to even: 0.5 × 0.01 is 0.00 there, while we approved 0.01."""
    assert tryton_amount(Decimal("0.5"), Decimal("0.01"), "EUR") == 0
    with pytest.raises(Rejected, match="1 × amount"):
        to_tryton_invoice(document(line("0.5", "0.01", "0.01")), KEY, date.max, HEAD, [LINE])


def test_a_quantity_that_a_double_cannot_hold_is_refused() -> None:
    """Tryton's quantities are doubles; eighteen digits would come back changed."""
    with pytest.raises(Rejected, match="floating-point"):
        to_tryton_invoice(
            document(line("123456789012345678", "1", "123456789012345678")),
            *(KEY, date.max, HEAD, [LINE]),
        )


@given(st.text(alphabet=st.characters(exclude_characters="[]"), min_size=1, max_size=60))
def test_the_reference_survives_the_line_text(reference: str) -> None:
    """Whatever a contract line is called (without brackets), it is read back from the text."""
    assert line_reference(line_text(line("1", "1", "1", reference))) == reference


def test_texts_of_others_have_no_reference() -> None:
    """Brackets elsewhere are not ours."""
    assert line_reference("[A-1] Consulting") is None
    assert line_reference("") is None


def test_posting_keys_are_told_from_other_references() -> None:
    """What `PostingKeyParts` makes is ours; a customer's order number is not."""
    start = datetime(2023, 11, 1, tzinfo=UTC)
    parts = PostingKeyParts(
        "i", "test", TargetId("t"), "bill", "C", start, start + timedelta(days=30), 1
    )
    assert is_posting_key(parts.key())
    assert not is_posting_key("PO-4711")
    assert not is_posting_key("U0123456789ABCDU")
    assert not is_posting_key(None)


def invoice(**more: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "id": 5,
        "reference": KEY,
        "state": "posted",
        "number": "17",
        "invoice_date": date(2023, 11, 30),
        "create_date": datetime(2023, 11, 30, 9, tzinfo=UTC),
        "write_date": None,
        "untaxed_amount": Decimal("10.00"),
        "tax_amount": Decimal("1.90"),
        "total_amount": Decimal("11.90"),
        "currency.": {"code": "EUR"},
        "party.": {"code": "C-1"},
        "lines.": [
            {"id": 1, "type": "comment", "description": "Hello"},
            {
                "id": 2,
                "type": "line",
                "quantity": 1,
                "unit_price": Decimal(10),
                "amount": Decimal("10.00"),
                "description": "Tokens\n2023-11-01 to 2023-11-30 [L-1]",
                "product.": None,
                "account.": {"code": "4.1.1"},
                "taxes.": [{"name": "VAT 19%"}],
            },
        ],
    }
    return values | more


@pytest.mark.parametrize(
    ("state", "number", "expected"),
    [
        ("draft", None, DocumentState.DRAFT),
        ("validated", None, DocumentState.DRAFT),
        ("validated", "9", DocumentState.NUMBERED),
        ("posted", "9", DocumentState.NUMBERED),
        ("paid", "9", DocumentState.NUMBERED),
        ("cancelled", "9", DocumentState.CANCELLED),
    ],
)
def test_states(state: str, number: str | None, expected: DocumentState) -> None:
    """Tryton's five states in our three."""
    assert from_tryton_invoice(invoice(state=state, number=number)).state is expected


def test_an_invoice_is_read_with_its_lines_and_credits() -> None:
    """Comment lines are no lines; credits are counted per our reference."""
    found = from_tryton_invoice(invoice(), Credits(Decimal(4), {2: Decimal(4)}))
    (only,) = found.lines
    assert (only.reference, only.item, only.net) == ("L-1", None, Decimal("10.00"))
    assert only.description == "Tokens"
    assert only.tax_codes == ("VAT 19%",)
    assert found.credited_net == 4
    assert found.credited_lines == {"L-1": Decimal(4)}
    assert found.modified_at == datetime(2023, 11, 30, 9, tzinfo=UTC)


def test_credits_leave_out_cancelled_credit_notes() -> None:
    """Two credit notes add up; a cancelled third does not count."""

    def credit(amount: str, state: str) -> dict[str, Any]:
        return {
            "amount": Decimal(amount),
            "origin": "account.invoice.line,2",
            "origin.": {"invoice": 5},
            "invoice.": {"state": state},
        }

    found = credits_of([credit("-3", "posted"), credit("-1", "draft"), credit("-9", "cancelled")])
    assert found == {5: Credits(Decimal(4), {2: Decimal(4)})}


@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=6),
    st.dates(),
    st.datetimes(timezones=st.just(UTC)),
)
def test_tagged_values_survive_the_wire(amount: Decimal, day: date, moment: datetime) -> None:
    """Decimals, days and moments come back as they were."""
    assert wire.decode(wire.encode([amount, day, moment])) == [amount, day, moment]


def test_fractions_are_exact_and_broken_tags_are_told() -> None:
    """A float in an answer becomes the Decimal that was written; a bad tag is a ValueError."""
    assert wire.decode(b'{"quantity": 12.10}') == {"quantity": Decimal("12.10")}
    with pytest.raises(ValueError, match="tagged"):
        wire.decode(b'{"__class__": "date", "year": 2023}')
    with pytest.raises(TypeError):
        wire.encode(datetime(2023, 11, 1))  # noqa: DTZ001 - refused because it has no zone
