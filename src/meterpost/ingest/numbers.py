"""Whether the numbers in an event's data survive their way to the meters to the last digit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import NoReturn

from meterpost.core.money import VALUE_DIGITS_MAX, VALUE_SCALE_MAX
from meterpost.core.problem import Problem

#: Readers of JSON keep fractions as binary doubles: 15 digits survive, the 16th may not.
FRACTION_DIGITS_MAX = 15

_SEND_TEXT = 'Send it as a string, such as "1234567890.123456789".'

# Every digit becomes 0 and E becomes e, so that one substring search finds runs of digits.
_SHAPE = bytes(
    ord("0") if chr(byte).isdigit() and byte < 128 else ord("e") if byte == ord("E") else byte
    for byte in range(256)
)
# A number that is refused somewhere has 16 digits around a point, 10 behind it, 19 in a row, or
# an exponent; each of the first three holds 8 in a row.
_RUN = b"0" * 8
_SUSPECT = re.compile(rb"[\[:,\s]-?(?:\d{19}|\d*\.\d{10}|[\d.]{17}|\d+(?:\.\d+)?[eE])")


def looks_exact(data: bytes) -> bool:
    """Whether a text of JSON values surely holds no number that `number_problem` refuses.

    A cheap answer for the common case: False only means that someone has to look closer. The
    text must start with a separator, since a number is recognised by what precedes it.
    """
    shape = data.translate(_SHAPE)
    if _RUN not in shape and b"0e" not in shape:
        return True
    return _SUSPECT.search(data) is None


def decode_exactly(text: str) -> object:
    """The JSON value with every number as `Decimal`.

    Raises: ValueError for what is not JSON (NaN and Infinity included); RecursionError.
    """
    return json.loads(
        text, parse_float=_decimal, parse_int=_decimal, parse_constant=_refuse_constant
    )


def number_problem(data: object, metered: Sequence[Sequence[str]]) -> Problem | None:
    """The first number in a decoded ``data`` that meters could not use exactly.

    ``metered`` are the paths below ``data`` that a meter or a dimension reads (an empty path:
    all of it); numbers elsewhere only have to be readable at all.
    """
    for path in metered:
        found = _at(data, path)
        for where, number in _numbers(found, ".".join(("data", *path))):
            problem = _metered_problem(number, where)
            if problem is not None:
                return problem
    for where, number in _numbers(data, "data"):
        if number and number.adjusted() > _DOUBLE_EXPONENT_MAX:
            return Problem(
                "number-too-large",
                f"The number {_short(number)} is beyond what readers of JSON can hold.",
                where,
                "Send it as a string.",
            )
    return None


_DOUBLE_EXPONENT_MAX = 307


def _metered_problem(number: Decimal, where: str) -> Problem | None:
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    if number and number.adjusted() >= VALUE_DIGITS_MAX:
        return Problem(
            "number-too-large",
            f"The number {_short(number)} is metered, and metered values stay below "
            f"10^{VALUE_DIGITS_MAX}.",
            where,
            "Send a string if it is a name; meter a larger unit if it is a quantity.",
        )
    if -exponent > VALUE_SCALE_MAX:
        return Problem(
            "number-too-precise",
            f"The number {_short(number)} has {-exponent} decimals; metered values have up to "
            f"{VALUE_SCALE_MAX}.",
            where,
            "Round it, or send a string if it is a name.",
        )
    if exponent != 0 and len(digits) > FRACTION_DIGITS_MAX:
        return Problem(
            "number-too-precise",
            f"The number {_short(number)} has {len(digits)} digits; a JSON fraction keeps "
            f"{FRACTION_DIGITS_MAX} of them for certain, and this field is metered.",
            where,
            _SEND_TEXT,
        )
    return None


def _at(data: object, path: Sequence[str]) -> object:
    for step in path:
        if not isinstance(data, dict):
            return None
        data = data.get(step)
    return data


def _numbers(value: object, where: str) -> Iterator[tuple[str, Decimal]]:
    """Every number in the value with its path, without recursion."""
    waiting = [(where, value)]
    while waiting:
        place, item = waiting.pop()
        if isinstance(item, Decimal):
            yield place, item
        elif isinstance(item, dict):
            waiting.extend((f"{place}.{key}", child) for key, child in item.items())
        elif isinstance(item, list):
            waiting.extend((f"{place}[{n}]", child) for n, child in enumerate(item))


def _decimal(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation as exc:  # an exponent of more than 18 digits
        raise ValueError(f"the number {text[:40]} cannot be held") from exc
    if not number.is_finite():
        raise ValueError(f"the number {text[:40]} cannot be held")
    return number


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


def _short(number: Decimal) -> str:
    text = str(number)
    return text if len(text) <= 40 else f"{text[:37]}..."
