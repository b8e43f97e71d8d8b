"""Prices: what is accepted, and every reason why one is not."""

from decimal import Decimal
from typing import Any

import pytest

from meterpost.core.errors import InvalidInput
from meterpost.core.ids import PriceId
from meterpost.rating.price import Price, PriceModel, Tier, price_from_plain, price_problems

D = Decimal


def plain(model: str = "per_unit", **fields: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"id": "p", "currency": "EUR", "model": model}
    if model == "per_unit":
        base["unit_price"] = "1"
    return base | fields


def tiered(*bounds: Any) -> dict[str, Any]:
    return plain("graduated", tiers=[{"up_to": up_to, "unit_price": "1"} for up_to in bounds])


def test_a_mapping_becomes_a_price_with_exact_numbers() -> None:
    """Strings, whole numbers and exponents are read as decimals, never through a float."""
    price = price_from_plain(
        plain(
            "graduated",
            tiers=[{"up_to": 1000, "unit_price": "2.5e-6"}, {"unit_price": D("0.1")}],
            included="12.50",
        )
    )
    assert price == Price(
        PriceId("p"),
        "EUR",
        PriceModel.GRADUATED,
        tiers=(Tier(D(1000), D("0.0000025")), Tier(None, D("0.1"))),
        included=D("12.5"),
    )


def test_writing_and_reading_gives_the_same_price() -> None:
    """to_plain holds only what says something, in plain digits."""
    mapping = plain("package", package_size="10", package_price="0.0000025", minimum="3.5")
    assert price_from_plain(mapping).to_plain() == mapping


@pytest.mark.parametrize(
    ("mapping", "where", "code"),
    [
        ({}, "id", "missing"),
        ({}, "currency", "missing"),
        ({}, "model", "missing"),
        (plain(colour="red"), "colour", "unknown-key"),
        (plain(id=7), "id", "wrong-type"),
        (plain(id="x" * 201), "id", "too-long"),
        (plain(currency="euro"), "currency", "bad-currency"),
        (plain(model="magic"), "model", "unknown-model"),
        (plain(unit_price=None), "unit_price", "missing"),
        (plain(unit_price=0.5), "unit_price", "float"),
        (plain(unit_price=True), "unit_price", "wrong-type"),
        (plain(unit_price=[1]), "unit_price", "wrong-type"),
        (plain(unit_price="1,50"), "unit_price", "not-a-number"),
        (plain(unit_price="NaN"), "unit_price", "not-a-number"),
        (plain(unit_price=D("NaN")), "unit_price", "not-a-number"),
        (plain(unit_price="1_000"), "unit_price", "not-a-number"),
        (plain(unit_price="1e99"), "unit_price", "out-of-bounds"),
        (plain(unit_price=10**5000), "unit_price", "out-of-bounds"),
        (plain(unit_price="0." + "1" * 19), "unit_price", "out-of-bounds"),
        (plain(unit_price="-1"), "unit_price", "negative"),
        (plain(included="-1"), "included", "negative"),
        (plain(minimum="-0.01"), "minimum", "negative"),
        (plain(flat_amount="1"), "flat_amount", "superfluous"),
        (plain(tiers=[{"unit_price": 1}]), "tiers", "superfluous"),
        (plain("flat"), "flat_amount", "missing"),
        (plain("package", package_price=1), "package_size", "missing"),
        (plain("package", package_price=1, package_size=0), "package_size", "not-positive"),
        (plain("package", package_price=1, package_size=-5), "package_size", "negative"),
        (plain("volume"), "tiers", "missing"),
        (plain("volume", tiers=[]), "tiers", "missing"),
        (plain("volume", tiers="all"), "tiers", "wrong-type"),
        (plain("volume", tiers=["all"]), "tiers[0]", "wrong-type"),
        (plain("volume", tiers=[{"up_to": None}]), "tiers[0].unit_price", "missing"),
        (plain("volume", tiers=[{"price": 1}]), "tiers[0].price", "unknown-key"),
        (plain("volume", tiers=[{"unit_price": 0.1}]), "tiers[0].unit_price", "float"),
        (plain("volume", tiers=[{"unit_price": -1}]), "tiers[0].unit_price", "negative"),
        (plain("volume", tiers=[{"unit_price": 1}] * 101), "tiers", "too-many"),
        (tiered(10, 5, None), "tiers[1].up_to", "unordered-tiers"),
        (tiered(10, 10, None), "tiers[1].up_to", "unordered-tiers"),
        (tiered(0, None), "tiers[0].up_to", "not-positive"),
        (tiered(-1, None), "tiers[0].up_to", "negative"),
        (tiered(None, 10, None), "tiers[0].up_to", "unbounded-tier"),
        (tiered(10, 20), "tiers[1].up_to", "bounded-last-tier"),
    ],
)
def test_what_is_wrong_is_named_with_its_field(
    mapping: dict[str, Any], where: str, code: str
) -> None:
    """Each mistake has a stable code and the path of the field that holds it."""
    assert (where, code) in {(problem.where, problem.code) for problem in price_problems(mapping)}
    with pytest.raises(InvalidInput):
        price_from_plain(mapping)


def test_a_mistake_is_reported_once() -> None:
    """A field that could not be read is not called missing as well."""
    for mapping in (plain(unit_price=0.5), plain(model="magic"), plain("volume", tiers="all")):
        assert len(price_problems(mapping)) == 1


def test_all_problems_come_together_with_their_place_in_the_file() -> None:
    """One run of `check` shows everything that is wrong with a price."""
    mapping = {"id": "p", "model": "graduated", "tiers": [{"up_to": "x"}], "minimum": "-1"}
    with pytest.raises(InvalidInput) as refused:
        price_from_plain(mapping, where="prices[3]")
    assert [problem.where for problem in refused.value.problems] == [
        "prices[3].tiers[0].up_to",
        "prices[3].currency",
        "prices[3].minimum",
    ]


def test_a_float_is_answered_with_the_quoted_number() -> None:
    """The hint can be pasted into the file."""
    (problem,) = price_problems(plain(unit_price=2.5e-06))
    assert 'unit_price: "0.0000025"' in problem.hint


def test_a_good_price_has_no_problems() -> None:
    """Free tiers, fees without unit price and zero prices are prices."""
    free = plain("graduated", tiers=[{"up_to": 10, "unit_price": 0}, {"flat_fee": "5"}])
    assert price_problems(free) == ()
    assert price_problems(plain(unit_price=D("1.50000000000000000000"))) == ()


def test_a_price_made_in_code_is_checked_too() -> None:
    """No door leads past the rules."""
    with pytest.raises(InvalidInput):
        Price(PriceId("p"), "EUR", PriceModel.PER_UNIT)
    with pytest.raises(TypeError, match="unit_price"):
        Price(PriceId("p"), "EUR", PriceModel.PER_UNIT, unit_price=0.5)  # type: ignore[arg-type]
