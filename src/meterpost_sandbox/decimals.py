"""Exact decimals as this ERP keeps them: parsing, rounding, notation.

Written apart from meterpost's own arithmetic on purpose: a witness that shared the code would
share its mistakes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Context, Decimal

QUANTITY_DECIMALS = 5
PRICE_DECIMALS = 8
RATE_DECIMALS = 6
INTEGER_DIGITS = 18

# 18 + 5 digits times 18 + 8 digits, summed over a thousand lines, stays far below 80.
_EXACT = Context(prec=80, rounding=ROUND_HALF_UP)
_PLAIN = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?", re.ASCII)
_CURRENCY_DECIMALS = {
    "BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0,
    "RWF": 0, "UGX": 0, "UYI": 0, "VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
    "BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3,
    "CLF": 4, "UYW": 4,
}  # fmt: skip


class TooPrecise(ValueError):
    """The number has more digits than the field declares."""


def currency_decimals(currency: str) -> int:
    """Digits of the currency's minor unit (EUR 2, JPY 0, KWD 3)."""
    return _CURRENCY_DECIMALS.get(currency, 2)


def parse(text: str, decimals: int) -> Decimal:
    """The number written in plain notation, unrounded.

    Raises: TooPrecise for more decimals than declared (trailing zeros do not count) or more than
    18 digits before the point; ValueError for anything that is not a plain number.
    """
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"{text[:60]!r} is not a plain decimal number such as 12.50")
    whole, _, fraction = text.lstrip("-").partition(".")
    if len(fraction.rstrip("0")) > decimals:
        raise TooPrecise(f"{text} has more than {decimals} decimals")
    if len(whole.lstrip("0")) > INTEGER_DIGITS:
        raise TooPrecise(f"{text} has more than {INTEGER_DIGITS} digits before the point")
    return Decimal(text)


def rounded_product(left: Decimal, right: Decimal, decimals: int) -> Decimal:
    """Left × right, rounded once, halves away from zero."""
    product = _EXACT.multiply(left, right)
    return _without_negative_zero(_EXACT.quantize(product, Decimal(1).scaleb(-decimals)))


def total(amounts: Iterable[Decimal], decimals: int) -> Decimal:
    """The exact sum of amounts that have at most ``decimals`` decimals, written with exactly those.

    Raises: ValueError where an amount has more: a sum never rounds.
    """
    result = Decimal(0)
    for amount in amounts:
        result = _EXACT.add(result, amount)
    fixed = _EXACT.quantize(result, Decimal(1).scaleb(-decimals))
    if fixed != result:
        raise ValueError(f"{result} has more than {decimals} decimals")
    return _without_negative_zero(fixed)


def amount_text(value: Decimal) -> str:
    """The amount with the decimals it carries, never with an exponent."""
    return format(value, "f")


def plain_text(value: Decimal) -> str:
    """The shortest plain notation.

    >>> plain_text(Decimal("10.500")), plain_text(Decimal("-0.0"))
    ('10.5', '0')
    """
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _without_negative_zero(value: Decimal) -> Decimal:
    return abs(value) if value.is_zero() else value
