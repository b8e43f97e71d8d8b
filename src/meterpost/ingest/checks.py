"""What of a request can be accepted: one event, a batch, or lines of events.

A request is first decoded as a whole into typed records, which settles nearly all events at a
cost of about a microsecond each. Only where that fails, or where a cheap look at the bytes says
that a number may be too long, is each event read on its own to find out which and why
(`event_check`). Both ways accept exactly the same events.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from meterpost.core.errors import InvalidInput, Permanent
from meterpost.ingest.event_check import (
    ATTRIBUTE_CHARACTERS_MAX,
    CONTROL,
    ID_CHARACTERS_MAX,
    SOURCE_CHARACTERS_MAX,
    SUBJECT_CHARACTERS_MAX,
    TIME_MAX,
    TIME_MIN,
    TYPE_CHARACTERS_MAX,
    EventFacts,
    EventRules,
    json_problem,
)
from meterpost.ingest.model import Checked, EventType, Limits, Rejected, SourceCount
from meterpost.ingest.numbers import looks_exact


class TooLarge(Permanent):
    """The request is larger than this installation takes (413)."""

    code = "too-large"


class Unparsable(InvalidInput):
    """The request as a whole cannot be read, so there are no events to speak of (400)."""

    code = "unparsable"


_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=ATTRIBUTE_CHARACTERS_MAX)]


class _Event(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """An event without extensions; anything else is looked at by `EventRules.check`."""

    specversion: Literal["1.0"]
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=ID_CHARACTERS_MAX)]
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=SOURCE_CHARACTERS_MAX)]
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=TYPE_CHARACTERS_MAX)]
    subject: (
        Annotated[str, msgspec.Meta(min_length=1, max_length=SUBJECT_CHARACTERS_MAX)] | None
    ) = None
    time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    datacontenttype: _Text | None = None
    dataschema: _Text | None = None
    traceparent: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None
    tracestate: _Text | None = None
    data: msgspec.Raw = msgspec.Raw()


_event = msgspec.json.Decoder(_Event)
_events = msgspec.json.Decoder(list[_Event])
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_LINE = re.compile(rb"[^\r\n]+")


class Checks:
    """The checks of one configuration; safe to use from several threads."""

    def __init__(
        self,
        event_types: Iterable[EventType] = (),
        metered: Mapping[str, tuple[str, ...]] | None = None,
        *,
        accept_unknown_types: bool = False,
        limits: Limits | None = None,
    ) -> None:
        """``metered``: the fields that meters and dimensions read, by event type (an empty
        tuple for a meter that only counts).
        """
        self.limits = limits or Limits()
        self.rules = EventRules(
            {declared.type: declared for declared in event_types},
            metered or {},
            accept_unknown_types=accept_unknown_types,
            limits=self.limits,
        )

    def one(self, body: bytes) -> Checked:
        """One structured event.

        Raises: TooLarge, Unparsable.
        """
        if len(body) > self.limits.event_bytes_max:
            raise TooLarge(
                f"The event has {len(body)} bytes; up to {self.limits.event_bytes_max} are "
                "accepted."
            )
        array = b"[%b]" % body
        checked = self._quickly(array, 1)
        if checked is not None:
            return checked
        try:
            raw = bytes(msgspec.json.decode(body, type=msgspec.Raw))
        except (msgspec.DecodeError, RecursionError) as exc:
            raise _unparsable(body, exc) from exc
        return self._carefully([raw])

    def batch(self, body: bytes) -> Checked:
        """A JSON array of events.

        Raises: TooLarge, Unparsable.
        """
        self._check_body_size(len(body))
        checked = self._quickly(body, None)
        if checked is not None:
            return checked
        try:
            raws = _raws.decode(body)
        except msgspec.ValidationError as exc:
            raise Unparsable(
                "The body is JSON, but no array of events.",
                hint="A single event has the media type application/cloudevents+json.",
            ) from exc
        except (msgspec.DecodeError, RecursionError) as exc:
            raise _unparsable(body, exc) from exc
        self._check_count(len(raws))
        return self._carefully([bytes(raw) for raw in raws])

    def lines(self, body: bytes) -> Checked:
        """One event a line; empty lines are passed over, a bad line affects no other.

        Raises: TooLarge.
        """
        self._check_body_size(len(body))
        # Counted before they are cut apart: a body of newlines must not cost a list.
        if body.count(b"\n") > 2 * self.limits.batch_events_max:
            self._check_count(body.count(b"\n"))
        found = [line for line in map(bytes.strip, _LINE.findall(body)) if line]
        self._check_count(len(found))
        return self.each(found)

    def each(self, raws: Sequence[bytes]) -> Checked:
        """Events that were cut apart already (lines of a file)."""
        if all(raw[:1] == b"{" and raw[-1:] == b"}" for raw in raws):
            # The newline keeps a string that was cut in two from becoming whole again.
            checked = self._quickly(b"[%b]" % b",\n".join(raws), len(raws))
            if checked is not None:
                return checked
        return self._carefully(raws)

    def _quickly(self, body: bytes, expected: int | None) -> Checked | None:
        """The request where every event is beyond doubt, otherwise None."""
        try:
            events = _events.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        count = len(events)
        if expected is not None and count != expected:
            return None
        self._check_count(count)
        if not events:
            return Checked(b"", 0, {})
        if not (body.isascii() or _is_utf8(body)):
            return None
        types = {event.type for event in events}
        if any(self.rules.type_problem(type_) is not None for type_ in types):
            return None
        times = [event.time for event in events if event.time is not None]
        if times and (min(times) < TIME_MIN or max(times) >= TIME_MAX):
            return None
        if (b"\\" in body or b"\x7f" in body) and any(map(_has_control, events)):
            return None
        if not looks_exact(b"," + b",".join([event.data for event in events])):
            return None
        if len(body) > self.limits.event_bytes_max and self._has_large_event(body):
            return None
        for type_ in types & self.rules.validators.keys():
            for event in events:
                if event.type == type_ and self.rules.data_problem(type_, bytes(event.data)):
                    return None
        sources = [event.source for event in events]
        if sources.count(sources[0]) == count:
            counts = {sources[0]: SourceCount(count, 0)}
        else:
            counts = {source: SourceCount(n, 0) for source, n in Counter(sources).items()}
        return Checked(
            body,
            count,
            counts,
            personal=not types.isdisjoint(self.rules.personal),
        )

    def _carefully(self, raws: Sequence[bytes]) -> Checked:
        received: Counter[str] = Counter()
        invalid: Counter[str] = Counter()
        good: list[bytes] = []
        rejected: list[Rejected] = []
        personal = False
        for index, raw in enumerate(raws):
            facts = self._beyond_doubt(raw) or self.rules.check(raw)
            received[facts.source] += 1
            if facts.problem is None:
                good.append(raw)
                personal = personal or facts.type in self.rules.personal
            else:
                invalid[facts.source] += 1
                rejected.append(Rejected(index, facts.problem, raw, facts.source, facts.id))
        return Checked(
            b"[%b]" % b",".join(good) if good else b"",
            len(good),
            {source: SourceCount(n, invalid[source]) for source, n in received.items()},
            tuple(rejected),
            personal,
        )

    def _beyond_doubt(self, raw: bytes) -> EventFacts | None:
        """One event of a request that has bad ones elsewhere; None where it needs a closer look."""
        if len(raw) > self.limits.event_bytes_max or not (raw.isascii() or _is_utf8(raw)):
            return None
        try:
            event = _event.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        data = bytes(event.data)
        if (
            self.rules.type_problem(event.type) is not None
            or (event.time is not None and not TIME_MIN <= event.time < TIME_MAX)
            or _has_control(event)
            or not looks_exact(b"," + data)
            or self.rules.data_problem(event.type, data) is not None
        ):
            return None
        return EventFacts(None, event.source, event.id, event.type)

    def _has_large_event(self, body: bytes) -> bool:
        return any(len(raw) > self.limits.event_bytes_max for raw in _raws.decode(body))

    def _check_body_size(self, size: int) -> None:
        if size > self.limits.body_bytes_max:
            raise TooLarge(
                f"The request has {size} bytes; up to {self.limits.body_bytes_max} are accepted.",
                hint="Split it.",
            )

    def _check_count(self, count: int) -> None:
        if count > self.limits.batch_events_max:
            raise TooLarge(
                f"The request has {count} events; up to {self.limits.batch_events_max} are "
                "accepted.",
                hint="Split it.",
            )


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _has_control(event: _Event) -> bool:
    texts = (
        event.id,
        event.source,
        event.type,
        event.subject,
        event.datacontenttype,
        event.dataschema,
        event.traceparent,
        event.tracestate,
    )
    return CONTROL.search("".join(filter(None, texts))) is not None


def _unparsable(body: bytes, exc: Exception) -> Unparsable:
    if isinstance(exc, msgspec.DecodeError):
        problem = json_problem(body, exc)
        return Unparsable(problem.sentence, hint=problem.hint or None)
    return Unparsable("The JSON is nested too deeply.")
