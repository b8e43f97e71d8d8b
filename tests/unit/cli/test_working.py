"""The stored working of an amount, in sentences."""

from __future__ import annotations

from decimal import Decimal

from meterpost.core.ids import PriceId
from meterpost.operations.working import working_sentences
from meterpost.rating.model import Price, rate
from meterpost.rating.price import price_from_plain


def price(**plain: object) -> Price:
    return price_from_plain({"id": PriceId("P"), "currency": "EUR", **plain})


def test_each_step_of_a_graduated_price_is_a_sentence() -> None:
    """Included quantity, tiers and the one rounding are all told."""
    charge = rate(
        Decimal(2500),
        price(
            model="graduated",
            included="500",
            tiers=[{"up_to": "1000", "unit_price": "0.013"}, {"unit_price": "0.01"}],
        ),
    )
    told = working_sentences(charge.to_plain(), "token")
    assert told[0] == "Quantity: 2500 token."
    assert "Included in the price: 500 token at no charge." in told
    assert any(sentence.startswith("Tier 1: 1000 token × 0.013 EUR = 13 EUR") for sentence in told)
    assert told[-1] == "Exactly 23 EUR, rounded once half up: 23.00 EUR."


def test_a_line_without_working_has_no_sentences() -> None:
    """A line that could not be priced tells nothing."""
    assert working_sentences({}, "token") == []
