"""Usage files: lines become events, and pass the same checks and journal as those over HTTP."""

from __future__ import annotations

import csv
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path

from meterpost.core.errors import InvalidInput, NotFound
from meterpost.core.problem import Problem
from meterpost.ingest.file_mapping import (
    COMBINED_COLUMNS,
    BadLine,
    EventOfLine,
    ZoneNeeded,
    combined_columns,
    ndjson_columns,
)
from meterpost.ingest.model import (
    UNKNOWN_SOURCE,
    Checked,
    FileMapping,
    Recorded,
    Rejected,
    SourceCount,
    Submission,
)
from meterpost.ingest.service import Intake

#: Told (bytes read, bytes in all) after every batch.
Progress = Callable[[int, int], None]

LINE_BYTES_MAX = 1_000_000
BATCH_EVENTS = 2_000
BATCH_BYTES = 4_000_000
#: Batches on their way to the disk at a time, so that reading and committing overlap.
_IN_FLIGHT_MAX = 4
_PROBLEMS_LISTED = 20


@dataclass(frozen=True, slots=True)
class FileBatch:
    """Some lines: ``events`` with the line each came from, and lines that are none."""

    events: Sequence[bytes]
    lines: Sequence[tuple[int, bytes]]
    bad: Sequence[Rejected]
    bytes_done: int
    bytes_total: int


@dataclass(slots=True)
class FileReport:
    """What became of a file's lines: read = accepted + rejected. Duplicates are accepted here;
    the event store tells them when it drains the journal.
    """

    path: Path
    read: int = 0
    accepted: int = 0
    rejected: int = 0
    problems: list[Problem] = field(default_factory=list)
    sequence: int | None = None


def ingest_file(
    path: Path,
    mapping: FileMapping | None,
    intake: Intake,
    *,
    correlation_id: str,
    by: str,
    progress: Progress = lambda done, total: None,
) -> FileReport:
    """Every line of the file accepted durably or quarantined, when this returns.

    Without a mapping the lines are CloudEvents already. ``by`` is noted where HTTP notes the
    API key. Interrupted, it can be run again: equal ids are recognised.
    Raises: NotFound, InvalidInput (the mapping does not fit the file), Transient, NeedsPerson.
    """
    report = FileReport(path)
    waiting: deque[Future[Recorded]] = deque()
    for batch in read_file(path, mapping):
        checked = _checked(batch, intake, UNKNOWN_SOURCE if mapping is None else mapping.source)
        report.read += checked.events + len(checked.rejected)
        report.accepted += checked.events
        report.rejected += len(checked.rejected)
        for one in checked.rejected[: _PROBLEMS_LISTED - len(report.problems)]:
            where = f"{path.name}:{one.index}"
            report.problems.append(replace(one.problem, where=f"{where} {one.problem.where}"))
        if checked.counts:
            waiting.append(intake.accept(Submission(checked, correlation_id, by)))
        while len(waiting) > _IN_FLIGHT_MAX:
            _note(report, waiting.popleft().result())
        progress(batch.bytes_done, batch.bytes_total)
    while waiting:
        _note(report, waiting.popleft().result())
    return report


def read_file(
    path: Path, mapping: FileMapping | None, *, batch_events: int = BATCH_EVENTS
) -> Iterator[FileBatch]:
    """The file's lines as structured events, in batches.

    Raises: NotFound; InvalidInput where columns are missing, or where the very first time needs
    a zone that the mapping does not name (both are the mapping's fault, not a line's).
    """
    if not path.is_file():
        raise NotFound(f"There is no file {path}.")
    total = path.stat().st_size
    events: list[bytes] = []
    lines: list[tuple[int, bytes]] = []
    bad: list[Rejected] = []
    done = size = 0
    source = UNKNOWN_SOURCE if mapping is None else mapping.source
    any_event = False
    for one in _lines(path, mapping):
        done += one.size
        try:
            events.append(one.event())
            lines.append((one.number, one.raw))
            any_event = True
        except ZoneNeeded as exc:
            if not any_event:
                raise InvalidInput(f"{path.name} cannot be read.", [exc.problem]) from exc
            bad.append(Rejected(one.number, exc.problem, one.raw, source))
        except BadLine as exc:
            bad.append(Rejected(one.number, exc.problem, one.raw, source))
        size += one.size
        if len(events) + len(bad) >= batch_events or size >= BATCH_BYTES:
            yield FileBatch(events, lines, bad, done, total)
            events, lines, bad, size = [], [], [], 0
    yield FileBatch(events, lines, bad, total, total)


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    raw: bytes
    size: int
    event: Callable[[], bytes]


