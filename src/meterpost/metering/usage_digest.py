"""The fingerprint of the events behind a quantity: equal sets of events, equal digests.

A digest is an additive multiset: two lanes, each the sum modulo 2⁶⁴ of one half of the
fingerprint of every event (MD5 over key, type, subject, time and data), and the number of
events. It does not depend on order, and the digest of a whole is the `combine` of its parts. It
detects mistakes; tampering is what the audit seal detects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

_LANE = 1 << 64
_HEX_DIGITS = 16

#: The digest of no events.
EMPTY = "0" * (3 * _HEX_DIGITS)


def combine(digests: Iterable[str]) -> str:
    """The digest of all the events behind the given digests.

    Raises: ValueError for text that is no digest.
    """
    lane1 = lane2 = events = 0
    for text in digests:
        if len(text) != 3 * _HEX_DIGITS:
            raise ValueError(f"{text!r} is not a usage digest of {3 * _HEX_DIGITS} hex digits")
        lane1 += int(text[:_HEX_DIGITS], 16)
        lane2 += int(text[_HEX_DIGITS : 2 * _HEX_DIGITS], 16)
        events += int(text[2 * _HEX_DIGITS :], 16)
    return render(lane1, lane2, events)


def render(lane1: int, lane2: int, events: int) -> str:
    """48 hex digits: the lanes modulo 2⁶⁴, then the number of events."""
    return f"{lane1 % _LANE:016x}{lane2 % _LANE:016x}{events % _LANE:016x}"


def key_of(source: str, id: str) -> int:
    """The 128-bit key of an event's identity, as the event store computes it."""
    text = f"{len(source)}:{source}{id}"
    return _md5_number(text)


def fingerprint_of(
    source: str, id: str, type: str, subject: str, time_us: int | None, data: str | None
) -> tuple[int, int]:
    """The two lanes of one event; ``time_us`` is microseconds since 1970, None where not given."""
    text = (
        f"{key_of(source, id):X}|{len(type)}:{type}|{len(subject)}:{subject}"
        f"|{'-' if time_us is None else time_us}|{'' if data is None else data}"
    )
    number = _md5_number(text)
    return number >> 64, number % _LANE


def _md5_number(text: str) -> int:
    # Identity of our own rows, not protection: DuckDB computes the same with md5_number().
    return int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest(), "little")
