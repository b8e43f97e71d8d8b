"""A store in a temporary folder, journal rows from plain dicts, and a naive oracle."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from meterpost.core.ids import MeterId
from meterpost.metering.model import Aggregation, JournalRow, Meter
from meterpost.storage.duckdb import DuckDbEventStore

RECORDED = datetime(2026, 4, 1, 12, tzinfo=UTC)


class Feed:
    """Makes journal rows in sequence and drains them."""

    def __init__(self, store: DuckDbEventStore) -> None:
        self.store = store
        self.sequence = 0

    def row(self, body: list[dict[str, Any]] | bytes, events: int | None = None) -> JournalRow:
        self.sequence += 1
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        count = len(body) if events is None else events
        return JournalRow(
            self.sequence,
            RECORDED + timedelta(seconds=self.sequence),
            raw,
            count,
            f"c{self.sequence}",
            "00-aa-bb-01",
        )

    def drain(self, *bodies: Any, events: int | None = None) -> Any:
        return self.store.drain([self.row(body, events) for body in bodies])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDbEventStore]:
    with DuckDbEventStore(tmp_path, memory_limit_mb=300) as opened:
        opened.bind("j1")
        yield opened


@pytest.fixture
def feed(store: DuckDbEventStore) -> Feed:
    return Feed(store)


@pytest.fixture
def new_feed() -> Callable[[DuckDbEventStore], Feed]:
    return Feed


@pytest.fixture
def event() -> Callable[..., dict[str, Any]]:
    def make(id: str, time: str | None = "2026-03-10T10:00:00Z", **changes: Any) -> dict[str, Any]:
        made = {
            "specversion": "1.0", "id": id, "source": "/s", "type": "call", "subject": "acme",
            "data": {"n": 1, "model": "m1"},
        }  # fmt: skip
        if time is not None:
            made["time"] = time
        return {**made, **changes}

    return make


@pytest.fixture
def meter() -> Callable[..., Meter]:
    def make(aggregation: str = "sum", value: str | None = "data.n", **changes: Any) -> Meter:
        kind = Aggregation(aggregation)
        chosen = None if kind is Aggregation.COUNT else value
        return Meter(MeterId(changes.pop("id", "m")), "call", kind, "u", chosen, **changes)

    return make


@pytest.fixture
def assign() -> Callable[..., pa.Table]:
    def make(rows: Sequence[tuple[str, str, str, str, datetime, datetime]]) -> pa.Table:
        names = ("line", "meter", "source", "subject", "start_utc", "end_utc")
        columns = list(zip(*rows, strict=True)) or [[] for _ in names]
        types = [pa.string()] * 4 + [pa.timestamp("us", "UTC")] * 2
        return pa.table({n: pa.array(c, t) for n, c, t in zip(names, columns, types, strict=True)})

    return make
