"""Money and quantities: exact decimals that know their currency or unit."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal, localcontext

from meterpost.core.canonical import plain_decimal

#: Wide enough for 38-digit sums times 18-digit prices without losing a digit.
EXACT = Context(prec=80, rounding=ROUND_HALF_EVEN)

#: Bounds of a metered value, checked on arrival (docs/metering.md, "Numbers").
VALUE_DIGITS_MAX = 18
VALUE_SCALE_MAX = 9

# ISO 4217 currencies whose minor unit is not 2 digits (amendment 179, 2025-06).
_MINOR_UNITS = {
    **dict.fromkeys(
        ("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF").split(), 0
    ),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
    **dict.fromkeys("CLF UYW".split(), 4),
}


def minor_units(currency: str) -> int:
    """How many decimals the currency is settled in (EUR 2, JPY 0, KWD 3)."""
    return _MINOR_UNITS.get(currency, 2)


def round_half_up(value: Decimal, decimals: int) -> Decimal:
    """Commercial rounding: halves go away from zero."""
    with localcontext(EXACT):
        # The plus turns -0.00, which -0.001 rounds to, into 0.00.
        return +value.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_UP)


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in one currency. Arithmetic is exact; only `rounded` rounds."""

    amount: Decimal
    currency: str

    def __post_init__(self) -> None:
        if not isinstance(self.amount, Decimal):
            raise TypeError(f"money needs a Decimal, not {type(self.amount).__name__}")
        if not self.amount.is_finite():
            raise ValueError(f"{self.amount} is not an amount of money")
        code = self.currency
        if len(code) != 3 or not (code.isascii() and code.isalpha() and code.isupper()):
            raise ValueError(f"{self.currency!r} is not an ISO 4217 currency code such as EUR")

    @classmethod
    def zero(cls, currency: str) -> Money:
        """Nothing, in that currency."""
        return cls(Decimal(0), currency)

    def __add__(self, other: Money) -> Money:
        self._require_same(other)
        with localcontext(EXACT):
            return Money(self.amount + other.amount, self.currency)

    def __sub__(self, other: Money) -> Money:
        return self + -other

    def __neg__(self) -> Money:
        with localcontext(EXACT):
            return Money(-self.amount, self.currency)

    def __mul__(self, factor: Decimal | int) -> Money:
        with localcontext(EXACT):
            return Money(self.amount * factor, self.currency)

    def rounded(self) -> Money:
        """The amount in whole minor units, halves away from zero."""
        return Money(round_half_up(self.amount, minor_units(self.currency)), self.currency)

    def __str__(self) -> str:
        return f"{self.amount:,f} {self.currency}"

    def _require_same(self, other: Money) -> None:
        if other.currency != self.currency:
            raise ValueError(
                f"cannot add {other.currency} to {self.currency}; convert with a stated rate first"
            )


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of units."""

    value: Decimal
    unit: str

    def __str__(self) -> str:
        return f"{plain_decimal(self.value)} {self.unit}"
