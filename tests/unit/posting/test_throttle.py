"""Permits and waiting times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterpost.core.clock import ManualClock
from meterpost.posting.throttle import BackOff, RateLimit

START = datetime(2026, 11, 1, tzinfo=UTC)


@given(
    permits=st.integers(1, 6),
    window=st.integers(1, 20),
    steps=st.lists(st.integers(0, 8), max_size=60),
)
def test_no_window_ever_holds_more_than_its_permits(
    permits: int, window: int, steps: list[int]
) -> None:
    """However requests arrive, any stretch of the window's length holds at most the permits."""
    limit, clock, granted = RateLimit(permits, window), ManualClock(START), []
    for step in steps:
        clock.advance(timedelta(seconds=step))
        if limit.free_at(granted, clock.now()) <= clock.now():
            granted.append(clock.now())
    for moment in granted:
        assert sum(moment <= other < moment + limit.window for other in granted) <= permits


def test_waiting_until_free_is_enough() -> None:
    """At the moment named a permit is free, not a microsecond before."""
    limit = RateLimit(2, 10)
    granted = [START, START + timedelta(seconds=4)]
    free = limit.free_at(granted, START + timedelta(seconds=5))
    assert free == START + timedelta(seconds=10)
    assert limit.free_at(granted, free) == free
    just_before = free - timedelta(microseconds=1)
    assert limit.free_at(granted, just_before) == free


def test_a_clock_that_runs_ahead_makes_us_slower_only() -> None:
    """Permits dated in the future count."""
    assert RateLimit(1, 10).free_at([START + timedelta(seconds=5)], START) == START + timedelta(
        seconds=15
    )


@pytest.mark.parametrize(("permits", "window"), [(0, 1), (1, 0), (1, -1)])
def test_a_limit_that_permits_nothing_is_refused(permits: int, window: float) -> None:
    """Zero permits or no window is a mistake in the configuration."""
    with pytest.raises(ValueError, match="at least one permit"):
        RateLimit(permits, window)


def test_back_off_doubles_up_to_its_longest() -> None:
    """1, 2, 4, 8, then 10 for ever, also after absurdly many failures."""
    back_off = BackOff(1, 10)
    waits = [back_off.after(n).total_seconds() for n in (0, 1, 2, 3, 4, 5, 10_000)]
    assert waits == [1, 1, 2, 4, 8, 10, 10]
