"""Single fields of a record, read strictly: what is not clear is a problem, never a guess."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from datetime import date, datetime
from difflib import get_close_matches

from meterpost.core.clock import require_utc
from meterpost.core.period import local_midnight, zone_info
from meterpost.core.problem import Problem
from meterpost.masterdata.model import BEGINNING
from meterpost.masterdata.record import Record

TEXT_MAX = 255
NAME_MAX = 1000
YEAR_MAX = 9000

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def as_text(value: object) -> str | None:
    """The value as text where that is beyond doubt: text, or a whole number."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def nearest_hint(name: str, known: Collection[str]) -> str:
    """The known word that was probably meant, or all of them."""
    close = get_close_matches(name, known, 1)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(sorted(known))}."


class FieldReader:
    """Takes fields out of one record and collects what is wrong with them.

    Each method returns None where the field is absent or bad; `problems` tells which.
    """

    def __init__(self, record: Record, problems: list[Problem]) -> None:
        self.record = record
        self.problems = problems
        self.failed = False

    def complain(self, code: str, name: str, sentence: str, hint: str = "") -> None:
        """Note a problem of a field."""
        self.failed = True
        self.problems.append(self.record.problem(code, name, sentence, hint))

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Complain about every key that means nothing here."""
        for key in self.record.values:
            if key not in known:
                self.complain(
                    "unknown-key",
                    f"{key!s:.60}",
                    f"is not a field of {self.record.entity}.",
                    nearest_hint(str(key), known),
                )

    def text(self, name: str, *, required: bool = False, limit: int = TEXT_MAX) -> str | None:
        """Text within the limit, without control characters or blanks around it."""
        value = self.record.values.get(name)
        if value is None or value == "":
            if required:
                self.complain("missing", name, "is missing.")
            return None
        text = as_text(value)
        if text is None:
            kind = type(value).__name__
            hint = f'Quote it: {name}: "{value}".' if isinstance(value, (float, bool)) else ""
            self.complain("wrong-type", name, f"must be text, not {kind}.", hint)
        elif len(text) > limit:
            self.complain("too-long", name, f"has {len(text)} characters; {limit} are allowed.")
        elif not text.isprintable() or not _encodable(text):
            self.complain("bad-character", name, f"{text[:40]!r} has characters that do not print.")
        elif text != text.strip():
            self.complain("blanks", name, f"{text[:40]!r} begins or ends with a blank.")
        else:
            return text
        return None

    def id(self, name: str, *, required: bool = False) -> str | None:
        """One of our ids."""
        text = self.text(name, required=required)
        if text is None or _ID.fullmatch(text):
            return text
        self.complain(
            "bad-id",
            name,
            f"{text[:40]!r} is not an id.",
            "Ids are letters, digits and . _ : / @ + - and begin with a letter or digit.",
        )
        return None

    def choice(self, name: str, known: Collection[str], default: str | None = None) -> str | None:
        """One of the known words."""
        text = self.text(name, required=default is None)
        if text is None or text in known:
            return text if text is not None or name in self.record.values else default
        words = ", ".join(known)
        self.complain("unknown-value", name, f"{text[:40]!r} is none of {words}.")
        return None

    def currency(self, name: str = "currency") -> str | None:
        """An ISO 4217 code."""
        text = self.text(name)
        if text is None or re.fullmatch("[A-Z]{3}", text):
            return text
        self.complain("bad-currency", name, f"{text[:40]!r} is not an ISO 4217 code such as EUR.")
        return None

    def zone(self, name: str = "zone") -> str | None:
        """An IANA time zone that exists."""
        text = self.text(name)
        if text is None:
            return None
        try:
            zone_info(text)
        except ValueError as exc:
            self.complain("bad-zone", name, f"{exc}.")
            return None
        return text

    def flag(self, name: str) -> bool:
        """Whether it says true (CSV: the word)."""
        value = self.record.values.get(name)
        match value:
            case None | "" | False | "false":
                return False
            case True | "true":
                return True
            case _:
                self.complain("wrong-type", name, "must be true or false.")
                return False

    def day(self, name: str) -> date | None:
        """A calendar day written 2026-10-01."""
        value = self.record.values.get(name)
        if value is None or value == "":
            return None
        if isinstance(value, str) and _DATE.fullmatch(value):
            with suppress(ValueError):
                value = date.fromisoformat(value)
        if isinstance(value, datetime) or not isinstance(value, date):
            self.complain("bad-date", name, f"{value!r:.60} is not a day such as 2026-10-01.")
        elif not BEGINNING.year <= value.year <= YEAR_MAX:
            self.complain(
                "out-of-bounds", name, f"{value} is outside {BEGINNING.year} to {YEAR_MAX}."
            )
        else:
            return value
        return None

    def moment(self, name: str, zone: str) -> datetime | None:
        """A moment in UTC; a bare day is its first moment in the zone."""
        value = self.record.values.get(name)
        if isinstance(value, str) and value and not _DATE.fullmatch(value):
            written = value
            try:
                value = datetime.fromisoformat(written)
            except ValueError:
                self.complain(
                    "bad-moment",
                    name,
                    f"{written[:40]!r} is neither a day nor a moment.",
                    "Write 2026-10-01, or 2026-10-15T14:00:00+02:00.",
                )
                return None
        if not isinstance(value, datetime):
            day = self.day(name)
            return None if day is None else local_midnight(day, zone)
        try:
            moment = require_utc(value)
        except ValueError as exc:
            self.complain("bad-moment", name, f"{exc}.", "Add Z or an offset such as +02:00.")
            return None
        if not BEGINNING.year <= moment.year <= YEAR_MAX:
            self.complain(
                "out-of-bounds", name, f"{moment} is outside {BEGINNING.year} to {YEAR_MAX}."
            )
            return None
        return moment


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
