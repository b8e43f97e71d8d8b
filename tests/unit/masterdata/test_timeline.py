"""The law of timelines: against a model that knows every day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from meterpost.masterdata.timeline import Span, Statement, apply, conflict, steps

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 12


def moment(day: int) -> datetime:
    return START + day * DAY


@st.composite
def statements(draw: st.DrawFn) -> list[Statement]:
    made: list[Statement] = []
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(0, DAYS - 1))
        last = draw(st.integers(first + 1, DAYS))
        value = draw(st.sampled_from(["a", "b", None]))
        one = Statement(moment(first), moment(last), None if value is None else {"v": value})
        if conflict([*made, one]) is None:
            made.append(one)
    return made


def days(spans: list[Span]) -> list[str | None]:
    found: list[str | None] = [None] * DAYS
    for span in spans:
        for day in range(DAYS):
            if span.start <= moment(day) < span.end:
                assert found[day] is None, "spans overlap"
                found[day] = str(span.values["v"])
    return found


def by_day(known: list[Span], said: list[Statement]) -> list[str | None]:
    """The documented rule, day by day."""
    after = days(known)
    for one in said:
        covered = any(other.start <= one.end < other.end for other in said)
        for span in known:
            if span.start < one.end < span.end and span.values == one.values and not covered:
                for day in range((one.end - START) // DAY, (span.end - START) // DAY):
                    after[day] = None
    for one in said:
        for day in range((one.start - START) // DAY, (one.end - START) // DAY):
            after[day] = None if one.values is None else str(one.values["v"])
    return after


def test_the_earliest_repeated_end_counts_in_any_order() -> None:
    """Two repetitions of what is in force, each with an end, say the same in both orders."""
    known = [Span(moment(0), moment(4), {"v": "b"})]
    said = [
        Statement(moment(2), moment(3), {"v": "b"}),
        Statement(moment(0), moment(1), {"v": "b"}),
    ]
    assert days(apply(known, said))[:4] == ["b", None, "b", None]
    assert apply(known, said) == apply(known, said[::-1])


@settings(max_examples=300, deadline=None)
@given(st.lists(statements(), max_size=5), st.randoms(use_true_random=False))
def test_statements_replace_their_span_and_leave_the_rest(imports, random):
    """Whatever is said in whatever order, each day has what the rule gives it, and only once."""
    spans: list[Span] = []
    for said in imports:
        expected = by_day(spans, said)
        shuffled = list(said)
        random.shuffle(shuffled)
        before, spans = spans, apply(spans, shuffled)
        assert days(spans) == expected
        assert all(a.end <= b.start for a, b in pairwise(spans))
        assert not list(steps(spans, apply(spans, said))), "said twice is said once"
        differing = [day for day in range(DAYS) if days(before)[day] != days(spans)[day]]
        told = [
            day
            for step in steps(before, spans)
            for day in range(DAYS)
            if step.start <= moment(day) < step.end
        ]
        assert told == differing
