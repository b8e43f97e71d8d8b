"""One byte form per value, so that equal things have equal digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def canonical_json(value: object) -> bytes:
    """Compact JSON with sorted keys; Decimals as shortest plain strings, moments in UTC.

    Raises: TypeError for floats and anything else without one exact form.
    """
    text = json.dumps(to_plain(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise TypeError("text with half a surrogate pair has no form in UTF-8") from exc


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def to_plain(value: object) -> object:
    """The value in JSON's own types, exact: Decimals and moments become strings."""
    match value:
        case Enum():
            return to_plain(value.value)
        case None | bool() | int() | str():
            return value
        case Decimal():
            return plain_decimal(value)
        case datetime():
            if value.utcoffset() is None:
                raise TypeError(f"{value!r} has no time zone and so no single canonical form")
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case Mapping():
            plain = {str(to_plain(key)): to_plain(item) for key, item in value.items()}
            if len(plain) != len(value):
                raise TypeError(f"two keys of {sorted(plain)} have the same canonical form")
            return plain
        case Sequence() if not isinstance(value, (bytes, bytearray)):
            return [to_plain(item) for item in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
        case _:
            raise TypeError(f"{type(value).__name__} has no canonical form: {value!r}")


def plain_decimal(value: Decimal) -> str:
    """The shortest plain notation: no exponent, no trailing zeros, no negative zero.

    >>> plain_decimal(Decimal("1.500E+3")), plain_decimal(Decimal("-0.00"))
    ('1500', '0')
    """
    if not value.is_finite():
        raise TypeError(f"{value} is not a finite number")
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def crockford(data: bytes, length: int) -> str:
    """The leading bits of ``data`` in Crockford's base32 (no I, L, O, U).

    >>> crockford(bytes(10), 5)
    '00000'
    """
    if length * 5 > len(data) * 8:
        raise ValueError(f"{len(data)} bytes give no {length} characters of 5 bits")
    number = int.from_bytes(data) >> (len(data) * 8 - length * 5)
    return "".join(_CROCKFORD[(number >> 5 * i) & 31] for i in reversed(range(length)))
