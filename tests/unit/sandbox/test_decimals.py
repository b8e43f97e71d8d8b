from decimal import Decimal

import pytest

from meterpost_sandbox import decimals


@pytest.mark.parametrize(
    ("quantity", "price", "places", "net"),
    [
        ("22361870", "0.0000025", 2, "55.90"),
        ("1", "0.005", 2, "0.01"),
        ("-1", "0.005", 2, "-0.01"),
        ("1", "0.00499999", 2, "0.00"),
        ("-1", "0.001", 2, "0.00"),
        ("3", "0.5", 0, "2"),
        ("1", "0.0005", 3, "0.001"),
        ("9" * 18 + "." + "9" * 5, "9" * 18, 2, "9" * 17 + "8" + "9" * 5 + "0" * 13 + ".00"),
    ],
)
def test_line_net_rounds_halves_away_from_zero(quantity, price, places, net):
    """Quantity × price is exact at any size and rounded once; zero has no sign."""
    product = decimals.rounded_product(Decimal(quantity), Decimal(price), places)
    assert decimals.amount_text(product) == net


@pytest.mark.parametrize("text", ["", "1e3", "NaN", "+1", " 1", "1,5", ".5", "١", "1.", "9" * 41])
def test_only_plain_notation_is_a_number(text):
    """Anything but digits, one point and a minus is refused, foreign digits too."""
    with pytest.raises(ValueError, match="not a plain decimal"):
        decimals.parse(text, 5)


def test_more_precision_than_declared_is_refused_never_rounded():
    """Trailing zeros do not count as decimals, real ones do; 18 digits fit before the point."""
    assert decimals.parse("1.1234500", 5) == Decimal("1.12345")
    with pytest.raises(decimals.TooPrecise):
        decimals.parse("1.123456", 5)
    with pytest.raises(decimals.TooPrecise):
        decimals.parse("1" * 19, 5)


def test_a_sum_never_rounds():
    """Amounts finer than the currency are a defect, and total() says so."""
    assert decimals.total((Decimal("0.10"), Decimal("-0.1")), 2) == Decimal("0.00")
    with pytest.raises(ValueError, match="more than 2 decimals"):
        decimals.total((Decimal("0.001"),), 2)
