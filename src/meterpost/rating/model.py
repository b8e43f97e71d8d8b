"""What a quantity costs: the charge, its working, and the one place where it is rounded.

Every number is scaled by the denominator of the period's share, so tiers and minimums of a third
of a month are whole decimals here and nothing is divided before the end. See docs/rating.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import (
    ROUND_HALF_UP,
    Context,
    Decimal,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
)

from meterpost.core.canonical import plain_decimal
from meterpost.core.errors import InvalidInput
from meterpost.core.money import Money, minor_units
from meterpost.core.problem import Problem
from meterpost.rating.price import (
    Price,
    PriceModel,
    Tier,
    price_from_plain,
    price_problems,
)
from meterpost.rating.price_rules import TIERS_MAX
from meterpost.rating.share import WHOLE, PartialPeriod, Share, share_of

__all__ = [
    "WHOLE",
    "Charge",
    "PartialPeriod",
    "Price",
    "PriceModel",
    "Share",
    "Tier",
    "UsageSplit",
    "WorkStep",
    "price_from_plain",
    "price_problems",
    "rate",
    "share_of",
    "usage_split",
]

#: Amounts and quantities that a share makes endless (a third) are written with this many
#: decimals. They are never calculated with: the charge is rounded from the fraction itself.
WORKING_SCALE = 40
#: A quantity has at most this many digits before the point.
QUANTITY_DIGITS_MAX = 38

# Holds any sum of tiers of the largest quantity, price and share (38 + 18 + 18 digits before the
# point, 40 + 18 after), and raises rather than lose a digit.
_CALC = Context(prec=160, traps=[DivisionByZero, Inexact, InvalidOperation, Overflow])
_ROUND = Context(prec=160, rounding=ROUND_HALF_UP, traps=[InvalidOperation])
_ZERO = Decimal(0)
_ONE = Decimal(1)
_FINEST_QUANTITY = _ONE.scaleb(-WORKING_SCALE)
_TIER_LABELS = tuple(f"tier {number}" for number in range(TIERS_MAX + 1))
_MINOR = tuple(_ONE.scaleb(-decimals) for decimals in range(5))

#: A step while it is worked out: label, quantity, unit price, amount (both times the denominator).
_Step = tuple[str, Decimal | None, Decimal | None, Decimal]


@dataclass(frozen=True, slots=True)
class WorkStep:
    """One line of the working.

    ``label`` is ``included``, ``usage``, ``tier 1``…, ``tier 1 fee``…, ``packages``, ``fixed fee``
    or ``minimum``. ``quantity`` is in metered units (packages: how many), ``unit_price`` and
    ``amount`` in the price's currency; fees and the minimum have neither quantity nor unit price.
    """

    label: str
    quantity: Decimal | None
    unit_price: Decimal | None
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Charge:
    """An amount and how it came about.

    ``amount`` is the truth: rounded once, half up, to the currency's minor unit. ``exact`` is the
    amount before, and the steps' amounts add up to it digit by digit; where a share makes it
    endless, it is written with 40 decimals. ``included`` is the part of ``quantity`` that cost
    nothing because the price includes it.
    """

    amount: Money
    exact: Decimal
    working: tuple[WorkStep, ...]
    quantity: Decimal
    included: Decimal
    price: Price
    share: Share

    def explain(self, unit: str = "units") -> tuple[str, ...]:
        """The working in sentences, for a reviewer or a customer."""
        # Sentences are written for the few charges someone reads, not for all that are rated.
        from meterpost.rating.explain import sentences

        return sentences(self, unit)

    def to_plain(self) -> dict[str, object]:
        """The charge in JSON's types, numbers as strings: what is stored beside the line."""
        return {
            "price": self.price.id,
            "model": self.price.model.value,
            "currency": self.amount.currency,
            "share": str(self.share),
            "quantity": plain_decimal(self.quantity),
            "included": plain_decimal(self.included),
            "exact": plain_decimal(self.exact),
            "amount": format(self.amount.amount, "f"),
            "working": [
                {
                    "label": step.label,
                    "quantity": None if step.quantity is None else plain_decimal(step.quantity),
                    "unit_price": None
                    if step.unit_price is None
                    else plain_decimal(step.unit_price),
                    "amount": plain_decimal(step.amount),
                }
                for step in self.working
            ],
        }


