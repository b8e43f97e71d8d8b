"""From the bodies of journal rows to Arrow columns, one row per event.

Bodies of plain CloudEvents take the fast way: one decode per body, one list per column. A body
with anything unusual (extension attributes, binary data, an attribute of the wrong type) is read
event by event, so that one bad event costs itself alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa

from meterpost.metering.model import EVENTS_PER_ROW_MAX, ORDINAL_BITS, JournalRow

#: Events held as Python objects at a time; also what one step of a drain decodes.
CHUNK_EVENTS = 20_000
STEP_EVENTS = 40_000
_NO_DATA = msgspec.Raw()

ARRIVED = pa.schema(
    [
        ("seq", pa.int64()),
        ("source", pa.string()),
        ("id", pa.string()),
        ("type", pa.string()),
        ("subject", pa.string()),
        ("time_text", pa.string()),
        ("data", pa.string()),
        ("extensions", pa.string()),
        ("traceparent", pa.string()),
    ]
)
BROKEN = pa.schema(
    [
        ("seq", pa.int64()),
        ("source", pa.string()),
        ("id", pa.string()),
        ("reason", pa.string()),
        ("field", pa.string()),
        ("body", pa.string()),
    ]
)
REQUESTS = pa.schema(
    [
        ("sequence", pa.int64()),
        ("recorded_at", pa.timestamp("us")),
        ("events", pa.int32()),
        ("correlation_id", pa.string()),
        ("traceparent", pa.string()),
    ]
)


class _Event(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    id: str
    source: str
    type: str
    specversion: str = "1.0"
    subject: str | None = None
    time: str | None = None
    data: msgspec.Raw = _NO_DATA
    datacontenttype: str | None = None
    traceparent: str | None = None


_decode_events = msgspec.json.Decoder(list[_Event]).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_KNOWN = {name for name in _Event.__struct_fields__ if name != "datacontenttype"}
_JSON_TYPES = {None, "application/json"}


@dataclass(slots=True)
class Decoded:
    """Arrow tables of a drain: good events, events that cannot be read, and their requests."""

    arrived: pa.Table
    broken: pa.Table
    requests: pa.Table


@dataclass(slots=True)
class _Columns:
    """Columns under construction."""

    schema: pa.Schema
    lists: list[list[Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.lists = [[] for _ in self.schema]

    def add(self, row: Sequence[Any]) -> None:
        for column, value in zip(self.lists, row, strict=True):
            column.append(value)

    def table(self) -> pa.Table:
        arrays = [pa.array(c, f.type) for c, f in zip(self.lists, self.schema, strict=True)]
        return pa.table(arrays, schema=self.schema)


def decode_ahead(rows: Sequence[JournalRow]) -> Iterator[Decoded]:
    """The events of journal rows step by step, the next step decoded while one is used.

    DuckDB works without the interpreter's lock, so the two overlap.
    """
    steps = list(_steps(rows))
    if len(steps) == 1:
        yield decode(steps[0])
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as pool:
        coming = pool.submit(decode, steps[0])
        for following in steps[1:]:
            ready = coming.result()
            coming = pool.submit(decode, following)
            yield ready
        yield coming.result()


def _steps(rows: Sequence[JournalRow]) -> Iterator[list[JournalRow]]:
    step: list[JournalRow] = []
    events = 0
    for row in rows:
        step.append(row)
        events += row.events
        if events >= STEP_EVENTS:
            yield step
            step, events = [], 0
    if step:
        yield step


def decode(rows: Sequence[JournalRow]) -> Decoded:
    """The events of journal rows; every one of their ordinals appears exactly once."""
    broken = _Columns(BROKEN)
    odd = _Columns(ARRIVED)
    tables: list[pa.Table] = []
    events: list[_Event] = []
    seqs: list[int] = []
    for row in rows:
        found = _plain_events(row)
        if found is None:
            _decode_slowly(row, odd, broken)
            continue
        base = row.sequence << ORDINAL_BITS
        seqs.extend(range(base, base + len(found)))
        events += found
        if len(events) >= CHUNK_EVENTS:
            tables.append(_arrow(seqs, events))
            events, seqs = [], []
    tables.append(_arrow(seqs, events))
    tables.append(odd.table())
    return Decoded(pa.concat_tables(tables), broken.table(), _requests(rows))


def _plain_events(row: JournalRow) -> list[_Event] | None:
    body = row.body
    if body[:1] == b"{" and row.events == 1:
        body = b"[" + body + b"]"
    try:
        found = _decode_events(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if len(found) != row.events or len(found) > EVENTS_PER_ROW_MAX:
        return None
    for event in found:
        if not event.id or not event.source or not event.type:
            return None
        if event.datacontenttype not in _JSON_TYPES:
            return None
    return found


def _arrow(seqs: list[int], events: list[_Event]) -> pa.Table:
    data = pa.array([bytes(event.data) or None for event in events], pa.binary())
    count = len(events)
    return pa.table(
        [
            pa.array(seqs, pa.int64()),
            pa.array([event.source for event in events], pa.string()),
            pa.array([event.id for event in events], pa.string()),
            pa.array([event.type for event in events], pa.string()),
            pa.array([event.subject for event in events], pa.string()),
            pa.array([event.time for event in events], pa.string()),
            data.cast(pa.string()),
            pa.nulls(count, pa.string()),
            pa.array([event.traceparent for event in events], pa.string()),
        ],
        schema=ARRIVED,
    )


def _requests(rows: Sequence[JournalRow]) -> pa.Table:
    return pa.table(
        [
            pa.array([row.sequence for row in rows], pa.int64()),
            pa.array([row.recorded_at for row in rows], pa.timestamp("us", "UTC")).cast(
                pa.timestamp("us")
            ),
            pa.array([row.events for row in rows], pa.int32()),
            pa.array([row.correlation_id for row in rows], pa.string()),
            pa.array([row.traceparent for row in rows], pa.string()),
        ],
        schema=REQUESTS,
    )


def _decode_slowly(row: JournalRow, odd: _Columns, broken: _Columns) -> None:
    base = row.sequence << ORDINAL_BITS
    try:
        bodies = list(_single_bodies(row.body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        bodies = []
    if len(bodies) != row.events:
        reason = f"the request was accepted with {row.events} events and holds {len(bodies)}"
        shown = row.body.decode("utf-8", "replace")
        for ordinal in range(row.events):
            broken.add([base + ordinal, "", None, reason, "", shown if not ordinal else None])
        return
    for ordinal, body in enumerate(bodies):
        _decode_one(base + ordinal, body, odd, broken)


def _single_bodies(body: bytes) -> Iterator[bytes]:
    stripped = body.strip()
    if stripped[:1] == b"[":
        yield from (bytes(raw) for raw in _decode_list(stripped))
        return
    try:
        yield bytes(msgspec.json.decode(stripped, type=msgspec.Raw))
    except msgspec.MsgspecError:
        yield from (line for line in stripped.splitlines() if line.strip())


def _decode_one(seq: int, body: bytes, odd: _Columns, broken: _Columns) -> None:
    texts: dict[str, str | None] = dict.fromkeys(
        ("source", "id", "type", "subject", "time", "traceparent")
    )

    def refuse(reason: str, where: str) -> None:
        shown = body.decode("utf-8", "replace")
        broken.add([seq, texts["source"] or "", texts["id"], reason, where, shown])

    try:
        members = _decode_members(body)
        data = bytes(members["data"]).decode() if "data" in members else None
        rest = {
            name: bytes(raw).decode()
            for name, raw in members.items()
            if name not in _KNOWN and bytes(raw) != b'"application/json"'
        }
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        return refuse(f"the event is not valid JSON: {exc}", "")
    for name in texts:
        raw = members.get(name)
        if raw is None or bytes(raw) == b"null":
            continue
        try:
            texts[name] = _decode_text(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return refuse(f"{name} is not a text", name)
    for name in ("id", "source", "type"):
        if not texts[name]:
            return refuse(f"{name} is missing", name)
    extensions = (
        "{" + ",".join(f"{msgspec.json.encode(k).decode()}:{rest[k]}" for k in sorted(rest)) + "}"
        if rest
        else None
    )
    odd.add(
        [
            seq,
            texts["source"],
            texts["id"],
            texts["type"],
            texts["subject"],
            texts["time"],
            data,
            extensions,
            texts["traceparent"],
        ]
    )
    return None


#: RE2 for data that may hold a number a double cannot carry; `exact_data` decides.
LONG_NUMBER_PATTERN = r"[0-9]{6,}\.[0-9]|\.[0-9]{10,}|[0-9]{16,}[eE]"
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)')
_DIGITS_OF_A_DOUBLE = 15


def exact_data(data: str) -> str | None:
    """The data with every fraction of more than 15 digits written as a string, or None.

    JSON functions read fractions as doubles, which carry 15 digits; a string stays as it is.
    """
    changed = False

    def written(match: re.Match[str]) -> str:
        nonlocal changed
        number = match.group(1)
        if number is None or not any(c in number for c in ".eE"):
            return match.group(0)
        mantissa = re.split("[eE]", number)[0].lstrip("-")
        if len(mantissa.replace(".", "").lstrip("0")) <= _DIGITS_OF_A_DOUBLE:
            return number
        changed = True
        return f'"{number}"'

    result = _TOKEN.sub(written, data)
    return result if changed else None
