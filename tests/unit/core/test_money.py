"""Money and quantities."""

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterpost.core.money import Money, Quantity, minor_units, round_half_up

amounts = st.decimals("-1e20", "1e20", places=9, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("value", "decimals", "rounded"),
    [
        ("0.005", 2, "0.01"),
        ("-0.005", 2, "-0.01"),
        ("0.00499999999999999999999999999999999999999", 2, "0.00"),
        ("-0.001", 2, "0.00"),
        ("2.5", 0, "3"),
        ("55.904675", 2, "55.90"),
        ("1", 3, "1.000"),
    ],
)
def test_halves_go_away_from_zero(value: str, decimals: int, rounded: str) -> None:
    """Commercial rounding with all decimals written, and no negative zero."""
    assert str(round_half_up(Decimal(value), decimals)) == rounded


@given(amounts, st.integers(0, 4))
def test_rounding_moves_by_half_a_unit_at_most(value: Decimal, decimals: int) -> None:
    """And rounding a rounded amount changes nothing."""
    rounded = round_half_up(value, decimals)
    assert abs(Fraction(rounded) - Fraction(value)) <= Fraction(1, 2 * 10**decimals)
    assert round_half_up(rounded, decimals) == rounded


@pytest.mark.parametrize(("currency", "digits"), [("EUR", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4)])
def test_minor_units_follow_iso_4217(currency: str, digits: int) -> None:
    """Two decimals unless the standard says otherwise."""
    assert minor_units(currency) == digits
    assert str(Money(Decimal(1), currency).rounded().amount) == f"{Decimal(1):.{digits}f}"


@given(amounts, amounts, amounts)
def test_adding_is_exact_in_any_order(a: Decimal, b: Decimal, c: Decimal) -> None:
    """Sums do not depend on their order, and what was added can be taken off again."""
    x, y, z = (Money(value, "EUR") for value in (a, b, c))
    assert x + y + z == z + y + x
    assert x + y - y == x
    assert Fraction((x + y).amount) == Fraction(a) + Fraction(b)


@given(amounts, amounts)
def test_a_callers_context_does_not_round_money(a: Decimal, b: Decimal) -> None:
    """A library that narrows the decimal context must not change an invoice."""
    with localcontext() as narrow:
        narrow.prec = 3
        total, product = Money(a, "EUR") + Money(b, "EUR"), Money(a, "EUR") * b
    assert Fraction(total.amount) == Fraction(a) + Fraction(b)
    assert Fraction(product.amount) == Fraction(a) * Fraction(b)


def test_currencies_do_not_mix() -> None:
    """Adding francs to euros is a mistake, not a number."""
    with pytest.raises(ValueError, match="cannot add CHF to EUR"):
        Money.zero("EUR") + Money.zero("CHF")
    with pytest.raises(ValueError, match="cannot add"):
        Money.zero("EUR") - Money.zero("CHF")


@pytest.mark.parametrize("currency", ["", "eur", "EURO", "E1R", "ÄÖÜ", "E R", "123"])
def test_a_currency_is_three_capital_letters(currency: str) -> None:
    """ISO 4217 codes are plain Latin letters."""
    with pytest.raises(ValueError, match="ISO 4217"):
        Money(Decimal(1), currency)


def test_money_is_a_finite_decimal() -> None:
    """Floats are a mistake of the caller; not-a-number is no amount."""
    with pytest.raises(TypeError, match="not float"):
        Money(1.5, "EUR")  # type: ignore[arg-type]
    for odd in ("NaN", "Infinity", "-Infinity"):
        with pytest.raises(ValueError, match="not an amount"):
            Money(Decimal(odd), "EUR")
    with pytest.raises(ValueError, match="not an amount"):
        Money(Decimal(1), "EUR") * Decimal("NaN")


def test_money_and_quantities_read_well() -> None:
    """Thousands are grouped in money; quantities are plain."""
    assert str(Money(Decimal("1234567.5"), "EUR").rounded()) == "1,234,567.50 EUR"
    assert str(Money(Decimal("-0.004"), "EUR").rounded()) == "0.00 EUR"
    assert str(Quantity(Decimal("1.500E+3"), "GB")) == "1500 GB"
