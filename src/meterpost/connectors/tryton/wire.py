"""Tryton's JSON: plain JSON plus tagged objects for decimals and dates.

Source: the server's own encoder, Tryton 8.2 (``trytond/protocols/jsonrpc.py``).
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any


def encode(value: object) -> bytes:
    """The request's body.

    Raises: TypeError for values that Tryton has no form for, such as naive datetimes.
    """
    return json.dumps(value, default=_encode_tagged, allow_nan=False).encode()


def decode(body: bytes) -> Any:
    """The answer's value; fractions become exact Decimals, moments are aware UTC.

    Raises: ValueError where the body is no JSON or a tagged object lacks its parts.
    """
    try:
        return json.loads(body, object_hook=_decode_tagged, parse_float=Decimal)
    except (KeyError, TypeError, ArithmeticError) as exc:
        raise ValueError(f"a tagged value cannot be read: {exc}") from exc


def float_quantity(value: Decimal) -> float:
    """The quantity as Tryton stores it, a double.

    Raises: ValueError where a double would not give the same digits back.
    """
    number = float(value)
    if Decimal(repr(number)) != value:
        raise ValueError(f"{value} does not survive Tryton's floating-point quantities")
    return number


def _encode_tagged(value: object) -> object:
    match value:
        case Decimal():
            return {"__class__": "Decimal", "decimal": format(value, "f")}
        case datetime() if value.tzinfo is not None:
            utc = value.astimezone(UTC)
            return {
                "__class__": "datetime",
                **{name: getattr(utc, name) for name in _DATE + _TIME},
            }
        case date() if not isinstance(value, datetime):
            return {"__class__": "date", **{name: getattr(value, name) for name in _DATE}}
        case _:
            raise TypeError(f"{type(value).__name__} has no form in Tryton's JSON: {value!r}")


_DATE = ("year", "month", "day")
_TIME = ("hour", "minute", "second", "microsecond")


def _decode_tagged(found: dict[str, Any]) -> Any:
    match found.get("__class__"):
        case "Decimal":
            return Decimal(found["decimal"])
        case "date":
            return date(*(found[name] for name in _DATE))
        case "datetime":
            day = date(*(found[name] for name in _DATE))
            return datetime.combine(day, time(*(found[name] for name in _TIME)), UTC)
        case "timedelta":
            return timedelta(seconds=float(found["seconds"]))
        case _:
            return found
