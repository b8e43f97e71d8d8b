"""Time as an argument: every use case is handed a clock, so tests can hold it still."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Gives the time and waits."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after that many seconds of this clock's time."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Block the calling thread."""
        time.sleep(seconds)


class ManualClock:
    """A clock that moves only when told to (tests, simulation)."""

    def __init__(self, start: datetime) -> None:
        self._now = require_utc(start)

    def now(self) -> datetime:
        """The moment it was last moved to."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Move on by that many seconds at once."""
        self.advance(timedelta(seconds=seconds))

    def advance(self, by: timedelta) -> None:
        """Move forward; a clock never goes back."""
        if by < timedelta(0):
            raise ValueError(f"a clock cannot go back by {by}")
        self._now += by


def require_utc(moment: datetime) -> datetime:
    """The same moment in UTC.

    Raises: ValueError for a naive datetime, which could mean any of forty moments, and for one
    whose UTC form falls out of the years 1 to 9999.
    """
    if moment.utcoffset() is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; give an aware datetime")
    try:
        return moment.astimezone(UTC)
    except OverflowError as exc:
        raise ValueError(f"{moment.isoformat()} is outside the years 1 to 9999 in UTC") from exc
