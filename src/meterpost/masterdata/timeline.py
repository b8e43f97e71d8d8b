"""What is known about one thing over valid time, and how a statement changes it.

A timeline is a list of spans in order, without overlap. Spans that touch stay apart even where
their values are equal: each was said by itself, and is ended by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TypeAlias

Values: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Span:
    """Values that hold in [start, end)."""

    start: datetime
    end: datetime
    values: Values


@dataclass(frozen=True, slots=True)
class Statement:
    """What an import says about one thing: these values hold in [start, end).

    ``values`` None says that nothing holds there.
    """

    start: datetime
    end: datetime
    values: Values | None
    where: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One difference between two timelines: in [start, end) ``old`` became ``new``."""

    start: datetime
    end: datetime
    old: Values | None
    new: Values | None


def conflict(statements: Sequence[Statement]) -> tuple[Statement, Statement] | None:
    """Two statements that say different things about one moment, if there are any."""
    ordered = sorted(statements, key=lambda s: (s.start, s.end))
    for index, statement in enumerate(ordered):
        for other in ordered[index + 1 :]:
            if other.start >= statement.end:
                break
            if other.values != statement.values:
                return statement, other
    return None


def apply(known: Sequence[Span], statements: Sequence[Statement]) -> list[Span]:
    """The timeline after the statements, which must not contradict each other.

    Stated spans replace what was known for them; the rest stays. One reading of people's intent
    is added: who repeats the values in force and gives them an end means that they end there.
    """
    shortened = [_shortened(span, statements) for span in known]
    pieces = [
        piece
        for span in shortened
        for piece in _without(
            span, [(s.start, s.end) for s in statements if s.values != span.values]
        )
    ]
    pieces.extend(Span(s.start, s.end, s.values) for s in statements if s.values is not None)
    return merged(pieces)


def merged(spans: Sequence[Span]) -> list[Span]:
    """The same facts as a timeline: in order, overlaps of equal values joined."""
    result: list[Span] = []
    for span in sorted(spans, key=lambda s: s.start):
        last = result[-1] if result else None
        if last is not None and span.start < last.end and last.values == span.values:
            result[-1] = Span(last.start, max(last.end, span.end), last.values)
        else:
            result.append(span)
    return result


def steps(old: Sequence[Span], new: Sequence[Span]) -> Iterator[Step]:
    """What differs between two timelines, in order of time."""
    cuts = sorted({moment for span in (*old, *new) for moment in (span.start, span.end)})
    pending: Step | None = None
    for start, end in pairwise(cuts):
        before, after = _at(old, start), _at(new, start)
        if before == after:
            continue
        if pending and pending.end == start and (pending.old, pending.new) == (before, after):
            pending = Step(pending.start, end, before, after)
            continue
        if pending:
            yield pending
        pending = Step(start, end, before, after)
    if pending:
        yield pending


def _at(spans: Sequence[Span], moment: datetime) -> Values | None:
    return next((s.values for s in spans if s.start <= moment < s.end), None)


def _shortened(span: Span, statements: Sequence[Statement]) -> Span:
    """The span up to the earliest end that a repetition of its values gives it."""
    ends = [
        statement.end
        for statement in statements
        if span.start < statement.end < span.end
        and statement.values == span.values
        and not any(other.start <= statement.end < other.end for other in statements)
    ]
    return Span(span.start, min(ends), span.values) if ends else span


def _without(span: Span, holes: Sequence[tuple[datetime, datetime]]) -> Iterator[Span]:
    start = span.start
    for hole_start, hole_end in sorted(holes):
        if hole_end <= start or hole_start >= span.end:
            continue
        if start < hole_start:
            yield Span(start, hole_start, span.values)
        start = max(start, hole_end)
    if start < span.end:
        yield Span(start, span.end, span.values)