@dataclass(frozen=True, slots=True)
class UsageSplit:
    """A quantity in the two cells of the quantity ledger; they add up to it exactly."""

    included: Decimal
    charged: Decimal


def usage_split(charge: Charge) -> UsageSplit:
    """How much of the quantity the price included, and how much was charged."""
    return UsageSplit(charge.included, _CALC.subtract(charge.quantity, charge.included))


def rate(quantity: Decimal, price: Price, partial: Share = WHOLE) -> Charge:
    """What the quantity costs: included quantity first, then the model, then the minimum.

    ``partial`` scales included quantity, tier bounds, fixed amounts and the minimum, never unit
    prices or package sizes. The result depends on the three arguments alone.

    Raises: InvalidInput for a quantity that is negative, not a number or too long.
    Source: docs/rating.md.
    """
    quantity = _checked(quantity, price)
    steps: list[_Step] = []
    if partial.numerator == partial.denominator:
        over = share = _ONE
        units, included, minimum = quantity, price.included, price.minimum
    else:
        over, share = Decimal(partial.denominator), Decimal(partial.numerator)
        units = _CALC.multiply(quantity, over)
        included = _CALC.multiply(price.included, share)
        minimum = _CALC.multiply(price.minimum, share)

    covered = min(included, units)
    charged = units
    if covered:
        charged = _CALC.subtract(units, covered)
        steps.append(("included", covered, _ZERO, _ZERO))

    total = _ZERO
    for step in _MODELS[price.model](charged, price, share, over):
        steps.append(step)
        total = _CALC.add(total, step[3])
    if total < minimum:
        steps.append(("minimum", None, None, _CALC.subtract(minimum, total)))
        total = minimum

    decimals = minor_units(price.currency)
    if over is _ONE:
        exact, working = total, tuple([WorkStep(*step) for step in steps])
        amount = total.quantize(_MINOR[decimals], context=_ROUND)
    else:
        exact, working = _written(steps, partial.denominator)
        amount = _divided(total, partial.denominator, decimals)
        covered = _readable(_divided(covered, partial.denominator, WORKING_SCALE))
    return Charge(Money(amount, price.currency), exact, working, quantity, covered, price, partial)


# Models: each gives its steps, with quantities and amounts times the share's denominator ---------


def _flat(charged: Decimal, price: Price, share: Decimal, over: Decimal) -> list[_Step]:
    assert price.flat_amount is not None
    return [("fixed fee", None, None, _CALC.multiply(price.flat_amount, share))]


def _per_unit(charged: Decimal, price: Price, share: Decimal, over: Decimal) -> list[_Step]:
    assert price.unit_price is not None
    return [("usage", charged, price.unit_price, _CALC.multiply(charged, price.unit_price))]


def _graduated(charged: Decimal, price: Price, share: Decimal, over: Decimal) -> list[_Step]:
    steps: list[_Step] = []
    lower = _ZERO
    for number, tier in enumerate(price.tiers, 1):
        upper = charged
        if tier.up_to is not None:
            bound = tier.up_to if share is _ONE else _CALC.multiply(tier.up_to, share)
            if bound < charged:
                upper = bound
        part = _CALC.subtract(upper, lower)
        # A share of zero leaves every bound at zero, so an empty tier may come before a full one.
        if part or not charged:
            steps.extend(_in_tier(number, part, tier, share))
        if upper is charged:
            break
        lower = upper
    return steps


def _volume(charged: Decimal, price: Price, share: Decimal, over: Decimal) -> list[_Step]:
    for number, tier in enumerate(price.tiers, 1):
        if tier.up_to is None or charged <= _CALC.multiply(tier.up_to, share):
            return _in_tier(number, charged, tier, share)
    raise AssertionError(f"price {price.id} has no last tier; Price checks that it has")


