"""What makes a price complete and consistent, whoever made it: a file, a table, a test."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise

from meterpost.core.money import EXACT
from meterpost.core.problem import Problem

TIERS_MAX = 100
ID_LENGTH_MAX = 200
#: Digits before and after the point of every number in a price.
PRICE_DIGITS_MAX = 18
PRICE_SCALE_MAX = 18

_ZERO = Decimal(0)
_FINEST = Decimal(1).scaleb(-PRICE_SCALE_MAX)


class PriceModel(StrEnum):
    """How the charged quantity becomes an amount."""

    FLAT = "flat"
    PER_UNIT = "per_unit"
    GRADUATED = "graduated"
    VOLUME = "volume"
    PACKAGE = "package"


#: What each model needs; a field another model needs is refused, because it would do nothing.
NEEDS: dict[PriceModel, tuple[str, ...]] = {
    PriceModel.FLAT: ("flat_amount",),
    PriceModel.PER_UNIT: ("unit_price",),
    PriceModel.GRADUATED: ("tiers",),
    PriceModel.VOLUME: ("tiers",),
    PriceModel.PACKAGE: ("package_size", "package_price"),
}
MODEL_FIELDS = ("unit_price", "flat_amount", "tiers", "package_size", "package_price")
TIER_KEYS = ("up_to", "unit_price", "flat_fee")


@dataclass(frozen=True, slots=True)
class Tier:
    """A step of a tiered price: quantities above the previous bound, up to and with ``up_to``.

    ``up_to`` is None in the last tier. ``flat_fee`` is due once something falls into the tier.
    """

    up_to: Decimal | None
    unit_price: Decimal = _ZERO
    flat_fee: Decimal = _ZERO


def rule_problems(
    values: Mapping[str, object], bad: frozenset[str], where: str
) -> Iterator[Problem]:
    """Problems of a price's typed values, by field name.

    Fields in ``bad`` have been complained about already.
    """
    yield from _name_problems(values, bad, where)
    model = values["model"]
    if isinstance(model, PriceModel):
        needed = NEEDS[model]
        for field in MODEL_FIELDS:
            given = values[field] not in (None, ())
            if field in needed and not given and field not in bad:
                yield Problem("missing", f"a {model} price needs {field}.", path_of(where, field))
            if field not in needed and given:
                yield Problem(
                    "superfluous",
                    f"does nothing in a {model} price.",
                    path_of(where, field),
                    f"Remove it, or choose the model that uses it: {_users_of(field)}.",
                )
    elif "model" not in bad:
        known = ", ".join(PriceModel)
        yield Problem("missing", "says how to price.", path_of(where, "model"), f"One of: {known}.")
    for field in ("unit_price", "flat_amount", "package_price", "included", "minimum"):
        yield from _bound_problems(values[field], path_of(where, field))
    size = values["package_size"]
    yield from _bound_problems(size, path_of(where, "package_size"))
    if isinstance(size, Decimal) and size == 0:
        yield Problem(
            "not-positive", "a package holds more than nothing.", path_of(where, "package_size")
        )
    tiers = values["tiers"]
    assert isinstance(tiers, tuple)
    yield from _tier_problems(tiers, "tiers" in bad, where)


def _name_problems(
    values: Mapping[str, object], bad: frozenset[str], where: str
) -> Iterator[Problem]:
    name, currency = values["id"], values["currency"]
    if "id" not in bad and (not isinstance(name, str) or not name.strip()):
        yield Problem("missing", "a price needs an id.", path_of(where, "id"))
    if isinstance(name, str) and len(name) > ID_LENGTH_MAX:
        sentence = f"has {len(name)} characters; {ID_LENGTH_MAX} are allowed."
        yield Problem("too-long", sentence, path_of(where, "id"))
    if "currency" in bad:
        return
    if currency is None:
        yield Problem("missing", "a price needs a currency.", path_of(where, "currency"))
    elif not isinstance(currency, str) or not re.fullmatch("[A-Z]{3}", currency):
        yield Problem(
            "bad-currency",
            f"{currency!r:.40} is not an ISO 4217 code such as EUR.",
            path_of(where, "currency"),
        )


def _tier_problems(tiers: tuple[Tier, ...], partly_bad: bool, where: str) -> Iterator[Problem]:
    for index, tier in enumerate(tiers):
        for field in TIER_KEYS:
            yield from _bound_problems(
                getattr(tier, field), path_of(where, f"tiers[{index}].{field}")
            )
    if not tiers or partly_bad:
        return
    if len(tiers) > TIERS_MAX:
        sentence = f"has {len(tiers)} tiers; {TIERS_MAX} are allowed."
        yield Problem("too-many", sentence, path_of(where, "tiers"))
    bounds = [tier.up_to for tier in tiers]
    if bounds[0] is not None and bounds[0] == 0:
        yield Problem(
            "not-positive", "the first tier holds nothing.", path_of(where, "tiers[0].up_to")
        )
    for index, (lower, upper) in enumerate(pairwise(bounds)):
        if lower is None:
            yield Problem(
                "unbounded-tier",
                "only the last tier may be without bound; what follows is never reached.",
                path_of(where, f"tiers[{index}].up_to"),
            )
        elif upper is not None and upper <= lower:
            yield Problem(
                "unordered-tiers",
                f"{upper:f} is not above the tier before, {lower:f}.",
                path_of(where, f"tiers[{index + 1}].up_to"),
                "Order tiers by up_to, each bound once.",
            )
    if bounds[-1] is not None:
        yield Problem(
            "bounded-last-tier",
            f"usage above {bounds[-1]:f} would have no price.",
            path_of(where, f"tiers[{len(tiers) - 1}].up_to"),
            "Leave up_to out of the last tier.",
        )


def _bound_problems(value: object, where: str) -> Iterator[Problem]:
    if value is None:
        return
    if not isinstance(value, Decimal):
        raise TypeError(f"{where} needs a Decimal, not {type(value).__name__}")
    if not value.is_finite():
        yield Problem("not-a-number", f"{value} is not a finite number.", where)
    elif value < 0:
        yield Problem("negative", f"{value:f} is below zero.", where)
    elif not _fits(value):
        yield Problem(
            "out-of-bounds",
            f"has more than {PRICE_DIGITS_MAX} digits before or {PRICE_SCALE_MAX} after the point.",
            where,
        )


def _fits(value: Decimal) -> bool:
    if not value:
        return True
    if value.adjusted() >= PRICE_DIGITS_MAX:
        return False
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    # Trailing zeros are no digits: a NUMERIC(38, 20) column gives 1.5 with twenty decimals.
    return exponent >= -PRICE_SCALE_MAX or value == value.quantize(_FINEST, context=EXACT)


def _users_of(field: str) -> str:
    return ", ".join(model for model, needed in NEEDS.items() if field in needed)


def path_of(where: str, field: str) -> str:
    """The field's path below ``where``."""
    return f"{where}.{field}" if where else field
