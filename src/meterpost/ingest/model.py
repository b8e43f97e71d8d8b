"""What may come in: event types, file mappings and limits; what was made of it: the words used
between the checks, the journal's writer and whoever answers the sender.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from meterpost.core.problem import Problem

#: Types of this prefix are meterpost's own (corrections); senders cannot use them for usage.
RESERVED_TYPE_PREFIX = "io.meterpost."

#: Where the source of a refused event could not be read, it is counted under this word.
UNKNOWN_SOURCE = "unknown"

#: More would not fit the 17 bits that number the events of one journal row.
BATCH_EVENTS_CEILING = 131_072


@dataclass(frozen=True, slots=True)
class EventType:
    """What a sender promises about one type of event.

    ``schema`` is a JSON Schema for ``data`` (draft 2020-12 unless it names another).
    ``personal`` lists the fields whose values become tokens before the journal: ``subject`` or
    a path into the data such as ``data.client``.
    """

    type: str
    schema: Mapping[str, Any] | None = None
    personal: tuple[str, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        for path in self.personal:
            if path != "subject" and not (path.startswith("data.") and all(path.split("."))):
                raise ValueError(
                    f"personal field {path!r} of {self.type}: name `subject` or a path such as "
                    "`data.client`"
                )
        if self.type.startswith(RESERVED_TYPE_PREFIX):
            raise ValueError(f"event type {self.type}: {RESERVED_TYPE_PREFIX}* is reserved")


@dataclass(frozen=True, slots=True)
class FromColumn:
    """Taken from a column: a CSV header, a dotted path in NDJSON, a part of a log line."""

    column: str


@dataclass(frozen=True, slots=True)
class FixedValue:
    """The same text for every line of the file."""

    value: str


@dataclass(frozen=True, slots=True)
class TimeColumn:
    """Where an event's time stands and how it is written.

    ``format``: ``iso`` (RFC 3339, or the same without zone, with ``T`` or a space),
    ``combined_log`` (17/May/2015:10:05:03 +0000), ``unix_seconds``, ``unix_milliseconds``, or a
    `strptime` pattern. ``zone`` (IANA) is needed where the text names none.
    """

    column: str
    format: str = "iso"
    zone: str | None = None


@dataclass(frozen=True, slots=True)
class DataColumn:
    """One field of the event's data. Empty columns leave the field out."""

    column: str
    type: Literal["integer", "decimal", "text"] = "text"


@dataclass(frozen=True, slots=True)
class FileMapping:
    """How lines of a file become CloudEvents.

    ``id`` is a column that identifies the line; without it, the id is the hash of the line and
    its ordinal among equal lines of the file, so that reading a grown file again repeats the
    ids of the old part. ``data`` maps a data field to its column. ``delimiter`` is CSV's.

    Columns of ``combined_log``: client, identity, user, time, request, method, path, protocol,
    status, bytes, referer, agent.
    """

    name: str
    format: Literal["csv", "ndjson", "combined_log"]
    source: str
    type: str
    time: TimeColumn
    subject: FromColumn | FixedValue | None = None
    id: FromColumn | None = None
    data: Mapping[str, DataColumn] = field(default_factory=dict)
    delimiter: str = ","
    description: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what comes in; each has an answer (docs/ingest.md, "Limits")."""

    #: One event, as JSON. Above: 413, or refused on its own within a batch.
    event_bytes_max: int = 1_000_000
    #: One request, after decompression. Above: 413.
    body_bytes_max: int = 64_000_000
    #: Events of one request. Above: 413.
    batch_events_max: int = 100_000
    #: Bytes of all requests being handled by one edge process. Above: 429.
    in_flight_bytes_max: int = 192_000_000
    #: Events accepted that the engine has not yet drained. Above: 429.
    backlog_events_max: int = 20_000_000
    #: Refused events listed in one answer; all are counted and quarantined.
    rejected_listed_max: int = 100

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ValueError(f"limit {name} must be at least 1")
        if self.batch_events_max > BATCH_EVENTS_CEILING:
            raise ValueError(f"limit batch_events_max cannot exceed {BATCH_EVENTS_CEILING}")
        if not self.event_bytes_max <= self.body_bytes_max <= self.in_flight_bytes_max:
            raise ValueError(
                "limits must rise from event_bytes_max to body_bytes_max to in_flight_bytes_max"
            )


@dataclass(frozen=True, slots=True)
class Rejected:
    """One refused event, bytes and all.

    ``index`` counts from 0 within a request; for files it is the line number, from 1. The
    problem's ``where`` is the field. ``source`` and ``event_id`` are as far as they were
    readable.
    """

    index: int
    problem: Problem
    raw: bytes
    source: str = UNKNOWN_SOURCE
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class SourceCount:
    """What one request brought from one source: received = invalid + accepted."""

    received: int
    invalid: int

    @property
    def accepted(self) -> int:
        """Events that go on to the journal."""
        return self.received - self.invalid


@dataclass(frozen=True, slots=True)
class Checked:
    """A request after the checks.

    ``body`` is a JSON array of the ``events`` accepted events, byte for byte as sent; empty
    bytes where there are none. ``personal`` says that some hold values still to be replaced.
    """

    body: bytes
    events: int
    counts: Mapping[str, SourceCount]
    rejected: tuple[Rejected, ...] = ()
    personal: bool = False


@dataclass(frozen=True, slots=True)
class Submission:
    """A checked request on its way into the journal, with where it came from."""

    checked: Checked
    correlation_id: str
    api_key: str
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A submission that is on disk. ``sequence`` is None where no event was accepted."""

    sequence: int | None
    recorded_at: datetime
