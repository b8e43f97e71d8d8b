"""Periods, and the billing periods a contract cuts time into."""

from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterpost.core.period import (
    BillingCycle,
    BillingInterval,
    Period,
    add_months,
    local_midnight,
    zone_info,
)

ZONES = [
    "UTC",
    "Europe/Vienna",
    "America/New_York",
    "America/Santiago",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Africa/Cairo",
    "Atlantic/Azores",
    "Pacific/Apia",
    "Australia/Lord_Howe",
]
zones = st.sampled_from(ZONES)
days = st.dates(date(1990, 1, 1), date(2090, 1, 1))
moments = st.datetimes(
    datetime(1990, 1, 1),  # noqa: DTZ001
    datetime(2090, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
cycles = st.builds(BillingCycle, st.sampled_from(BillingInterval), days, zones)


def starts(cycle: BillingCycle, window: Period) -> list[str]:
    zone = zone_info(cycle.zone)
    return [str(p.start.astimezone(zone).date()) for p in cycle.ending_in(window)]


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


def test_a_period_holds_its_start_and_not_its_end() -> None:
    """Half-open: neighbours share no moment and leave none out."""
    period = Period(utc(2026, 1, 1), utc(2026, 2, 1))
    assert utc(2026, 1, 1) in period
    assert utc(2026, 2, 1) - timedelta(microseconds=1) in period
    assert utc(2026, 2, 1) not in period


def test_a_period_is_kept_in_utc() -> None:
    """The same span written in another offset is the same value."""
    plus2 = timezone(timedelta(hours=2))
    there = Period(datetime(2026, 1, 1, 2, tzinfo=plus2), datetime(2026, 1, 2, 2, tzinfo=plus2))
    assert there == Period(utc(2026, 1, 1), utc(2026, 1, 2))


def test_a_period_needs_an_end_after_its_start_and_zones() -> None:
    """Empty, reversed and naive spans are refused."""
    with pytest.raises(ValueError, match="ends after it starts"):
        Period(utc(2026, 1, 1), utc(2026, 1, 1))
    with pytest.raises(ValueError, match="no time zone"):
        Period(datetime(2026, 1, 1), utc(2026, 1, 2))  # noqa: DTZ001


def test_seconds_are_counted_in_whole_numbers() -> None:
    """Also over centuries, where a float of seconds would round the microseconds up."""
    assert Period.month("2026-10", "Europe/Vienna").seconds == 745 * 3600
    long = Period(utc(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC))
    assert long.seconds == 315537897599


@pytest.mark.parametrize(
    ("day", "zone", "hours"),
    [
        (date(2026, 3, 29), "Europe/Vienna", 23),
        (date(2026, 10, 25), "Europe/Vienna", 25),
        (date(2024, 9, 8), "America/Santiago", 23),  # midnight itself does not exist
        (date(2024, 3, 31), "Asia/Beirut", 23),
        (date(2024, 10, 27), "Atlantic/Azores", 25),  # midnight comes twice
        (date(2024, 6, 1), "UTC", 24),
    ],
)
def test_a_local_day_is_as_long_as_it_was(day: date, zone: str, hours: int) -> None:
    """DST days have 23 or 25 hours, also where the change swallows or repeats midnight."""
    assert Period.of_days(day, day + timedelta(days=1), zone).seconds == hours * 3600


def test_a_skipped_midnight_starts_the_day_at_its_first_moment() -> None:
    """Santiago went from 23:59:59 to 01:00."""
    start = local_midnight(date(2024, 9, 8), "America/Santiago")
    assert start == utc(2024, 9, 8, 4)
    before = (start - timedelta(microseconds=1)).astimezone(zone_info("America/Santiago"))
    assert before.date() == date(2024, 9, 7)


@given(days, zones)
def test_local_days_tile_time(day: date, zone: str) -> None:
    """The moment a local day starts belongs to it, the moment before to the day before."""
    start = local_midnight(day, zone)
    tz = zone_info(zone)
    assert (start - timedelta(microseconds=1)).astimezone(tz).date() < day
    # Samoa skipped 30 December 2011: that day's first moment is the next day's.
    if (zone, day) != ("Pacific/Apia", date(2011, 12, 30)):
        assert start.astimezone(tz).date() == day


@pytest.mark.parametrize("text", ["2026-1", "2026-13", "202610", "2026-W01", "2026-10-01", ""])
def test_a_month_is_written_in_one_way(text: str) -> None:
    """Anything but YYYY-MM is refused with an example."""
    with pytest.raises(ValueError, match="write it like 2026-10"):
        Period.month(text)


@pytest.mark.parametrize(("text", "zone"), [("9999-12", "UTC"), ("0001-01", "Europe/Vienna")])
def test_months_at_the_ends_of_the_calendar_are_value_errors(text: str, zone: str) -> None:
    """What has no UTC form is bad input, not a crash of another kind."""
    with pytest.raises(ValueError, match="year"):
        Period.month(text, zone)


def test_local_days_are_written_as_people_do() -> None:
    """First and last day of a service period, both included, in its zone."""
    october = Period.month("2026-10", "Europe/Vienna")
    assert october.local_days("Europe/Vienna") == (date(2026, 10, 1), date(2026, 10, 31))
    assert str(october) == "2026-09-30T22:00Z/2026-10-31T23:00Z"


def test_intersections() -> None:
    """The common part; touching is not overlapping."""
    january = Period.month("2026-01")
    assert january.intersection(Period.month("2026-02")) is None
    late = Period(utc(2026, 1, 20), utc(2026, 3, 1))
    assert january.intersection(late) == Period(utc(2026, 1, 20), utc(2026, 2, 1))
    assert late.intersection(january) == january.intersection(late)


def test_an_anchor_on_the_31st_means_the_last_day_of_shorter_months() -> None:
    """February does not pull the following months forward."""
    cycle = BillingCycle(BillingInterval.MONTH, date(2024, 1, 31), "Europe/Vienna")
    window = Period.of_days(date(2024, 2, 1), date(2024, 7, 1), "Europe/Vienna")
    found = starts(cycle, window)
    assert found == ["2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30", "2024-05-31"]


def test_a_year_anchored_on_29_february() -> None:
    """Years without that day start on the 28th, leap years on the 29th again."""
    cycle = BillingCycle(BillingInterval.YEAR, date(2024, 2, 29), "UTC")
    window = Period(utc(2025, 1, 1), utc(2029, 1, 1))
    assert starts(cycle, window) == ["2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28"]
    assert cycle.containing(utc(2028, 2, 29)).start == utc(2028, 2, 29)
    assert cycle.containing(utc(2028, 2, 28)).start == utc(2027, 2, 28)


def test_a_quarter_counts_three_months_from_its_anchor() -> None:
    """Quarters follow the contract, not the calendar year, also before the anchor."""
    cycle = BillingCycle(BillingInterval.QUARTER, date(2026, 11, 30), "UTC")
    assert cycle.containing(utc(2027, 2, 27)).end == utc(2027, 2, 28)
    assert cycle.containing(utc(2027, 2, 28)) == Period(utc(2027, 2, 28), utc(2027, 5, 30))
    assert cycle.containing(utc(2026, 8, 29)).start == utc(2026, 5, 30)


def test_the_periods_of_a_close_end_in_its_window() -> None:
    """A period that ends with the window belongs to it; one that ends where it begins does not."""
    first = BillingCycle(BillingInterval.MONTH, date(2020, 1, 1), "UTC")
    assert list(first.ending_in(Period.month("2026-10"))) == [Period.month("2026-10")]
    middle = BillingCycle(BillingInterval.MONTH, date(2020, 1, 15), "UTC")
    assert starts(middle, Period.month("2026-10")) == ["2026-09-15"]
    yearly = BillingCycle(BillingInterval.YEAR, date(2020, 1, 1), "UTC")
    assert starts(yearly, Period.month("2026-10")) == []
    assert starts(yearly, Period.month("2026-12")) == ["2026-01-01"]


def test_a_contract_in_another_zone_ends_in_another_accounting_month() -> None:
    """New York's October ends five hours into Vienna's November."""
    cycle = BillingCycle(BillingInterval.MONTH, date(2026, 1, 1), "America/New_York")
    assert starts(cycle, Period.month("2026-10", "Europe/Vienna")) == ["2026-09-01"]
    assert starts(cycle, Period.month("2026-11", "Europe/Vienna")) == ["2026-10-01"]


@given(cycles, moments)
def test_every_moment_lies_in_exactly_one_billing_period(
    cycle: BillingCycle, moment: datetime
) -> None:
    """The period found holds the moment, and its edges lead to itself and its neighbours."""
    period = cycle.containing(moment)
    tick = timedelta(microseconds=1)
    assert moment in period
    assert cycle.containing(period.start) == period
    assert cycle.containing(period.end - tick) == period
    assert cycle.containing(period.end).start == period.end
    assert cycle.containing(period.start - tick).end == period.start


@given(cycles, moments, st.integers(1, 900), st.integers(1, 900))
def test_neighbouring_closes_bill_every_period_once(
    cycle: BillingCycle, start: datetime, first: int, second: int
) -> None:
    """Two adjoining windows find what their union finds: no gap, nothing twice."""
    middle = start + timedelta(days=first)
    end = middle + timedelta(days=second)
    whole = list(cycle.ending_in(Period(start, end)))
    assert whole == [
        *cycle.ending_in(Period(start, middle)),
        *cycle.ending_in(Period(middle, end)),
    ]
    assert all(a.end == b.start for a, b in pairwise(whole))


@given(days, st.integers(-600, 600))
def test_adding_months_keeps_the_day_where_it_can(day: date, months: int) -> None:
    """The day, or the month's last one; and the month is always the one meant."""
    moved = add_months(day, months)
    assert (moved.year - day.year) * 12 + moved.month - day.month == months
    assert moved.day == day.day or (moved.day < day.day and (moved + timedelta(days=1)).day == 1)


@pytest.mark.parametrize(
    "zone", ["", "Vienna", "Europe", "../etc/passwd", "/etc/localtime", "a\0b"]
)
def test_an_unknown_zone_is_named(zone: str) -> None:
    """Neither a directory nor a path outside the zone data is a zone."""
    with pytest.raises(ValueError, match="not an IANA time zone"):
        zone_info(zone)
