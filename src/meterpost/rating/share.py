"""How much of a billing period a contract line was in force, as an exact fraction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from math import gcd
from typing import Self

from meterpost.core.errors import InvalidInput
from meterpost.core.period import Period
from meterpost.core.problem import Problem

#: Microseconds of a century have 16 digits; more than this is not a share of a period.
_DENOMINATOR_MAX = 10**18


class PartialPeriod(StrEnum):
    """What a contract line does with fixed amounts when it is in force for a part of a period."""

    FULL = "full"
    BY_TIME = "by_time"
    BY_USAGE_DAY = "by_usage_day"


@dataclass(frozen=True, slots=True)
class Share:
    """A fraction from 0 to 1 in lowest terms; equal shares are equal values.

    Raises: InvalidInput for anything below 0, above 1, or without a denominator.
    """

    numerator: int
    denominator: int

    def __post_init__(self) -> None:
        for part in (self.numerator, self.denominator):
            if type(part) is not int:
                raise TypeError(f"a share is made of whole numbers, not {type(part).__name__}")
        if not 0 <= self.numerator <= self.denominator or self.denominator == 0:
            raise _refused(f"{self.numerator}/{self.denominator} is not a share from 0 to 1.")
        common = gcd(self.numerator, self.denominator)
        object.__setattr__(self, "numerator", self.numerator // common)
        object.__setattr__(self, "denominator", self.denominator // common)
        if self.denominator > _DENOMINATOR_MAX:
            raise _refused(f"{self} is finer than 1/{_DENOMINATOR_MAX}.")

    @classmethod
    def of_time(cls, in_force: Period, period: Period) -> Self:
        """The part of the period's elapsed time, to the microsecond; DST days count as long as
        they were.

        Raises: InvalidInput where the two do not overlap.
        """
        common = in_force.intersection(period)
        if common is None:
            raise _refused(f"{in_force} lies outside the billing period {period}.")
        tick = timedelta(microseconds=1)
        return cls((common.end - common.start) // tick, (period.end - period.start) // tick)

    @property
    def is_whole(self) -> bool:
        """Whether nothing needs scaling."""
        return self.numerator == self.denominator

    def __str__(self) -> str:
        return f"{self.numerator}/{self.denominator}"


#: In force for the whole billing period.
WHOLE = Share(1, 1)


def share_of(
    policy: PartialPeriod, *, in_force: Period, period: Period, zone: str, days_used: int
) -> Share:
    """The share that scales included quantity, tier bounds, fixed amounts and the minimum.

    ``in_force`` is the line's own validity, ``zone`` the contract's; ``days_used`` is the number
    of distinct local days of the period with usage, looked at by ``by_usage_day`` only.

    Raises: InvalidInput when in_force misses the period, or more days were used than it has.
    Source: docs/rating.md, "Partial periods".
    """
    match policy:
        case PartialPeriod.FULL:
            return WHOLE
        case PartialPeriod.BY_TIME:
            return Share.of_time(in_force, period)
        case PartialPeriod.BY_USAGE_DAY:
            first, last = period.local_days(zone)
            return Share(days_used, (last - first).days + 1)


def _refused(sentence: str) -> InvalidInput:
    return InvalidInput(
        "The share of the billing period cannot be used.",
        [Problem("bad-share", sentence, "share")],
    )