def _lines(path: Path, mapping: FileMapping | None) -> Iterator[_Line]:
    if mapping is None:
        for number, raw, size in _raw_lines(path):
            if raw or size > LINE_BYTES_MAX:
                yield _Line(number, raw, size, lambda raw=raw, size=size: _whole(raw, size))  # type: ignore[misc]
        return
    build = EventOfLine(mapping)
    if mapping.format == "csv":
        yield from _csv_lines(path, mapping, build)
        return
    if mapping.format == "combined_log":
        _require_columns(path, build.columns, COMBINED_COLUMNS)
    for number, raw, size in _raw_lines(path):
        if not raw and size <= LINE_BYTES_MAX:
            continue

        def event(raw: bytes = raw, size: int = size) -> bytes:
            text = _text(_whole(raw, size))
            if mapping.format == "combined_log":
                columns = combined_columns(text)
            else:
                columns = ndjson_columns(text, build.columns)
            return build.event(raw, columns)

        yield _Line(number, raw, size, event)


def _csv_lines(path: Path, mapping: FileMapping, build: EventOfLine) -> Iterator[_Line]:
    header: list[str] | None = None
    for number, raw, size in _csv_records(path):
        if not raw and size <= LINE_BYTES_MAX:
            continue
        if header is None:
            header = _fields(_text(raw.removeprefix(b"\xef\xbb\xbf")), mapping.delimiter)
            _require_columns(path, build.columns, header)
            continue

        def event(
            raw: bytes = raw, size: int = size, header: Sequence[str] = tuple(header)
        ) -> bytes:
            fields = _fields(_text(_whole(raw, size)), mapping.delimiter)
            if len(fields) != len(header):
                raise BadLine(
                    Problem(
                        "wrong-columns",
                        f"The line has {len(fields)} columns, the header {len(header)}.",
                        "line",
                    )
                )
            return build.event(raw, dict(zip(header, fields, strict=True)))

        yield _Line(number, raw, size, event)


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes, int]]:
    """Number, content without line end, and size of each line; too long ones are cut short."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LINE_BYTES_MAX + 2):
            number += 1
            size = len(line)
            while not line.endswith(b"\n") and size > LINE_BYTES_MAX:
                more = file.readline(LINE_BYTES_MAX)
                size += len(more)
                if not more or more.endswith(b"\n"):
                    break
            yield number, line.rstrip(b"\r\n"), size


def _csv_records(path: Path) -> Iterator[tuple[int, bytes, int]]:
    """Like `_raw_lines`, with lines joined while a quote is open."""
    held: list[bytes] = []
    first = held_size = quotes = 0
    for number, raw, size in _raw_lines(path):
        if not held and raw.count(b'"') % 2 == 0:
            yield number, raw, size
            continue
        first = first if held else number
        held.append(raw)
        held_size += size
        quotes += raw.count(b'"')
        if quotes % 2 == 0 or held_size > LINE_BYTES_MAX:
            yield first, b"\n".join(held), held_size
            held, held_size, quotes = [], 0, 0
    if held:
        yield first, b"\n".join(held), held_size


def _fields(text: str, delimiter: str) -> list[str]:
    if '"' not in text:
        return text.split(delimiter)
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error as exc:
        raise BadLine(Problem("invalid-csv", f"The line is not CSV: {exc}.", "line")) from exc


def _whole(raw: bytes, size: int) -> bytes:
    if size > LINE_BYTES_MAX:
        raise BadLine(
            Problem(
                "line-too-long",
                f"The line has {size} bytes; up to {LINE_BYTES_MAX} are read.",
                "line",
            )
        )
    return raw


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise BadLine(
            Problem("wrong-utf8", f"Byte {exc.start} of the line is not UTF-8.", "line")
        ) from exc


def _require_columns(path: Path, wanted: Sequence[str], there: Sequence[str]) -> None:
    missing = sorted(set(wanted) - set(there))
    if missing:
        raise InvalidInput(
            f"{path.name} does not fit its mapping: there is no column {', '.join(missing)}.",
            hint=f"It has {', '.join(there)}.",
        )


def _checked(batch: FileBatch, intake: Intake, source: str) -> Checked:
    """The batch after the checks; refused events are named by line and kept as the line."""
    checked = intake.checks.each(batch.events) if batch.events else Checked(b"", 0, {})
    rejected = [
        replace(one, index=batch.lines[one.index][0], raw=batch.lines[one.index][1])
        for one in checked.rejected
    ]
    if not (rejected or batch.bad):
        return checked
    rejected = sorted([*rejected, *batch.bad], key=lambda one: one.index)
    received = Counter({name: count.received for name, count in checked.counts.items()})
    invalid = Counter({name: count.invalid for name, count in checked.counts.items()})
    received[source] += len(batch.bad)
    invalid[source] += len(batch.bad)
    counts: Mapping[str, SourceCount] = {
        name: SourceCount(n, invalid[name]) for name, n in received.items() if n
    }
    return replace(checked, rejected=tuple(rejected), counts=counts)


def _note(report: FileReport, recorded: Recorded) -> None:
    if recorded.sequence is not None:
        report.sequence = max(report.sequence or 0, recorded.sequence)
