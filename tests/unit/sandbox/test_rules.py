from decimal import Decimal

import pytest

from meterpost_sandbox.answers import Refused
from meterpost_sandbox.rules import check_invoice


def test_tax_is_rounded_per_tax_code_over_the_document(invoice, lookup):
    """Three lines of 0.02 at 20 % give one tax of 0.01, where a tax per line would give 0.00."""
    invoice["lines"] = [{"item": "TOKENS", "quantity": "1", "unit_price": "0.02"}] * 3
    invoice["lines"] += [{**invoice["lines"][0], "unit_price": "10", "tax_code": "VAT10"}]
    checked = check_invoice(invoice, lookup)
    assert [(tax.tax_code, tax.base, tax.amount) for tax in checked.taxes] == [
        ("VAT10", Decimal("10.00"), Decimal("1.00")),
        ("VAT20", Decimal("0.06"), Decimal("0.01")),
    ]
    assert (checked.net, checked.tax, checked.gross) == (
        Decimal("10.06"),
        Decimal("1.01"),
        Decimal("11.07"),
    )


def test_a_negative_total_is_a_credit_note(invoice, lookup):
    """Credits come as negative quantities or prices; the kind follows from the net."""
    invoice["lines"].append({"item": "TOKENS", "quantity": "-20", "unit_price": "1.5"})
    checked = check_invoice(invoice, lookup)
    assert (checked.kind, checked.net, checked.gross) == (
        "credit_note",
        Decimal("-15.00"),
        Decimal("-18.00"),
    )


@pytest.mark.parametrize(
    ("head", "line", "code", "field"),
    [
        ({"reference": None}, {}, "missing_field", "reference"),
        ({"reference": "a,b"}, {}, "invalid", "reference"),
        ({"reference": "x" * 81}, {}, "invalid", "reference"),
        ({"reference": "a\x00"}, {}, "invalid", "reference"),
        ({"reference": "\ud800"}, {}, "invalid", "reference"),
        ({"customer": "NOBODY"}, {}, "unknown_customer", "customer"),
        ({"customer": "C-OLD"}, {}, "inactive_customer", "customer"),
        ({"currency": "USD"}, {}, "currency_mismatch", "currency"),
        ({"currency": "eur"}, {}, "invalid", "currency"),
        ({"date": "2026-09-30"}, {}, "closed_period", "date"),
        ({"date": "2026-12-01"}, {}, "unknown_period", "date"),
        ({"date": "2026-02-30"}, {}, "invalid", "date"),
        ({"lines": []}, {}, "empty_lines", "lines"),
        ({"lines": [{}] * 1001}, {}, "too_many", "lines"),
        ({"colour": "red"}, {}, "unknown_field", "colour"),
        ({}, {"item": "NOTHING"}, "unknown_item", "lines[0].item"),
        ({}, {"account": "9999"}, "unknown_account", "lines[0].account"),
        ({}, {"item": "BARE"}, "missing_account", "lines[0].account"),
        ({}, {"item": "BARE", "account": "4000"}, "missing_tax", "lines[0].tax_code"),
        ({}, {"tax_code": "VAT99"}, "unknown_tax", "lines[0].tax_code"),
        ({}, {"quantity": "1.123456"}, "precision", "lines[0].quantity"),
        ({}, {"unit_price": "0.000000001"}, "precision", "lines[0].unit_price"),
        ({}, {"quantity": 10}, "invalid", "lines[0].quantity"),
        ({}, {"service_from": "2026-10-01"}, "missing_field", "lines[0].service_to"),
        (
            {},
            {"service_from": "2026-10-02", "service_to": "2026-10-01"},
            "invalid",
            "lines[0].service_to",
        ),
    ],
)
def test_each_mistake_is_refused_with_its_code_and_field(invoice, lookup, head, line, code, field):
    """A refusal is a 422 that names the field, so a connector can map it to a reason."""
    invoice["lines"][0] |= line
    with pytest.raises(Refused) as refused:
        check_invoice(invoice | head, lookup)
    assert (refused.value.status, refused.value.code, refused.value.where) == (422, code, field)


def test_yen_have_no_decimals(invoice, lookup):
    """Amounts follow the currency's minor unit."""
    checked = check_invoice(invoice | {"customer": "C-ANY", "currency": "JPY"}, lookup)
    assert (str(checked.net), str(checked.tax), str(checked.gross)) == ("15", "3", "18")
