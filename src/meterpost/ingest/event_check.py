"""The careful check of one CloudEvent: what exactly is wrong, in which field, what helps."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jsonschema_rs
import msgspec

from meterpost.core.problem import Problem
from meterpost.ingest.model import RESERVED_TYPE_PREFIX, UNKNOWN_SOURCE, EventType, Limits
from meterpost.ingest.numbers import decode_exactly, looks_exact, number_problem

#: Event times outside are refused: clocks that were never set, seconds taken for milliseconds.
TIME_MIN = datetime(1900, 1, 1, tzinfo=UTC)
TIME_MAX = datetime(2200, 1, 1, tzinfo=UTC)

ID_CHARACTERS_MAX = 255
SOURCE_CHARACTERS_MAX = 1024
TYPE_CHARACTERS_MAX = 255
SUBJECT_CHARACTERS_MAX = 1024
ATTRIBUTE_CHARACTERS_MAX = 4096
EXTENSION_NAME_CHARACTERS_MAX = 64

#: Characters that CloudEvents attributes may not hold, and PostgreSQL text cannot (NUL).
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: CloudEvents attributes of ours and theirs that are text; extensions may be numbers too.
_TEXT_ATTRIBUTES = {
    "datacontenttype": ATTRIBUTE_CHARACTERS_MAX,
    "dataschema": ATTRIBUTE_CHARACTERS_MAX,
    "traceparent": 255,
    "tracestate": ATTRIBUTE_CHARACTERS_MAX,
    "subject": SUBJECT_CHARACTERS_MAX,
}
_EXTENSION_NAME = re.compile(rf"[a-z0-9]{{1,{EXTENSION_NAME_CHARACTERS_MAX}}}")
_INTEGER_BITS = 31

_Object = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class EventFacts:
    """What the counting needs of one event, as far as it was readable; and what is wrong."""

    problem: Problem | None
    source: str = UNKNOWN_SOURCE
    id: str | None = None
    type: str = ""


class EventRules:
    """Everything a single event is measured against."""

    def __init__(
        self,
        event_types: Mapping[str, EventType],
        metered: Mapping[str, tuple[str, ...]],
        *,
        accept_unknown_types: bool,
        limits: Limits,
    ) -> None:
        self.limits = limits
        self.known_types = None if accept_unknown_types else {*event_types, *metered}
        self.metered = {type_: _data_paths(fields) for type_, fields in metered.items()}
        self.validators = {
            name: _validator(declared)
            for name, declared in event_types.items()
            if declared.schema is not None
        }
        self.personal = {
            name: declared.personal for name, declared in event_types.items() if declared.personal
        }

    def type_problem(self, type_: str) -> Problem | None:
        """Why events of this type are not taken, if so."""
        if type_.startswith(RESERVED_TYPE_PREFIX):
            return Problem(
                "reserved-type",
                f"Types that start with {RESERVED_TYPE_PREFIX} are meterpost's own.",
                "type",
            )
        if self.known_types is None or type_ in self.known_types:
            return None
        return Problem(
            "unknown-type",
            f"No event type and no meter is declared for {type_!r}.",
            "type",
            "Declare it, or set accept_unknown_types.",
        )

    def data_problem(self, type_: str, data: bytes) -> Problem | None:
        """What the type's JSON Schema says against the data (empty bytes: there is none)."""
        validator = self.validators.get(type_)
        if validator is None:
            return None
        if not data:
            return Problem("schema", f"Events of type {type_} need data.", "data")
        try:
            instance = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            return Problem("invalid-json", f"The data cannot be read: {exc}.", "data")
        error = next(iter(validator.iter_errors(instance)), None)
        if error is None:
            return None
        path = ".".join(["data", *map(str, error.instance_path)])
        return Problem("schema", f"The data breaks the type's schema: {error.message[:300]}.", path)

    def check(self, raw: bytes) -> EventFacts:
        """Everything that can be said of one event, the first problem found."""
        if len(raw) > self.limits.event_bytes_max:
            return EventFacts(
                Problem(
                    "event-too-large",
                    f"The event has {len(raw)} bytes; up to {self.limits.event_bytes_max} are "
                    "accepted.",
                )
            )
        try:
            raw.decode()
        except UnicodeDecodeError as exc:
            return EventFacts(Problem("wrong-utf8", f"Byte {exc.start} of the event is not UTF-8."))
        try:
            members = _Object.decode(raw)
        except msgspec.ValidationError:
            return EventFacts(Problem("not-an-object", "A CloudEvent is a JSON object."))
        except RecursionError:
            return EventFacts(Problem("too-deep", "The event is nested too deeply."))
        except msgspec.DecodeError as exc:
            return EventFacts(json_problem(raw, exc))
        return self._check_members(members)

    def _check_members(self, members: dict[str, msgspec.Raw]) -> EventFacts:
        values = {
            name: _value(value)
            for name, value in members.items()
            if name != "data" and len(value) <= 6 * ATTRIBUTE_CHARACTERS_MAX
        }
        source, id_, type_ = (_readable(values.get(n)) for n in ("source", "id", "type"))
        problem = _attribute_problem(members, values)
        if problem is None:
            problem = self.type_problem(str(type_)) or self._payload_problem(members, str(type_))
        return EventFacts(problem, source or UNKNOWN_SOURCE, id_, type_ or "")

    def _payload_problem(self, members: dict[str, msgspec.Raw], type_: str) -> Problem | None:
        data = bytes(members.get("data", b""))
        encoded = bytes(members.get("data_base64", b"null"))
        if encoded != b"null":
            if data:
                return Problem(
                    "two-payloads", "An event has data or data_base64, not both.", "data_base64"
                )
            problem = _base64_problem(encoded)
            if problem is not None:
                return problem
        if data and not looks_exact(b"," + data):
            try:
                decoded = decode_exactly(data.decode())
            except RecursionError:
                return Problem("too-deep", "The data is nested too deeply.", "data")
            except ValueError as exc:
                return Problem("invalid-json", f"The data cannot be read: {exc}.", "data")
            problem = number_problem(decoded, self.metered.get(type_, ()))
            if problem is not None:
                return problem
        return self.data_problem(type_, data)


