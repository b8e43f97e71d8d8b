"""Golden cases of rating: each number here was worked out by hand."""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import pytest

from meterpost.core.errors import InvalidInput
from meterpost.core.money import Money
from meterpost.rating.model import WHOLE, Price, Share, WorkStep, rate, usage_split

D = Decimal
Make = Callable[..., Price]


def eur(text: str) -> Money:
    return Money(D(text), "EUR")


def test_tokens_at_a_price_of_seven_decimals(price: Make) -> None:
    """22,361,870 tokens at 0.0000025 are 55.904675, rounded once to 55.90."""
    charge = rate(D(22361870), price("per_unit", unit_price="0.0000025"), WHOLE)
    assert (charge.exact, charge.amount) == (D("55.904675"), eur("55.90"))
    assert str(charge.amount.amount) == "55.90"


def test_graduated_charges_each_tier_for_its_own_quantity(graduated: Price) -> None:
    """1,200 = 100 × 0.10 + 900 × 0.05 + 2 on entering + 200 × 0.01 = 59."""
    charge = rate(D(1200), graduated, WHOLE)
    assert charge.amount == eur("59.00")
    assert charge.working == (
        WorkStep("tier 1", D(100), D("0.10"), D(10)),
        WorkStep("tier 2", D(900), D("0.05"), D(45)),
        WorkStep("tier 2 fee", None, None, D(2)),
        WorkStep("tier 3", D(200), D("0.01"), D(2)),
    )


def test_late_usage_costs_what_the_tier_it_falls_into_costs(graduated: Price) -> None:
    """After 950, 100 late units are 50 in tier 2 and 50 in tier 3: the difference is 3.00."""
    before, after = rate(D(950), graduated, WHOLE), rate(D(1050), graduated, WHOLE)
    assert after.amount - before.amount == eur("3.00")


def test_usage_taken_back_gives_a_negative_difference(graduated: Price) -> None:
    """From 150 to 90 the entered tier's fee and 50 × 0.05 + 10 × 0.10 are credited."""
    before, after = rate(D(150), graduated, WHOLE), rate(D(90), graduated, WHOLE)
    assert after.amount - before.amount == eur("-5.50")


@pytest.mark.parametrize(
    ("quantity", "tiers"),
    [("0", ["tier 1"]), ("100", ["tier 1"]), ("100.000000001", ["tier 1", "tier 2", "tier 2 fee"])],
)
def test_a_graduated_tier_is_entered_above_the_bound_before(
    graduated: Price, quantity: str, tiers: list[str]
) -> None:
    """Exactly at a bound the next tier is untouched and its fee is not due."""
    assert [step.label for step in rate(D(quantity), graduated, WHOLE).working] == tiers


@pytest.mark.parametrize(
    ("quantity", "amount"),
    [("0", "0.00"), ("10", "10.00"), ("10.5", "13.40"), ("100", "85.00"), ("101", "50.50")],
)
def test_volume_prices_everything_at_the_tier_reached(
    price: Make, quantity: str, amount: str
) -> None:
    """A bound belongs to its tier; one more unit moves the whole quantity to the next price."""
    tiers = [
        {"up_to": "10", "unit_price": "1"},
        {"up_to": "100", "unit_price": "0.8", "flat_fee": "5"},
        {"unit_price": "0.5"},
    ]
    assert rate(D(quantity), price("volume", tiers=tiers), WHOLE).amount == eur(amount)


@pytest.mark.parametrize(
    ("quantity", "packages"), [("0", 0), ("0.001", 1), ("1000", 1), ("1000.1", 2), ("2000", 2)]
)
def test_a_started_package_is_a_whole_one(price: Make, quantity: str, packages: int) -> None:
    """Exactly full packages start no further one; nothing used starts none."""
    charge = rate(D(quantity), price("package", package_size=1000, package_price="3.5"), WHOLE)
    assert charge.exact == packages * D("3.5")
    assert charge.working == (WorkStep("packages", D(packages), D("3.5"), charge.exact),)


