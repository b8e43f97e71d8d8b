"""Shares of a billing period."""

from datetime import UTC, date, datetime, timedelta

import pytest

from meterpost.core.errors import InvalidInput
from meterpost.core.period import Period
from meterpost.rating.model import WHOLE, PartialPeriod, Share, share_of

OCTOBER = Period.month("2026-10", "Europe/Vienna")


def test_shares_are_in_lowest_terms() -> None:
    """Equal fractions are equal values, so recalculating gives the same bytes."""
    assert Share(10, 30) == Share(1, 3)
    assert Share(0, 30) == Share(0, 7)
    assert Share(31, 31) == WHOLE
    assert str(Share(10, 30)) == "1/3"


@pytest.mark.parametrize(("part", "whole"), [(-1, 3), (4, 3), (0, 0), (1, -3), (1, 10**18 + 1)])
def test_what_is_no_share_is_refused(part: int, whole: int) -> None:
    """Below nothing, more than everything, of nothing, or absurdly fine."""
    with pytest.raises(InvalidInput):
        Share(part, whole)


def test_a_share_is_made_of_whole_numbers() -> None:
    """A float share would carry its error into every amount."""
    with pytest.raises(TypeError):
        Share(0.5, 1)  # type: ignore[arg-type]


def test_by_time_counts_elapsed_hours_of_a_dst_month() -> None:
    """October in Vienna has 745 hours; up to the 25th local midnight are 576 of them."""
    first_part = Period.of_days(date(2026, 9, 12), date(2026, 10, 25), "Europe/Vienna")
    rest = Period.of_days(date(2026, 10, 25), date(2027, 1, 1), "Europe/Vienna")
    assert Share.of_time(first_part, OCTOBER) == Share(576, 745)
    assert Share.of_time(rest, OCTOBER) == Share(169, 745)


def test_by_time_keeps_microseconds() -> None:
    """A hand-over between two seconds loses nothing."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    hour = Period(start, start + timedelta(hours=1))
    tick = Period(start, start + timedelta(microseconds=1))
    assert Share.of_time(tick, hour) == Share(1, 3_600_000_000)


def test_a_line_outside_the_period_has_no_share_of_it() -> None:
    """That would be a bill for a period the line was never in force in."""
    with pytest.raises(InvalidInput, match="outside the billing period"):
        Share.of_time(Period.month("2026-11", "Europe/Vienna"), OCTOBER)


@pytest.mark.parametrize(
    ("policy", "share"),
    [
        (PartialPeriod.FULL, WHOLE),
        (PartialPeriod.BY_TIME, Share(576, 745)),
        (PartialPeriod.BY_USAGE_DAY, Share(7, 31)),
    ],
)
def test_the_policy_chooses_the_share(policy: PartialPeriod, share: Share) -> None:
    """Full ignores the hand-over, by_time follows the clock, by_usage_day counts local days."""
    in_force = Period.of_days(date(2026, 10, 1), date(2026, 10, 25), "Europe/Vienna")
    found = share_of(policy, in_force=in_force, period=OCTOBER, zone="Europe/Vienna", days_used=7)
    assert found == share


def test_more_days_used_than_the_period_has_is_refused() -> None:
    """A wrong zone or a wrong count must not become a fee above the full one."""
    with pytest.raises(InvalidInput):
        share_of(
            PartialPeriod.BY_USAGE_DAY,
            in_force=OCTOBER,
            period=OCTOBER,
            zone="Europe/Vienna",
            days_used=32,
        )
