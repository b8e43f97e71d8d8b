"""From one line of a usage file to one CloudEvent, by the file's declared mapping."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from typing import Any

import msgspec

from meterpost.core.canonical import plain_decimal
from meterpost.core.errors import InvalidInput
from meterpost.core.money import VALUE_DIGITS_MAX, VALUE_SCALE_MAX
from meterpost.core.period import zone_info
from meterpost.core.problem import Problem
from meterpost.ingest.model import DataColumn, FileMapping, FixedValue, FromColumn, TimeColumn
from meterpost.ingest.numbers import FRACTION_DIGITS_MAX, decode_exactly

#: The parts of a line of the combined log format (Apache's mod_log_config).
COMBINED_COLUMNS = (
    "client", "identity", "user", "time", "request", "method", "path", "protocol", "status",
    "bytes", "referer", "agent",
)  # fmt: skip
_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_COMBINED = re.compile(
    rf"(\S+) (\S+) (\S+) \[([^\]]*)\] {_QUOTED} (\d{{3}}) (\d+|-) {_QUOTED} {_QUOTED}\s*"
)
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?(?:([Zz])|([+-]\d\d):?(\d\d))?"
)
_COMBINED_TIME = re.compile(
    r"(\d\d)/(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)/(\d{4}):(\d\d:\d\d:\d\d)"
    r" ([+-]\d\d)(\d\d)"
)
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_INTEGER = re.compile(r"[+-]?\d{1,1000}")


class BadLine(Exception):
    """One line that is no event; ``problem`` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class ZoneNeeded(BadLine):
    """A time without zone, in a mapping that names none."""


class LineIds:
    """Ids of lines: the hash of the line, and from the second equal line on its ordinal.

    Reading a file that grew gives the old part the same ids. Memory: about 130 bytes for each
    distinct line.
    """

    def __init__(self) -> None:
        self._seen: dict[bytes, int] = {}

    def of(self, line: bytes) -> str:
        """The id of the next line; call it once for each, in the file's order."""
        hashed = blake2b(line, digest_size=16).digest()
        ordinal = self._seen.get(hashed, 0) + 1
        self._seen[hashed] = ordinal
        return hashed.hex() if ordinal == 1 else f"{hashed.hex()}-{ordinal}"


class EventOfLine:
    """Builds the event of a line from its columns."""

    def __init__(self, mapping: FileMapping) -> None:
        self._mapping = mapping
        self._time = _time_reader(mapping.time)
        self._ids = LineIds()

    @property
    def columns(self) -> Sequence[str]:
        """Every column the mapping reads."""
        mapping = self._mapping
        named = [mapping.time.column, *(data.column for data in mapping.data.values())]
        chosen = (mapping.subject, mapping.id)
        return [*named, *(one.column for one in chosen if isinstance(one, FromColumn))]

    def event(self, line: bytes, columns: Mapping[str, str]) -> bytes:
        """The structured event.

        Raises: BadLine.
        """
        mapping = self._mapping
        # Drawn before anything can fail, so that bad lines do not shift the ids of good ones.
        line_id = self._ids.of(line) if mapping.id is None else columns.get(mapping.id.column, "")
        event: dict[str, object] = {
            "specversion": "1.0",
            "id": line_id,
            "source": mapping.source,
            "type": mapping.type,
        }
        subject = mapping.subject
        if subject is not None:
            text = (
                subject.value
                if isinstance(subject, FixedValue)
                else columns.get(subject.column, "")
            )
            if text:
                event["subject"] = text
        event["time"] = self._time(columns.get(mapping.time.column, ""))
        event["data"] = {
            name: _typed(columns[column.column], column)
            for name, column in mapping.data.items()
            if columns.get(column.column, "") != ""
        }
        return msgspec.json.encode(event)


def combined_columns(text: str) -> Mapping[str, str]:
    """The parts of an access log line; ``-`` becomes an empty text, or 0 for bytes.

    Raises: BadLine.
    """
    match = _COMBINED.fullmatch(text)
    if match is None:
        raise BadLine(
            Problem("not-combined-log", "The line is not in the combined log format.", "line")
        )
    client, identity, user, moment, request, status, size, referer, agent = match.groups()
    words = request.split(" ")
    method, path, protocol = words if len(words) == 3 else ("", "", "")
    values = (client, identity, user, moment, request, method, path, protocol, status,
              "0" if size == "-" else size, referer, agent)  # fmt: skip
    return {
        name: "" if value == "-" else value
        for name, value in zip(COMBINED_COLUMNS, values, strict=True)
    }


def ndjson_columns(text: str, wanted: Sequence[str]) -> Mapping[str, str]:
    """The wanted values of a JSON object by dotted path, as text; null and absent ones left out.

    Raises: BadLine.
    """
    try:
        value = decode_exactly(text)
    except (ValueError, RecursionError) as exc:
        raise BadLine(Problem("invalid-json", f"The line is not JSON: {exc}.", "line")) from exc
    if not isinstance(value, dict):
        raise BadLine(Problem("not-an-object", "The line is not a JSON object.", "line"))
    found: dict[str, str] = {}
    for path in wanted:
        item: Any = value
        for step in path.split("."):
            item = item.get(step) if isinstance(item, dict) else None
        if isinstance(item, bool):
            found[path] = "true" if item else "false"
        elif isinstance(item, Decimal):
            found[path] = str(item)
        elif isinstance(item, str):
            found[path] = item
        elif item is not None:
            raise BadLine(Problem("not-plain", "The value is a list or an object.", path))
    return found


