"""Time as an argument."""

from datetime import UTC, datetime, timedelta, timezone, tzinfo

import pytest

from meterpost.core.clock import ManualClock, SystemClock, require_utc

START = datetime(2026, 1, 1, tzinfo=UTC)


class Zoneless(tzinfo):
    """A zone object that knows no offset: the datetime is naive all the same."""

    def utcoffset(self, when: datetime | None) -> timedelta | None:
        return None


def test_a_manual_clock_moves_when_told() -> None:
    """Sleeping moves it at once; it never goes back."""
    clock = ManualClock(START)
    clock.sleep(1.5)
    clock.advance(timedelta(hours=1))
    assert clock.now() == START + timedelta(hours=1, seconds=1.5)
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(timedelta(seconds=-1))


def test_the_system_clock_is_aware_and_in_utc() -> None:
    """No naive moment enters through it."""
    assert SystemClock().now().tzinfo is UTC
    SystemClock().sleep(0)


def test_moments_come_out_in_utc() -> None:
    """Any offset is turned into the same moment in UTC."""
    there = datetime(2026, 1, 1, 5, 45, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    assert require_utc(there) == START
    assert require_utc(there).tzinfo is UTC


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 1),  # noqa: DTZ001
        datetime(2026, 1, 1, tzinfo=Zoneless()),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-2))),
    ],
)
def test_a_moment_without_a_form_in_utc_is_a_value_error(moment: datetime) -> None:
    """Naive times, and times whose UTC year would be 0 or 10000."""
    with pytest.raises(ValueError, match=r"time zone|outside the years"):
        require_utc(moment)
