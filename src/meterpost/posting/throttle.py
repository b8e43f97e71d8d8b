"""How fast we may ask an ERP: permits in a sliding log, and waiting times that grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``permits`` requests in any ``window_s`` seconds, over all posters together."""

    permits: int
    window_s: float

    def __post_init__(self) -> None:
        if self.permits < 1 or self.window_s <= 0:
            raise ValueError(
                f"a rate limit needs at least one permit in a window longer than zero, "
                f"not {self.permits} in {self.window_s} s"
            )

    @property
    def window(self) -> timedelta:
        """The window's length."""
        return timedelta(seconds=self.window_s)

    def free_at(self, granted: Sequence[datetime], now: datetime) -> datetime:
        """When the next permit is free: ``now`` itself where one is free already.

        ``granted`` are the moments of earlier permits, in any order; those that the window has
        left do not count. Permits dated after ``now`` (another poster's clock runs ahead)
        count, so that a wrong clock makes us slower, never faster.
        """
        recent = sorted(moment for moment in granted if moment > now - self.window)
        if len(recent) < self.permits:
            return now
        return recent[-self.permits] + self.window


@dataclass(frozen=True, slots=True)
class BackOff:
    """Waiting times that double from ``first_s`` and never pass ``longest_s``."""

    first_s: float
    longest_s: float

    def after(self, failures: int) -> timedelta:
        """How long to wait after that many failures in a row (1 or more)."""
        doublings = min(max(failures, 1) - 1, 40)
        return timedelta(seconds=min(self.first_s * 2**doublings, self.longest_s))