def _in_tier(number: int, part: Decimal, tier: Tier, share: Decimal) -> list[_Step]:
    label = _TIER_LABELS[number]
    steps: list[_Step] = [(label, part, tier.unit_price, _CALC.multiply(part, tier.unit_price))]
    if tier.flat_fee and part:
        steps.append((f"{label} fee", None, None, _CALC.multiply(tier.flat_fee, share)))
    return steps


def _package(charged: Decimal, price: Price, share: Decimal, over: Decimal) -> list[_Step]:
    assert price.package_size is not None
    assert price.package_price is not None
    count, rest = _CALC.divmod(charged, _CALC.multiply(price.package_size, over))
    if rest:
        count = _CALC.add(count, _ONE)
    amount = _CALC.multiply(_CALC.multiply(count, price.package_price), over)
    return [("packages", count, price.package_price, amount)]


_MODELS = {
    PriceModel.FLAT: _flat,
    PriceModel.PER_UNIT: _per_unit,
    PriceModel.GRADUATED: _graduated,
    PriceModel.VOLUME: _volume,
    PriceModel.PACKAGE: _package,
}


# The end: division by the share's denominator ----------------------------------------------------


def _divided(value: Decimal, denominator: int, decimals: int) -> Decimal:
    """``value / denominator`` (both not negative), rounded half up in whole numbers, once."""
    top, bottom = value.as_integer_ratio()
    bottom *= denominator
    return Decimal((2 * top * 10**decimals + bottom) // (2 * bottom)).scaleb(-decimals, _ROUND)


def _written(steps: list[_Step], denominator: int) -> tuple[Decimal, tuple[WorkStep, ...]]:
    """The exact amount and the steps, as decimals that add up.

    Each running total is written to 40 decimals and a step is the difference of two of them, so
    nothing of a third is lost or doubled between the steps.
    """
    working = []
    amounts = quantities = amount_before = quantity_before = _ZERO
    for label, quantity, unit_price, amount in steps:
        amounts = _CALC.add(amounts, amount)
        amount_now = _divided(amounts, denominator, WORKING_SCALE)
        # Packages are counted, and a count is not scaled.
        if quantity is not None and label != "packages":
            quantities = _CALC.add(quantities, quantity)
            quantity_now = _divided(quantities, denominator, WORKING_SCALE)
            quantity = _readable(_CALC.subtract(quantity_now, quantity_before))
            quantity_before = quantity_now
        step = _readable(_CALC.subtract(amount_now, amount_before))
        working.append(WorkStep(label, quantity, unit_price, step))
        amount_before = amount_now
    return _readable(amount_before), tuple(working)


def _readable(value: Decimal) -> Decimal:
    """The same number without trailing zeros after the point."""
    short = value.normalize(_CALC)
    return short if short.as_tuple().exponent <= 0 else short.quantize(_ONE, context=_CALC)  # type: ignore[operator]  # finite: never a letter


def _checked(quantity: Decimal, price: Price) -> Decimal:
    """The quantity, finite, not negative and short enough that nothing can be lost."""
    if not isinstance(quantity, Decimal):
        raise TypeError(f"a quantity is a Decimal, not {type(quantity).__name__}")
    if not quantity.is_finite():
        raise _refused(price, "not-a-number", f"{quantity} is not a quantity.")
    if not quantity:
        return _ZERO
    if quantity < 0:
        raise _refused(
            price,
            "negative-quantity",
            f"{quantity} is below zero.",
            "Usage that was taken back lowers the period's quantity, and the difference is "
            "credited; see what made the total negative.",
        )
    try:
        _CALC.quantize(quantity, _FINEST_QUANTITY)
    except (Inexact, InvalidOperation):
        too_long = True
    else:
        too_long = quantity.adjusted() >= QUANTITY_DIGITS_MAX
    if too_long:
        raise _refused(
            price,
            "too-many-digits",
            f"a quantity has at most {QUANTITY_DIGITS_MAX} digits before and {WORKING_SCALE} "
            "after the point.",
        )
    return quantity


def _refused(price: Price, code: str, sentence: str, hint: str = "") -> InvalidInput:
    return InvalidInput(
        f"Price {price.id} was asked for a quantity that cannot be billed.",
        [Problem(code, sentence, "quantity", hint)],
    )
