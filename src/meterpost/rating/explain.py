"""A charge's working in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from meterpost.core.canonical import plain_decimal
from meterpost.core.money import EXACT
from meterpost.rating.price import PriceModel

if TYPE_CHECKING:
    from meterpost.rating.model import Charge, WorkStep

#: Decimals shown of a number that has more; the rest is marked by an ellipsis.
_SHOWN_DECIMALS = 12


def sentences(charge: Charge, unit: str) -> tuple[str, ...]:
    """One sentence per step, the period's share before and the rounding after them."""
    return tuple(_sentences(charge, unit))


def _sentences(charge: Charge, unit: str) -> Iterator[str]:
    price = charge.price
    currency = price.currency
    yield f"Quantity: {_number(charge.quantity)} {unit}."
    if not charge.share.is_whole:
        yield (
            f"In force for {charge.share} of the period: included quantity, tier bounds, fixed "
            "amounts and the minimum count for that share."
        )
    for step in charge.working:
        amount = f"{_number(step.amount)} {currency}"
        if step.label == "included":
            assert step.quantity is not None
            yield f"Included in the price: {_number(step.quantity)} {unit} at no charge."
        elif step.label == "minimum":
            minimum = _number(_scaled(price.minimum, charge))
            yield f"Minimum of {minimum} {currency} not reached: {amount} more."
        elif step.quantity is None or step.unit_price is None:
            yield f"{_named(step, charge)}: {amount}."
        else:
            counted = f"{_number(step.quantity)} {unit}"
            if price.model is PriceModel.PACKAGE:
                assert price.package_size is not None
                counted = f"{_number(step.quantity)} started, each {_number(price.package_size)} "
                counted += unit
            product = f"{counted} × {_number(step.unit_price)} {currency} = {amount}"
            yield f"{_named(step, charge)}: {product}."
    yield f"Exactly {_number(charge.exact)} {currency}, rounded once half up: {charge.amount}."


def _named(step: WorkStep, charge: Charge) -> str:
    """The step's label, for a tier with its bounds."""
    name = step.label.capitalize()
    if not step.label.startswith("tier ") or step.quantity is None:
        return name
    index = int(step.label.split()[1]) - 1
    tiers = charge.price.tiers
    lower = tiers[index - 1].up_to if index else None
    upper = tiers[index].up_to
    bounds = [f"above {_number(_scaled(lower, charge))}"] if lower is not None else []
    if upper is not None:
        bounds.append(f"up to {_number(_scaled(upper, charge))}")
    return f"{name} ({', '.join(bounds)})" if bounds else name


def _scaled(value: Decimal, charge: Charge) -> Fraction:
    return Fraction(value) * Fraction(charge.share.numerator, charge.share.denominator)


def _number(value: Decimal | Fraction) -> str:
    """Plain digits, cut (not rounded) after the twelfth decimal and then marked."""
    exact = Fraction(value)
    shown = Decimal(int(exact * 10**_SHOWN_DECIMALS)).scaleb(-_SHOWN_DECIMALS, EXACT)
    return plain_decimal(shown) + ("" if Fraction(shown) == exact else "…")
