"""A price as a contract states it, checked once, when it is made."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from meterpost.core.canonical import plain_decimal
from meterpost.core.errors import InvalidInput
from meterpost.core.ids import PriceId
from meterpost.core.problem import Problem
from meterpost.rating.price_rules import (
    MODEL_FIELDS,
    NEEDS,
    PRICE_DIGITS_MAX,
    TIER_KEYS,
    TIERS_MAX,
    PriceModel,
    Tier,
    path_of,
    rule_problems,
)

__all__ = ["Price", "PriceModel", "Tier", "price_from_plain", "price_problems"]

_ZERO = Decimal(0)
_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?")
_PRICE_KEYS = ("id", "currency", "model", *MODEL_FIELDS, "included", "minimum")


@dataclass(frozen=True, slots=True)
class Price:
    """One price, complete and consistent. Amounts are in ``currency``, sizes in metered units.

    Raises: InvalidInput with every problem when fields are missing, superfluous or out of bounds.
    """

    id: PriceId
    currency: str
    model: PriceModel
    unit_price: Decimal | None = None
    flat_amount: Decimal | None = None
    tiers: tuple[Tier, ...] = ()
    package_size: Decimal | None = None
    package_price: Decimal | None = None
    included: Decimal = _ZERO
    minimum: Decimal = _ZERO

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", PriceModel(self.model))
        object.__setattr__(self, "tiers", tuple(self.tiers))
        values = {name: getattr(self, name) for name in _PRICE_KEYS}
        _raise_for(tuple(rule_problems(values, frozenset(), "")), self.id)

    def to_plain(self) -> dict[str, object]:
        """The mapping `price_from_plain` reads back to an equal price; numbers are strings."""
        plain: dict[str, object] = {
            "id": self.id,
            "currency": self.currency,
            "model": self.model.value,
        }
        for name in NEEDS[self.model]:
            if name == "tiers":
                plain["tiers"] = [_tier_to_plain(tier) for tier in self.tiers]
            else:
                plain[name] = plain_decimal(getattr(self, name))
        if self.included:
            plain["included"] = plain_decimal(self.included)
        if self.minimum:
            plain["minimum"] = plain_decimal(self.minimum)
        return plain


def price_from_plain(mapping: Mapping[str, object], where: str = "") -> Price:
    """The price a JSON or YAML mapping describes; numbers are strings or whole numbers.

    ``where`` is the path of the mapping in its file and prefixes every problem's field.

    Raises: InvalidInput carrying every problem found, not only the first.
    """
    values, problems = _read(mapping, where)
    _raise_for(problems, values.get("id"))
    return Price(**values)  # type: ignore[arg-type]  # _read checked every field


def price_problems(mapping: Mapping[str, object], where: str = "") -> tuple[Problem, ...]:
    """Everything that keeps the mapping from being a price; empty when it is one."""
    return _read(mapping, where)[1]


def _raise_for(problems: Sequence[Problem], name: object) -> None:
    if problems:
        raise InvalidInput(f"The price {name!r:.80} cannot be used.", problems)


def _tier_to_plain(tier: Tier) -> dict[str, object]:
    plain: dict[str, object] = {
        "up_to": None if tier.up_to is None else plain_decimal(tier.up_to),
        "unit_price": plain_decimal(tier.unit_price),
    }
    if tier.flat_fee:
        plain["flat_fee"] = plain_decimal(tier.flat_fee)
    return plain


class _Reader:
    """Takes fields out of one mapping and remembers what was wrong with them."""

    def __init__(self, mapping: Mapping[str, object], where: str, problems: list[Problem]) -> None:
        self.mapping = mapping
        self.where = where
        self.problems = problems
        self.bad: set[str] = set()

    def complain(self, code: str, field: str, sentence: str, hint: str = "") -> None:
        self.bad.add(field)
        self.problems.append(Problem(code, sentence, path_of(self.where, field), hint))

    def refuse_unknown(self, known: tuple[str, ...]) -> None:
        for key in self.mapping:
            if key not in known:
                self.complain(
                    "unknown-key",
                    f"{key!s:.60}",
                    "is not a field of a price." if "id" in known else "is not a field of a tier.",
                    f"Known fields: {', '.join(known)}.",
                )

    def text(self, field: str) -> str | None:
        value = self.mapping.get(field)
        if value is None or isinstance(value, str):
            return value
        self.complain("wrong-type", field, f"must be text, not {_kind(value)}.")
        return None

    def number(self, field: str) -> Decimal | None:
        value = self.mapping.get(field)
        match value:
            case None:
                return None
            case bool():
                pass
            case Decimal() if value.is_finite():
                return value
            case Decimal():
                self.complain("not-a-number", field, f"{value} is not a finite number.")
                return None
            case int() if abs(value) < 10 ** (PRICE_DIGITS_MAX + 1):
                return Decimal(value)
            case int():
                self.complain("out-of-bounds", field, f"has more than {PRICE_DIGITS_MAX} digits.")
                return None
            case float():
                self.complain(
                    "float",
                    field,
                    f"{value!r} was read as a binary fraction and may have lost digits.",
                    f'Quote the number: {field}: "{_as_written(value)}".',
                )
                return None
            case str() if _NUMBER.fullmatch(value):
                return Decimal(value)
            case str():
                self.complain(
                    "not-a-number",
                    field,
                    f"{value[:40]!r} is not a decimal number.",
                    'Write digits with a point, such as "1234.56".',
                )
                return None
            case _:
                pass
        self.complain("wrong-type", field, f"must be a number, not {_kind(value)}.")
        return None


def _read(
    mapping: Mapping[str, object], where: str
) -> tuple[dict[str, object], tuple[Problem, ...]]:
    problems: list[Problem] = []
    reader = _Reader(mapping, where, problems)
    reader.refuse_unknown(_PRICE_KEYS)
    values: dict[str, object] = {"id": reader.text("id"), "currency": reader.text("currency")}
    model = reader.text("model")
    if model is not None and model not in {known.value for known in PriceModel}:
        known = ", ".join(PriceModel)
        reader.complain("unknown-model", "model", f"{model[:40]!r} is none of {known}.")
        model = None
    values["model"] = None if model is None else PriceModel(model)
    for field in ("unit_price", "flat_amount", "package_size", "package_price"):
        values[field] = reader.number(field)
    for field in ("included", "minimum"):
        number = reader.number(field)
        values[field] = _ZERO if number is None else number
    values["tiers"] = _read_tiers(reader)
    problems.extend(rule_problems(values, frozenset(reader.bad), where))
    return values, tuple(problems)


def _read_tiers(price: _Reader) -> tuple[Tier, ...]:
    listed = price.mapping.get("tiers")
    if listed is None:
        return ()
    if not isinstance(listed, Sequence) or isinstance(listed, (str, bytes)):
        price.complain("wrong-type", "tiers", f"must be a list of tiers, not {_kind(listed)}.")
        return ()
    if len(listed) > TIERS_MAX:
        price.complain("too-many", "tiers", f"has {len(listed)} tiers; {TIERS_MAX} are allowed.")
        return ()
    tiers = []
    for index, item in enumerate(listed):
        if not isinstance(item, Mapping):
            price.complain(
                "wrong-type", f"tiers[{index}]", f"a tier is a mapping, not {_kind(item)}."
            )
            price.bad.add("tiers")
            continue
        tier = _Reader(item, path_of(price.where, f"tiers[{index}]"), price.problems)
        tier.refuse_unknown(TIER_KEYS)
        up_to, unit_price, flat_fee = (tier.number(key) for key in TIER_KEYS)
        if unit_price is None and flat_fee is None and not tier.bad:
            tier.complain("missing", "unit_price", "a tier needs a unit_price, a flat_fee or both.")
        if tier.bad:
            price.bad.add("tiers")
        tiers.append(Tier(up_to, unit_price or _ZERO, flat_fee or _ZERO))
    return tuple(tiers)


def _as_written(value: float) -> str:
    text = repr(value)
    return text if not _NUMBER.fullmatch(text) else plain_decimal(Decimal(text))


def _kind(value: object) -> str:
    match value:
        case bool():
            return "yes or no"
        case None:
            return "nothing"
        case str():
            return "text"
        case Mapping():
            return "a mapping"
        case Sequence():
            return "a list"
        case _:
            return type(value).__name__