def json_problem(raw: bytes, exc: msgspec.DecodeError) -> Problem:
    """What is wrong with a text that is not JSON, and at which byte."""
    found = re.search(r"\(byte (\d+)\)", str(exc))
    if found is None:
        return Problem("invalid-json", f"The JSON ends too early, after {len(raw)} bytes.")
    position = int(found[1])
    word = re.match(rb"-?(NaN|Infinity)", raw[position:])
    if word is not None:
        return Problem(
            "invalid-json",
            f"JSON knows no {word[1].decode()} (byte {position}).",
            hint="Leave the field out, or send null.",
        )
    reason = str(exc).removeprefix("JSON is malformed: ")
    return Problem("invalid-json", f"This is not JSON: {reason}.")


def time_problem(text: str) -> Problem | None:
    """Why a text is not the time of an event, if so."""
    try:
        moment = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return Problem(
            "invalid-time",
            f"{text[:40]!r} is not an RFC 3339 time.",
            "time",
            "Write it like 2026-10-31T23:59:59.123Z.",
        )
    if moment.tzinfo is None:
        return Problem(
            "time-without-zone",
            f"The time {text[:40]} has no zone and could mean forty moments.",
            "time",
            "Add Z or an offset such as +01:00.",
        )
    if not TIME_MIN <= moment < TIME_MAX:
        return Problem(
            "time-out-of-range",
            f"The time {text[:40]} is outside {TIME_MIN.year} to {TIME_MAX.year - 1}.",
            "time",
            "Correct the sender's clock, or leave the time out to use the time of arrival.",
        )
    return None


