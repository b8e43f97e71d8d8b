"""Laws of rating, over prices and quantities that nobody picked."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from meterpost.core.money import minor_units
from meterpost.rating.model import (
    WHOLE,
    Price,
    PriceModel,
    Share,
    Tier,
    price_from_plain,
    rate,
    usage_split,
)

D = Decimal


def decimals(maximum: str, places: int) -> st.SearchStrategy[D]:
    return st.decimals("0", maximum, places=places, allow_nan=False, allow_infinity=False)


quantities = decimals("100000000", 9)
unit_prices = decimals("100", 9)
amounts = decimals("10000", 4)
shares = st.integers(1, 10**7).flatmap(
    lambda whole: st.integers(0, whole).map(lambda part: Share(part, whole))
)


@st.composite
def tiers(draw: st.DrawFn) -> tuple[Tier, ...]:
    bounds = sorted(draw(st.sets(st.integers(1, 10**8).map(D), max_size=4)))
    return tuple(Tier(bound, draw(unit_prices), draw(amounts)) for bound in [*bounds, None])


@st.composite
def prices(draw: st.DrawFn, *models: PriceModel) -> Price:
    model = draw(st.sampled_from(models or tuple(PriceModel)))
    common = {
        "id": "p",
        "currency": draw(st.sampled_from(["EUR", "JPY", "KWD", "CLF"])),
        "model": model,
        "included": draw(st.one_of(st.just(D(0)), quantities)),
        "minimum": draw(st.one_of(st.just(D(0)), amounts)),
    }
    match model:
        case PriceModel.FLAT:
            return Price(**common, flat_amount=draw(amounts))
        case PriceModel.PER_UNIT:
            return Price(**common, unit_price=draw(unit_prices))
        case PriceModel.PACKAGE:
            size = draw(decimals("1000", 3).filter(bool))
            return Price(**common, package_size=size, package_price=draw(amounts))
        case _:
            return Price(**common, tiers=draw(tiers()))


def by_fractions(quantity: D, price: Price, share: Share) -> Fraction:
    """The rules of docs/rating.md a second time, in fractions and without steps."""
    part = Fraction(share.numerator, share.denominator)
    charged = max(Fraction(quantity) - Fraction(price.included) * part, Fraction(0))
    total = Fraction(0)
    match price.model:
        case PriceModel.FLAT:
            total = Fraction(price.flat_amount) * part
        case PriceModel.PER_UNIT:
            total = charged * Fraction(price.unit_price)
        case PriceModel.PACKAGE:
            total = -(-charged // Fraction(price.package_size)) * Fraction(price.package_price)
        case PriceModel.GRADUATED:
            lower = Fraction(0)
            for tier in price.tiers:
                upper = charged if tier.up_to is None else Fraction(tier.up_to) * part
                inside = min(charged, upper) - lower
                if inside > 0:
                    total += inside * Fraction(tier.unit_price) + Fraction(tier.flat_fee) * part
                lower = upper
        case PriceModel.VOLUME:
            for tier in price.tiers:
                if tier.up_to is None or charged <= Fraction(tier.up_to) * part:
                    fee = Fraction(tier.flat_fee) * part if charged else 0
                    total = charged * Fraction(tier.unit_price) + fee
                    break
    return max(total, Fraction(price.minimum) * part)


@given(quantities, prices(), shares)
def test_the_amount_is_the_fraction_rounded_half_up(q: D, price: Price, share: Share) -> None:
    """An independent calculation in fractions, rounded once, gives the same minor units."""
    exact = by_fractions(q, price, share)
    units = 10 ** minor_units(price.currency)
    charge = rate(q, price, share)
    assert Fraction(charge.amount.amount) * units == (exact * units * 2 + 1) // 2
    assert abs(Fraction(charge.exact) - exact) <= Fraction(1, 2 * 10**40)


@given(quantities, prices(), shares)
def test_rounding_is_never_off_by_more_than_half_a_minor_unit(
    q: D, price: Price, share: Share
) -> None:
    """Between the amount and what it was rounded from lies at most half a minor unit."""
    charge = rate(q, price, share)
    half = Fraction(1, 2 * 10 ** minor_units(price.currency))
    assert abs(Fraction(charge.amount.amount) - Fraction(charge.exact)) <= half


@given(quantities, prices(), shares)
def test_the_working_adds_up_digit_by_digit(q: D, price: Price, share: Share) -> None:
    """Steps sum exactly to the exact amount, endless thirds included."""
    charge = rate(q, price, share)
    assert sum(Fraction(step.amount) for step in charge.working) == Fraction(charge.exact)


@given(quantities, prices(), shares)
def test_included_and_charged_are_the_quantity(q: D, price: Price, share: Share) -> None:
    """The two cells of the quantity ledger partition the quantity exactly."""
    charge = rate(q, price, share)
    split = usage_split(charge)
    assert Fraction(split.included) + Fraction(split.charged) == Fraction(q)
    assert split.included >= 0
    assert split.charged >= 0
    if price.model not in (PriceModel.FLAT, PriceModel.PACKAGE):
        assert sum(Fraction(step.quantity or 0) for step in charge.working) == Fraction(q)


@given(
    st.tuples(quantities, quantities).map(sorted),
    prices(PriceModel.PER_UNIT, PriceModel.GRADUATED, PriceModel.PACKAGE),
    shares,
)
def test_more_usage_never_costs_less(pair: list[D], price: Price, share: Share) -> None:
    """Per unit, graduated and package amounts grow with the quantity (volume may fall)."""
    less, more = (rate(q, price, share) for q in pair)
    assert less.exact <= more.exact
    assert less.amount.amount <= more.amount.amount


@given(quantities, prices(PriceModel.PER_UNIT), shares)
def test_one_unbounded_tier_is_a_price_per_unit(q: D, per_unit: Price, share: Share) -> None:
    """Graduated and volume with a single tier say the same as per_unit."""
    assert per_unit.unit_price is not None
    single = (Tier(None, per_unit.unit_price),)
    for model in (PriceModel.GRADUATED, PriceModel.VOLUME):
        tiered = replace(per_unit, model=model, unit_price=None, tiers=single)
        assert rate(q, tiered, share).exact == rate(q, per_unit, share).exact


@given(quantities, prices(), st.integers(1, 10**9))
def test_a_whole_share_changes_nothing(q: D, price: Price, n: int) -> None:
    """n/n of the period is the period, to the last step."""
    assert rate(q, price, Share(n, n)) == rate(q, price, WHOLE) == rate(q, price)


@given(
    st.integers(0, 10**9).map(D),
    prices(PriceModel.FLAT, PriceModel.PER_UNIT, PriceModel.GRADUATED, PriceModel.VOLUME),
    st.integers(1, 1000),
)
def test_an_nth_of_the_usage_in_an_nth_of_the_period_costs_an_nth(
    whole: D, price: Price, n: int
) -> None:
    """Usage spread evenly over a hand-over costs in parts what it costs in one."""
    q = whole * n
    full, part = rate(q, price, WHOLE), rate(whole, price, Share(1, n))
    assert abs(Fraction(part.exact) * n - Fraction(full.exact)) <= Fraction(n, 10**40)


@given(quantities, prices(), shares)
def test_rating_depends_on_its_arguments_alone(q: D, price: Price, share: Share) -> None:
    """The same again is equal; a stored price read back rates the same."""
    again = price_from_plain(price.to_plain())
    assert again == price
    assert rate(q, again, share) == rate(q, price, share)
