"""One byte form per value."""

import json
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterpost.core.canonical import canonical_json, crockford, digest, plain_decimal

exact = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)
decimals = st.decimals("-1e30", "1e30", allow_nan=False, allow_infinity=False)


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@dataclass(frozen=True)
class Pair:
    left: Decimal
    right: tuple[int, ...]


@given(exact)
def test_json_values_survive(value: object) -> None:
    """Canonical JSON is JSON, and says the same again."""
    assert json.loads(canonical_json(value)) == value
    assert canonical_json(json.loads(canonical_json(value))) == canonical_json(value)


@given(decimals, st.integers(0, 20))
def test_equal_decimals_have_equal_text(value: Decimal, zeros: int) -> None:
    """However many zeros or exponents a number was written with."""
    text = plain_decimal(value)
    assert Decimal(text) == value
    assert "E" not in text
    assert plain_decimal(Decimal(f"{text}{'' if '.' in text else '.'}{'0' * zeros}")) == text


@pytest.mark.parametrize(
    ("written", "plain"),
    [("-0.00", "0"), ("0E+5", "0"), ("1.500E+3", "1500"), ("100", "100"), ("-2.50", "-2.5")],
)
def test_the_shortest_plain_notation(written: str, plain: str) -> None:
    """No exponent, no trailing zeros after the point, no negative zero."""
    assert plain_decimal(Decimal(written)) == plain


def test_values_have_one_form() -> None:
    """Order of keys, offset of times and kind of sequence do not matter."""
    plus1 = timezone(timedelta(hours=1))
    here = {"b": Decimal("1.50"), "a": datetime(2026, 1, 1, 1, tzinfo=plus1), "c": (1, 2)}
    there = OrderedDict(c=[1, 2], a=datetime(2026, 1, 1, tzinfo=UTC), b=Decimal("1.5"))
    assert canonical_json(here) == b'{"a":"2026-01-01T00:00:00Z","b":"1.5","c":[1,2]}'
    assert digest(here) == digest(there)


def test_enums_dates_and_dataclasses() -> None:
    """Enums are their values, dataclasses their fields, days ISO days."""
    value = [Colour.RED, Level.HIGH, date(2026, 2, 3), Pair(Decimal("1.0"), (1,)), "Zürich"]
    plain = '["red",3,"2026-02-03",{"left":"1","right":[1]},"Zürich"]'
    assert canonical_json(value).decode() == plain


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        {"a": 1.5},
        {1, 2},
        b"bytes",
        Decimal("NaN"),
        Decimal("Infinity"),
        datetime(2026, 1, 1),  # noqa: DTZ001
        object(),
        Pair,
        {1: "a", "1": "b"},
        "half a pair: \ud800",
    ],
)
def test_what_has_no_single_form_is_refused(value: object) -> None:
    """Floats, sets, bytes, naive times, colliding keys and broken text have no digest."""
    with pytest.raises(TypeError):
        canonical_json(value)


def test_crockford_takes_the_leading_bits() -> None:
    """Five bits a character, without I, L, O and U; never more than there is."""
    assert crockford(b"\xff" * 5, 8) == "ZZZZZZZZ"
    assert crockford(b"\x08\x42\x10\x84\x21", 8) == "11111111"
    assert crockford(b"\xf8", 1) == "Z"
    with pytest.raises(ValueError, match="give no 2 characters"):
        crockford(b"\xff", 2)