def _attribute_problem(
    members: Mapping[str, msgspec.Raw], values: Mapping[str, object]
) -> Problem | None:
    for name in members:
        if name not in values and name not in ("data", "data_base64"):
            return Problem("attribute-too-long", "The attribute is too long.", name[:64])
    version = values.get("specversion")
    if version != "1.0":
        said = "is missing" if version is None else f"is {str(version)[:40]!r}"
        return Problem(
            "specversion", f"specversion {said}; CloudEvents 1.0 is understood.", "specversion"
        )
    for name, length in (
        ("id", ID_CHARACTERS_MAX),
        ("source", SOURCE_CHARACTERS_MAX),
        ("type", TYPE_CHARACTERS_MAX),
    ):
        if values.get(name) is None:
            return Problem(f"missing-{name}", f"The event has no {name}.", name)
        problem = _text_problem(name, values[name], length)
        if problem is not None:
            return problem
    for name, length in _TEXT_ATTRIBUTES.items():
        if values.get(name) is not None:
            problem = _text_problem(name, values[name], length)
            if problem is not None:
                return problem
    time = values.get("time")
    if time is not None:
        if not isinstance(time, str):
            return Problem(
                "invalid-time", "time is not a string.", "time", "Write 2026-10-31T23:59:59Z."
            )
        problem = time_problem(time)
        if problem is not None:
            return problem
    return _extension_problem(values)


def _text_problem(name: str, value: object, characters_max: int) -> Problem | None:
    if not isinstance(value, str):
        return Problem(f"invalid-{name}", f"{name} is not a string.", name)
    if not value:
        return Problem(f"empty-{name}", f"{name} is empty.", name, "Leave it out or fill it in.")
    if len(value) > characters_max:
        return Problem(
            f"{name}-too-long",
            f"{name} has {len(value)} characters; up to {characters_max} are accepted.",
            name,
        )
    if CONTROL.search(value):
        return Problem(f"invalid-{name}", f"{name} holds a control character.", name)
    return None


_OWN_CHECKS = {"specversion", "id", "source", "type", "time", "data_base64", *_TEXT_ATTRIBUTES}


def _extension_problem(values: Mapping[str, object]) -> Problem | None:
    for name, value in values.items():
        if name in _OWN_CHECKS:
            continue
        if not _EXTENSION_NAME.fullmatch(name):
            return Problem(
                "extension-name",
                f"The attribute name {name[:64]!r} is not made of a-z and 0-9.",
                CONTROL.sub("?", name[:64]),
                "Rename it, or move it into data.",
            )
        if isinstance(value, str):
            if len(value) > ATTRIBUTE_CHARACTERS_MAX or CONTROL.search(value):
                return Problem(
                    "extension-value",
                    "The attribute is too long or holds a control character.",
                    name,
                )
        elif not (value is None or isinstance(value, bool | int)):
            return Problem(
                "extension-value",
                "Attributes are strings, booleans or integers.",
                name,
                "Move it into data.",
            )
        elif isinstance(value, int) and not -(1 << _INTEGER_BITS) <= value < 1 << _INTEGER_BITS:
            return Problem("extension-value", "The integer has more than 32 bits.", name)
    return None


def _base64_problem(raw: bytes) -> Problem | None:
    value = msgspec.json.decode(raw)
    if not isinstance(value, str):
        return Problem("invalid-base64", "data_base64 is not a string.", "data_base64")
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return Problem("invalid-base64", "data_base64 is not base64.", "data_base64")
    return None


def _value(raw: msgspec.Raw) -> object:
    """The attribute's value; a list, which no attribute may be, where it cannot be held."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return []


def _readable(value: object) -> str | None:
    """Text for a count or a list, or None; too long or unprintable text is not repeated."""
    if not isinstance(value, str) or not 0 < len(value) <= SOURCE_CHARACTERS_MAX:
        return None
    return None if CONTROL.search(value) else value


def _data_paths(fields: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """The steps below ``data`` of each field; attributes have no number to lose."""
    split = [field.split(".") for field in fields]
    return tuple(tuple(steps) for head, *steps in split if head == "data")


def _validator(declared: EventType) -> jsonschema_rs.Validator:
    def refuse(uri: str) -> Any:
        raise ValueError(f"{uri} is not part of the schema; references stay inside it")

    # Sentences travel to logs and lists: where fields are personal they name no values.
    mask = "the value" if declared.personal else None
    return jsonschema_rs.validator_for(dict(declared.schema or {}), retriever=refuse, mask=mask)