@pytest.mark.parametrize("quantity", ["0", "17.5"])
def test_flat_is_due_whatever_was_used(price: Make, quantity: str) -> None:
    """The fixed fee is one amount per period, zero usage included."""
    assert rate(D(quantity), price("flat", flat_amount="49"), WHOLE).amount == eur("49.00")


def test_zero_usage_is_billed_the_minimum(price: Make) -> None:
    """The minimum tops up what the model gave, from nothing too."""
    per_unit = price("per_unit", unit_price="0.5", minimum="20")
    charge = rate(D(0), per_unit, WHOLE)
    assert charge.amount == eur("20.00")
    assert charge.working[-1] == WorkStep("minimum", None, None, D(20))
    assert rate(D(30), per_unit, WHOLE).working[-1] == WorkStep("minimum", None, None, D(5))


@pytest.mark.parametrize("quantity", ["40", "40.01"])
def test_a_minimum_that_is_reached_adds_nothing(price: Make, quantity: str) -> None:
    """At and above the minimum the model's own amount stands."""
    charge = rate(D(quantity), price("per_unit", unit_price="0.5", minimum="20"), WHOLE)
    assert [step.label for step in charge.working] == ["usage"]


def test_included_quantity_is_taken_before_the_tiers(price: Make) -> None:
    """120 with 50 included leave 70 in the first tier of 100: included moves no tier bound."""
    tiers = [{"up_to": 100, "unit_price": "1"}, {"unit_price": "0.1"}]
    charge = rate(D(120), price("graduated", tiers=tiers, included=50), WHOLE)
    assert charge.amount == eur("70.00")
    split = usage_split(charge)
    assert (split.included, split.charged) == (D(50), D(70))


def test_included_above_the_quantity_leaves_nothing_to_charge(price: Make) -> None:
    """Unused included quantity is no credit: the charge is zero, and all usage was included."""
    charge = rate(D("7.25"), price("per_unit", unit_price="3", included="100"), WHOLE)
    assert charge.amount == eur("0.00")
    assert usage_split(charge).included == D("7.25")
    assert usage_split(charge).charged == 0


def test_a_third_of_a_period_scales_everything_but_unit_prices(price: Make) -> None:
    """200 included, bound 100 and minimum 10, by a third: 66⅔ included, 33⅓ in tier 1, 50 in 2."""
    tiers = [{"up_to": 100, "unit_price": "0.3"}, {"unit_price": "0.09", "flat_fee": "6"}]
    tiered = price("graduated", tiers=tiers, included=200, minimum=10)
    charge = rate(D(150), tiered, Share(1, 3))
    assert charge.exact == D("16.50")  # 33⅓ × 0.3 + 50 × 0.09 + 6 × ⅓
    assert [step.label for step in charge.working] == ["included", "tier 1", "tier 2", "tier 2 fee"]
    assert sum(step.amount for step in charge.working) == charge.exact
    assert rate(D(0), tiered, Share(1, 3)).amount == eur("3.33")


def test_a_third_is_rounded_from_the_fraction_not_from_its_digits(price: Make) -> None:
    """⅓ × 0.015 is exactly half a cent and goes up, though no decimal writes a third."""
    charge = rate(D(0), price("flat", flat_amount="0.015"), Share(1, 3))
    assert (charge.exact, charge.amount) == (D("0.005"), eur("0.01"))


def test_packages_are_not_scaled(price: Make) -> None:
    """A package is a thing sold; a shorter period sells the same things."""
    pack = price("package", package_size=10, package_price=4)
    assert rate(D(25), pack, Share(1, 2)).amount == rate(D(25), pack, WHOLE).amount


def test_a_share_of_nothing_leaves_the_last_tier(graduated: Price) -> None:
    """With every bound scaled to zero all usage is above all bounds."""
    charge = rate(D(5), graduated, Share(0, 30))
    assert [(step.label, step.quantity) for step in charge.working] == [("tier 3", D(5))]


@pytest.mark.parametrize(
    ("currency", "amount"), [("JPY", "1"), ("EUR", "1.23"), ("KWD", "1.235"), ("CLF", "1.2346")]
)
def test_the_currency_says_how_many_decimals(currency: str, amount: str) -> None:
    """Rounded half up to the minor unit: none for yen, three for dinar, four for UF."""
    one = Price("p", currency, "per_unit", unit_price=D("1.23455"))  # type: ignore[arg-type]
    assert str(rate(D(1), one, WHOLE).amount.amount) == amount


