"""Prices the rating tests share, and how hypothesis draws more of them."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

from meterpost.rating.model import Price, price_from_plain

# The machine may be busy; how long an example takes is no property.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture
def price() -> Callable[..., Price]:
    """Makes a price from keyword fields; numbers are strings, as in a contract file."""

    def make(model: str, **fields: Any) -> Price:
        return price_from_plain({"id": "p-1", "currency": "EUR", "model": model, **fields})

    return make


@pytest.fixture
def graduated(price: Callable[..., Price]) -> Price:
    """0.10 up to 100, 0.05 up to 1000, then 0.01; entering the second tier costs 2."""
    return price(
        "graduated",
        tiers=[
            {"up_to": 100, "unit_price": "0.10"},
            {"up_to": 1000, "unit_price": "0.05", "flat_fee": 2},
            {"unit_price": "0.01"},
        ],
    )
