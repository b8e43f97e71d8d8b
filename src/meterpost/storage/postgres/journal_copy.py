"""One group of submissions as rows: the bytes of a binary COPY, and the counts beside them.

Source: PostgreSQL's manual, COPY, "Binary Format".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from meterpost.ingest.model import SourceCount, Submission

JOURNAL_COLUMNS = (
    "sequence", "recorded_at", "events", "correlation_id", "traceparent", "api_key", "body",
)  # fmt: skip
QUARANTINE_COLUMNS = (
    "recorded_at", "source", "event_id", "index", "code", "field", "sentence", "bytes",
    "correlation_id", "api_key",
)  # fmt: skip

_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TRAILER = struct.pack(">h", -1)
_NULL = struct.pack(">i", -1)
_FIXED = struct.Struct(">hiqiqii")
_LENGTH = struct.Struct(">i")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def journal_bytes(
    submissions: Iterable[Submission], first_sequence: int, recorded_at: datetime
) -> bytes:
    """The COPY of the submissions that have events, numbered from ``first_sequence``."""
    moment = (recorded_at - _EPOCH) // _MICROSECOND
    parts = [_HEADER]
    for sequence, submission in enumerate(submissions, first_sequence):
        checked = submission.checked
        parts += (
            _FIXED.pack(len(JOURNAL_COLUMNS), 8, sequence, 8, moment, 4, checked.events),
            _text(submission.correlation_id),
            _NULL if submission.traceparent is None else _text(submission.traceparent),
            _text(submission.api_key),
            _LENGTH.pack(len(checked.body)),
            checked.body,
        )
    parts.append(_TRAILER)
    return b"".join(parts)


def quarantine_rows(
    submissions: Iterable[Submission], recorded_at: datetime
) -> Iterator[Sequence[object]]:
    """A row per refused event, in the order of `QUARANTINE_COLUMNS`."""
    for submission in submissions:
        for one in submission.checked.rejected:
            problem = one.problem
            sentence = f"{problem.sentence} {problem.hint}" if problem.hint else problem.sentence
            yield (
                recorded_at,
                one.source,
                one.event_id,
                one.index,
                problem.code,
                _storable(problem.where),
                _storable(sentence),
                one.raw,
                submission.correlation_id,
                submission.api_key,
            )


def summed_counts(submissions: Iterable[Submission]) -> Mapping[str, SourceCount]:
    """What a group brought per source, in order of the source."""
    sums: dict[str, tuple[int, int]] = {}
    for submission in submissions:
        for source, count in submission.checked.counts.items():
            received, invalid = sums.get(source, (0, 0))
            sums[source] = (received + count.received, invalid + count.invalid)
    return {source: SourceCount(*sums[source]) for source in sorted(sums)}


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _LENGTH.pack(len(encoded)) + encoded


def _storable(text: str) -> str:
    """The text without what PostgreSQL cannot hold: NUL and halves of surrogate pairs."""
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()