def _typed(text: str, column: DataColumn) -> object:
    if column.type == "text":
        return text
    stripped = text.strip()
    if column.type == "integer":
        if not _INTEGER.fullmatch(stripped):
            raise BadLine(
                Problem("not-an-integer", f"{text[:40]!r} is not a whole number.", column.column)
            )
        return _number(Decimal(stripped), column.column)
    try:
        number = Decimal(stripped)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or "_" in stripped:
        raise BadLine(
            Problem("not-a-number", f"{text[:40]!r} is not a decimal number.", column.column)
        )
    return _number(number, column.column)


def _number(number: Decimal, column: str) -> object:
    """A JSON number where that is exact for every reader, otherwise a string of its digits."""
    if number and number.adjusted() >= VALUE_DIGITS_MAX:
        raise BadLine(
            Problem("number-too-large", f"Values stay below 10^{VALUE_DIGITS_MAX}.", column)
        )
    if number and number.adjusted() < -2 * VALUE_DIGITS_MAX:
        raise BadLine(Problem("number-too-precise", "The number is too small to hold.", column))
    text = plain_decimal(number)
    _, _, decimals = text.partition(".")
    digits = sum(map(str.isdigit, text))
    exact = not decimals or (digits <= FRACTION_DIGITS_MAX and len(decimals) <= VALUE_SCALE_MAX)
    return msgspec.Raw(text.encode()) if exact else text


def _time_reader(column: TimeColumn) -> Callable[[str], str]:
    """What turns the column's text into an RFC 3339 time in UTC, keeping its decimals.

    Raises: InvalidInput for an unknown zone.
    """
    try:
        zone = None if column.zone is None else zone_info(column.zone)
    except ValueError as exc:
        raise InvalidInput(f"The mapping's time zone: {exc}.") from exc

    def bad(text: str, reason: str = "") -> BadLine:
        sentence = f"{text[:40]!r} is not a time written as {column.format}{reason}."
        return BadLine(Problem("invalid-time", sentence, column.column))

    def utc(local: datetime, fraction: str, text: str) -> str:
        if local.tzinfo is None:
            if zone is None:
                raise ZoneNeeded(
                    Problem(
                        "time-without-zone",
                        f"The time {text[:40]} has no zone, and the mapping names none.",
                        column.column,
                        "Add `zone:` to the mapping's time, such as UTC or Europe/Vienna.",
                    )
                )
            aware = local.replace(tzinfo=zone)
            if aware.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != local:
                raise bad(text, f"; that moment does not exist in {column.zone}")
            local = aware
        try:
            moment = local.astimezone(UTC)
        except OverflowError as exc:
            raise bad(text) from exc
        return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}{fraction}Z"

    def iso(text: str) -> str:
        match = _ISO.fullmatch(text.strip())
        if match is None:
            raise bad(text)
        day, clock, fraction, z, hours, minutes = match.groups()
        offset = "+00:00" if z else f"{hours}:{minutes}" if hours else ""
        try:
            local = datetime.fromisoformat(f"{day}T{clock}{offset}")
        except ValueError as exc:
            raise bad(text) from exc
        return utc(local, fraction or "", text)

    def combined(text: str) -> str:
        match = _COMBINED_TIME.fullmatch(text)
        if match is None:
            raise bad(text)
        day, month, year, clock, hours, minutes = match.groups()
        number = _MONTHS.index(month) + 1
        try:
            local = datetime.fromisoformat(f"{year}-{number:02}-{day}T{clock}{hours}:{minutes}")
        except ValueError as exc:
            raise bad(text) from exc
        return utc(local, "", text)

    def unix(text: str, shift: int) -> str:
        try:
            ticks = Decimal(text.strip()).scaleb(-shift)
            seconds = int(ticks // 1)
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
        except (InvalidOperation, ValueError, OverflowError) as exc:
            raise bad(text) from exc
        decimals = plain_decimal(abs(ticks - seconds)).partition(".")[2][:9]
        return utc(moment, f".{decimals}" if decimals else "", text)

    def pattern(text: str) -> str:
        try:
            # The zone comes from the text's %z or from the mapping, just below.
            local = datetime.strptime(text.strip(), column.format)  # noqa: DTZ007
        except ValueError as exc:
            raise bad(text) from exc
        fraction = f".{local.microsecond:06}" if local.microsecond else ""
        return utc(local.replace(microsecond=0), fraction, text)

    match column.format:
        case "iso":
            return iso
        case "combined_log":
            return combined
        case "unix_seconds":
            return lambda text: unix(text, 0)
        case "unix_milliseconds":
            return lambda text: unix(text, 3)
        case _:
            return pattern
