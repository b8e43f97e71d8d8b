"""Half-open spans of time, and the billing periods a contract cuts time into."""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from itertools import count
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from meterpost.core.clock import require_utc


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """The moments from ``start`` (included) to ``end`` (excluded), both aware UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", require_utc(self.start))
        object.__setattr__(self, "end", require_utc(self.end))
        if self.start >= self.end:
            raise ValueError(f"a period ends after it starts, not {self.start} to {self.end}")

    @classmethod
    def of_days(cls, first: date, after_last: date, zone: str) -> Period:
        """Local days [first, after_last) of a zone; DST days have 23 or 25 hours."""
        return cls(local_midnight(first, zone), local_midnight(after_last, zone))

    @classmethod
    def month(cls, text: str, zone: str = "UTC") -> Period:
        """The calendar month written ``2026-10`` in a zone.

        Raises: ValueError for anything but YYYY-MM.
        """
        try:
            first = date.fromisoformat(f"{text}-01")
        except ValueError as exc:
            raise ValueError(f"{text!r} is not a month; write it like 2026-10") from exc
        return cls.of_days(first, add_months(first, 1), zone)

    @property
    def seconds(self) -> int:
        """Length in whole seconds."""
        return (self.end - self.start) // timedelta(seconds=1)

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    def intersection(self, other: Period) -> Period | None:
        """The common part, or None where they only touch or miss."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Period(start, end) if start < end else None

    def local_days(self, zone: str) -> tuple[date, date]:
        """First and last local day, as people write service periods (both included)."""
        tz = zone_info(zone)
        last = self.end - timedelta(microseconds=1)
        return self.start.astimezone(tz).date(), last.astimezone(tz).date()

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%dT%H:%MZ}/{self.end:%Y-%m-%dT%H:%MZ}"


class BillingInterval(StrEnum):
    """How long one billing period is."""

    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"

    @property
    def months(self) -> int:
        """Length in months."""
        return {"month": 1, "quarter": 3, "year": 12}[self.value]


@dataclass(frozen=True, slots=True)
class BillingCycle:
    """How a contract cuts time: whole intervals counted from an anchor day, in a zone.

    An anchor on the 31st means the last day of shorter months; each start is computed from
    the anchor itself, so February does not pull the following months forward.
    """

    interval: BillingInterval
    anchor: date
    zone: str

    def containing(self, moment: datetime) -> Period:
        """The billing period that holds the moment."""
        n = self._months_since_anchor(require_utc(moment)) // self.interval.months + 1
        while local_midnight(self._start(n), self.zone) > moment:
            n -= 1
        return self._nth(n)

    def ending_in(self, window: Period) -> Iterator[Period]:
        """Billing periods whose last moment lies in the window, in order."""
        start = self.containing(window.start)
        for n in count(self._index(start)):
            period = self._nth(n)
            if period.end > window.end:
                return
            if period.end > window.start:
                yield period

    def _index(self, period: Period) -> int:
        n = self._months_since_anchor(period.start) // self.interval.months + 1
        while self._nth(n).start > period.start:
            n -= 1
        return n

    def _months_since_anchor(self, moment: datetime) -> int:
        local = moment.astimezone(zone_info(self.zone)).date()
        return (local.year - self.anchor.year) * 12 + local.month - self.anchor.month

    def _start(self, n: int) -> date:
        return add_months(self.anchor, n * self.interval.months)

    def _nth(self, n: int) -> Period:
        return Period.of_days(self._start(n), self._start(n + 1), self.zone)


def add_months(day: date, months: int) -> date:
    """The same day of a later month, or that month's last day where it has no such day."""
    year, month0 = divmod(day.year * 12 + day.month - 1 + months, 12)
    last = calendar.monthrange(year, month0 + 1)[1]
    return date(year, month0 + 1, min(day.day, last))


def local_midnight(day: date, zone: str) -> datetime:
    """The first moment of a local day, in UTC.

    Where a DST change swallows midnight (Santiago, Beirut) the day starts at the first moment
    that exists.
    """
    # With fold=0 a time inside the gap is read with the offset before it: the gap's own end.
    return require_utc(datetime(day.year, day.month, day.day, tzinfo=zone_info(zone)))


def zone_info(zone: str) -> ZoneInfo:
    """The IANA zone.

    Raises: ValueError naming the zone when there is none of that name.
    """
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ValueError(f"{zone!r} is not an IANA time zone such as Europe/Vienna") from exc