@pytest.mark.parametrize(
    ("quantity", "code"),
    [
        ("-0.000000001", "negative-quantity"),
        ("NaN", "not-a-number"),
        ("-Infinity", "not-a-number"),
        ("1e38", "too-many-digits"),
        ("1e-41", "too-many-digits"),
        ("1e999999", "too-many-digits"),
        ("0." + "1" * 200, "too-many-digits"),
    ],
)
def test_a_quantity_that_cannot_be_billed_is_refused(
    graduated: Price, quantity: str, code: str
) -> None:
    """Never a silent charge: the problem names the quantity and the price."""
    with pytest.raises(InvalidInput) as refused:
        rate(D(quantity), graduated, WHOLE)
    assert [problem.code for problem in refused.value.problems] == [code]
    assert "p-1" in str(refused.value)


def test_a_float_quantity_is_a_mistake_of_the_caller(graduated: Price) -> None:
    """Quantities are Decimal from arrival on; anything else is a programming error."""
    with pytest.raises(TypeError, match="not float"):
        rate(1.5, graduated, WHOLE)  # type: ignore[arg-type]


def test_the_largest_numbers_keep_every_digit(price: Make) -> None:
    """38 digits × 18 digits × a share of 18 digits: exact, or it would raise."""
    most = price("per_unit", unit_price="9" * 18 + "." + "9" * 18, minimum="9" * 18, included="1")
    quantity = D("9" * 38 + "." + "9" * 20)
    charge = rate(quantity, most, Share(10**18 - 1, 10**18))
    covered = D(10**18 - 1).scaleb(-18)
    assert usage_split(charge).included == covered
    assert Fraction(charge.exact) == sum(Fraction(step.amount) for step in charge.working)
    assert len(charge.exact.as_tuple().digits) == 94


def test_the_explanation_reads_as_sentences(price: Make) -> None:
    """Every step, the share before and the rounding after."""
    tiers = [{"up_to": 100, "unit_price": "0.3"}, {"unit_price": "0.09", "flat_fee": "6"}]
    charge = rate(D(90), price("graduated", tiers=tiers, minimum="60"), Share(1, 3))
    assert charge.explain("GB") == (
        "Quantity: 90 GB.",
        "In force for 1/3 of the period: included quantity, tier bounds, fixed amounts and the "
        "minimum count for that share.",
        "Tier 1 (up to 33.333333333333…): 33.333333333333… GB × 0.3 EUR = 10 EUR.",
        "Tier 2 (above 33.333333333333…): 56.666666666666… GB × 0.09 EUR = 5.1 EUR.",
        "Tier 2 fee: 2 EUR.",
        "Minimum of 20 EUR not reached: 2.9 EUR more.",
        "Exactly 20 EUR, rounded once half up: 20.00 EUR.",
    )


def test_packages_and_included_are_explained(price: Make) -> None:
    """What was included and how many packages were started."""
    pack = price("package", package_size=10, package_price=4, included=5)
    assert rate(D(26), pack, WHOLE).explain("calls")[1:3] == (
        "Included in the price: 5 calls at no charge.",
        "Packages: 3 started, each 10 calls × 4 EUR = 12 EUR.",
    )


def test_a_charge_is_stored_without_losing_a_digit(price: Make) -> None:
    """JSON's own types only, every number a string."""
    charge = rate(D("1500.50"), price("per_unit", unit_price="0.001", included=500), WHOLE)
    assert charge.to_plain() == {
        "price": "p-1",
        "model": "per_unit",
        "currency": "EUR",
        "share": "1/1",
        "quantity": "1500.5",
        "included": "500",
        "exact": "1.0005",
        "amount": "1.00",
        "working": [
            {"label": "included", "quantity": "500", "unit_price": "0", "amount": "0"},
            {"label": "usage", "quantity": "1000.5", "unit_price": "0.001", "amount": "1.0005"},
        ],
    }
