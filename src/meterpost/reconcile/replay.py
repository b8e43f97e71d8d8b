# ruff: noqa: S608  # SQL is written from accepted expression trees; values are columns
"""A meter run over listed events alone: a second way to a quantity, beside the event store.

Nothing of measurements or rollups is used: the raw data of the events is read again, and the
meter's expressions are evaluated in a database in memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext

import duckdb
import pyarrow as pa

from meterpost.core.money import EXACT
from meterpost.metering.expression_sql import (
    exact_number_sql,
    identifier,
    json_path,
    path_name,
    quoted,
)
from meterpost.metering.expressions import compile_meter
from meterpost.metering.model import Aggregation, Components, Meter
from meterpost.metering.usage_digest import fingerprint_of, render
from meterpost.reconcile.trace import TracedEvent

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)
#: Longer numbers than a double carries are read as text, as on arrival.
_DIGITS_EXACT = 15
_LONG_NUMBER = re.compile(r"[0-9][0-9.]{15,}")
_ATTRIBUTES = ("id", "source", "type", "subject")


@dataclass(slots=True)
class Replay:
    """A running total over events, fed page by page."""

    meter: Meter
    events: int = 0
    left_out: list[str] = field(default_factory=list)
    _total: Decimal = Decimal(0)
    _minimum: Decimal | None = None
    _maximum: Decimal | None = None
    _distinct: set[str] = field(default_factory=set)
    _latest: tuple[datetime, int, Decimal] | None = None
    _lane1: int = 0
    _lane2: int = 0

    def add(self, events: Sequence[TracedEvent]) -> None:
        """Count these events; those that the meter would not count are listed in ``left_out``."""
        for event, (holds, value) in zip(events, evaluate(self.meter, events), strict=True):
            needs_value = self.meter.aggregation is not Aggregation.COUNT
            if not holds or (needs_value and value is None):
                self.left_out.append(f"{event.source} {event.id}")
                continue
            self._count(event, value)

    def _count(self, event: TracedEvent, value: object) -> None:
        assert event.time is not None
        self.events += 1
        lane1, lane2 = _fingerprint(event)
        self._lane1 += lane1
        self._lane2 += lane2
        if self.meter.aggregation is Aggregation.UNIQUE:
            self._distinct.add(str(value))
        elif isinstance(value, Decimal):
            with localcontext(EXACT):
                self._total += value
            self._minimum = value if self._minimum is None else min(self._minimum, value)
            self._maximum = value if self._maximum is None else max(self._maximum, value)
            place = (event.time, event.sequence, value)
            self._latest = place if self._latest is None else max(self._latest, place)

    @property
    def components(self) -> Components:
        """What the events add up to."""
        return Components(
            self.events,
            self._total,
            self._minimum,
            self._maximum,
            len(self._distinct),
            None if self._latest is None else self._latest[2],
        )

    @property
    def digest(self) -> str:
        """The usage digest of exactly these events, from their raw content."""
        return render(self._lane1, self._lane2, self.events)


def evaluate(
    meter: Meter, events: Sequence[TracedEvent]
) -> Iterator[tuple[bool, Decimal | str | None]]:
    """Per event: whether the filter holds, and the value (None: the meter has none, or failed)."""
    compiled = compile_meter(meter)
    texts = sorted({path for part in compiled.expressions for path in part.fields})
    numbers = sorted({path for part in compiled.expressions for path in part.number_fields})
    filtered = compiled.filter.sql if compiled.filter else "TRUE"
    value = compiled.value.sql if compiled.value else "NULL"
    number = compiled.value is not None and meter.aggregation is not Aggregation.UNIQUE
    value = f"CAST({value} AS DECIMAL(27,9))" if number else f"CAST({value} AS VARCHAR)"
    paths = ", ".join(quoted(json_path(path)) for path in texts)
    extracted = f"json_extract_string(data, [{paths}])" if texts else "NULL"
    listed = "".join(
        f", _fields[{n}] AS {identifier(path_name(path))}" for n, path in enumerate(texts, 1)
    )
    exact = "".join(
        f", {exact_number_sql(identifier(path_name(path)))} AS {identifier('#' + path_name(path))}"
        for path in numbers
    )
    table = pa.table(
        {
            "n": pa.array(range(len(events)), pa.int64()),
            **{
                name: pa.array([getattr(event, name) or "" for event in events], pa.string())
                for name in _ATTRIBUTES
            },
            "time": pa.array([event.time for event in events], pa.timestamp("us", "UTC")).cast(
                pa.timestamp("us")
            ),
            "data": pa.array([_exact(event.data) for event in events], pa.string()),
        }
    )
    with duckdb.connect(":memory:") as duck:
        duck.execute("SET TimeZone = 'UTC'")
        duck.register("listed", table)
        rows = duck.execute(
            f"""SELECT coalesce(TRY({filtered}), FALSE), TRY({value})
                FROM (SELECT *{exact} FROM (SELECT *{listed} FROM (
                    SELECT *, {extracted} AS _fields FROM listed))) ORDER BY n"""
        ).fetchall()
    yield from rows


def _exact(data: str | None) -> str | None:
    """The data with numbers that a double cannot carry as text, everything else untouched."""
    if data is None or _LONG_NUMBER.search(data) is None:
        return data

    def number(text: str, plain: type[int] | type[float]) -> object:
        return text if sum(map(str.isdigit, text)) > _DIGITS_EXACT else plain(text)

    return json.dumps(
        json.loads(
            data,
            parse_int=lambda text: number(text, int),
            parse_float=lambda text: number(text, float),
        )
    )


def _fingerprint(event: TracedEvent) -> tuple[int, int]:
    """The event's lanes. An event without a time of its own has that of its recording."""
    assert event.time is not None
    given = None if event.time == event.recorded_at else (event.time - _EPOCH) // _TICK
    return fingerprint_of(
        event.source, event.id or "", event.type or "", event.subject or "", given, event.data
    )


def replayed(meter: Meter, pages: Iterable[Sequence[TracedEvent]]) -> Replay:
    """The replay of all pages."""
    replay = Replay(meter)
    for page in pages:
        if page:
            replay.add(page)
    return replay
