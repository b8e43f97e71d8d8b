"""When a dead child is started again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterpost.supervise import RestartPolicy


def test_each_restart_waits_twice_as_long_up_to_a_bound() -> None:
    """The delays double and stay at the maximum."""
    policy = RestartPolicy(restarts_max=5, window_s=60, backoff_first_s=1, backoff_max_s=4)
    assert [policy.delay_s([0.0] * count, 1.0) for count in range(6)] == [1, 2, 4, 4, 4, None]


def test_a_child_that_ran_for_a_window_begins_anew() -> None:
    """Restarts older than the window do not count."""
    policy = RestartPolicy(restarts_max=2, window_s=10, backoff_first_s=1)
    assert policy.delay_s([0.0, 1.0], 5.0) is None
    assert policy.delay_s([0.0, 1.0], 11.0) == 1


@given(st.lists(st.floats(0, 1e6), max_size=3000), st.floats(0, 1e6))
def test_a_delay_is_bounded_whatever_happened(restarts: list[float], now: float) -> None:
    """No history of restarts gives a delay outside (0, maximum]."""
    delay = RestartPolicy(restarts_max=100_000).delay_s(restarts, now)
    assert delay is not None
    assert 0 < delay <= 10.0


def test_a_policy_without_time_is_refused() -> None:
    """A negative count or a window of nothing is a mistake."""
    with pytest.raises(ValueError, match="positive times"):
        RestartPolicy(window_s=0)
    with pytest.raises(ValueError, match="0 or more"):
        RestartPolicy(restarts_max=-1)
