"""Words that many operations' arguments share, each with its limits; and pages of results."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, TypeVar

from pydantic import AfterValidator, AwareDatetime, Field

from meterpost.core.clock import require_utc
from meterpost.core.errors import InvalidInput
from meterpost.core.period import local_midnight, zone_info

LIMIT_MAX = 1000

Limit = Annotated[int, Field(ge=1, le=LIMIT_MAX, description="Rows of one page.")]
Cursor = Annotated[
    str, Field(min_length=1, max_length=2_000, description="`next` of the page before.")
]
Id = Annotated[int, Field(ge=1, le=(1 << 63) - 1)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
#: An id of somebody else's, or a subject: longer, and free in its characters.
ExternalId = Annotated[str, Field(min_length=1, max_length=1_000)]
Reason = Annotated[
    str, Field(min_length=1, max_length=1_000, description="Why, for those who come after.")
]
OptionalReason = Annotated[str, Field(max_length=1_000)]
AccountingPeriod = Annotated[
    str, Field(min_length=1, max_length=100, description="An accounting period's id: 2026-10.")
]
Month = Annotated[
    str, Field(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$", description="A month such as 2026-10.")
]
Moment = Annotated[
    AwareDatetime, Field(description="A moment with its zone: 2026-10-15T14:00:00+02:00.")
]
#: A local day (its first moment), or a moment; without a zone it is one of the zone beside it.
DayOrMoment = Annotated[
    str,
    Field(max_length=40, description="A day (2026-10-15), or a moment (2026-10-15T14:00:00Z)."),
]
MinimumAmount = Annotated[
    Decimal,
    Field(ge=0, max_digits=38, description="Only amounts of at least this size, either sign."),
]


def _zone(name: str) -> str:
    zone_info(name)
    return name


Zone = Annotated[
    str,
    Field(min_length=1, max_length=64, description="An IANA time zone such as Europe/Vienna."),
    AfterValidator(_zone),
]

Row = TypeVar("Row")


def page(
    rows: Sequence[Row],
    limit: int,
    key: Callable[[Row], object],
    shown: Callable[[Row], object] | None = None,
) -> dict[str, object]:
    """``{items, next}`` of rows that were read with one more than the limit."""
    more = len(rows) > limit
    rows = rows[:limit]
    return {
        "items": list(rows) if shown is None else [shown(row) for row in rows],
        "next": cursor_of(key(rows[-1])) if more else None,
    }


def cursor_of(key: object) -> str:
    """The opaque text that asks for what follows the key."""
    return base64.urlsafe_b64encode(str(key).encode()).decode().rstrip("=")


def number_after(cursor: str | None) -> int | None:
    """The number in a cursor of a list in order of numbers. Raises: InvalidInput."""
    if cursor is None:
        return None
    try:
        number = int(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error) as exc:
        raise InvalidInput("The cursor is not one that a page gave.") from exc
    if not 0 <= number < 1 << 63:
        raise InvalidInput("The cursor is not one that a page gave.")
    return number


def moment_of(text: str, zone: str) -> datetime:
    """The moment a person wrote: a local day's first moment, or a moment (local without zone).

    Raises: InvalidInput.
    """
    try:
        if len(text) <= len("2026-10-15"):
            return local_midnight(date.fromisoformat(text), zone)
        moment = datetime.fromisoformat(text)
        return require_utc(moment if moment.tzinfo else moment.replace(tzinfo=zone_info(zone)))
    except ValueError as exc:
        raise InvalidInput(
            f"{text!r} is neither a day nor a moment.",
            hint="Write 2026-10-15 or 2026-10-15T14:00:00+02:00.",
        ) from exc
