"""Reading JSON objects field by field: the right type and form, or a refusal naming the field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal

from meterpost_sandbox import decimals
from meterpost_sandbox.answers import invalid

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


class Fields:
    """One JSON object being read; ``path`` prefixes the names in refusals (``lines[0].``)."""

    def __init__(self, value: object, known: frozenset[str], path: str = "") -> None:
        if not isinstance(value, Mapping):
            raise invalid("expected a JSON object", path.rstrip(".") or None)
        unknown = sorted(str(name) for name in value if name not in known)
        if unknown:
            raise invalid(
                f"unknown field; known are {', '.join(sorted(known))}",
                f"{path}{unknown[0][:80]}",
                "unknown_field",
            )
        self._value: Mapping[str, object] = value
        self.path = path

    def has(self, name: str) -> bool:
        """Whether the field is present and not null."""
        return self._value.get(name) is not None

    def raw(self, name: str) -> object:
        """The value as it came, None when absent."""
        return self._value.get(name)

    def text(self, name: str, longest: int, default: str | None = None, shortest: int = 1) -> str:
        """A text of ``shortest`` to ``longest`` characters; required without a default."""
        value = self._present(name, default)
        if not isinstance(value, str):
            raise invalid("expected a string", self.path + name)
        if value == default:
            return value
        if not shortest <= len(value) <= longest:
            raise invalid(f"expected {shortest} to {longest} characters", self.path + name)
        if _CONTROL.search(value):
            raise invalid("control characters are not allowed", self.path + name)
        return value

    def optional_text(self, name: str, longest: int) -> str | None:
        """A text, or None when absent or null."""
        return self.text(name, longest) if self.has(name) else None

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._value.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise invalid("expected true or false", self.path + name)
        return value

    def decimal(self, name: str, places: int) -> Decimal:
        """A required decimal, written as a JSON string, of at most that many places."""
        value = self._present(name, None)
        if not isinstance(value, str):
            raise invalid('expected a decimal in a string, such as "12.50"', self.path + name)
        try:
            return decimals.parse(value, places)
        except decimals.TooPrecise as exc:
            raise invalid(str(exc), self.path + name, "precision") from exc
        except ValueError as exc:
            raise invalid(str(exc), self.path + name) from exc

    def day(self, name: str) -> str:
        """A required calendar day, YYYY-MM-DD."""
        value = self._present(name, None)
        if not isinstance(value, str):
            raise invalid("expected a day such as 2026-10-31", self.path + name)
        try:
            return parse_day(value)
        except ValueError as exc:
            raise invalid(str(exc), self.path + name) from exc

    def currency(self, name: str) -> str:
        """A required currency code of three capitals."""
        value = self.text(name, 3)
        if not _CURRENCY.fullmatch(value):
            raise invalid("expected a currency code such as EUR", self.path + name)
        return value

    def array(self, name: str, most: int) -> Sequence[object]:
        """A required array of at most ``most`` elements."""
        value = self._present(name, None)
        if not isinstance(value, list):
            raise invalid("expected an array", self.path + name)
        if len(value) > most:
            raise invalid(f"at most {most} elements are taken", self.path + name, "too_many")
        return value

    def _present(self, name: str, default: str | None) -> object:
        value = self._value.get(name)
        if value is not None:
            return value
        if default is None:
            raise invalid("this field is required", self.path + name, "missing_field")
        return default


def parse_day(text: str) -> str:
    """The same day, checked.

    Raises: ValueError for anything but an existing day written YYYY-MM-DD.
    """
    try:
        if _DAY.fullmatch(text):
            return date.fromisoformat(text).isoformat()
    except ValueError:
        pass
    raise ValueError(f"{text[:40]!r} is not a day such as 2026-10-31")


def parse_moment(text: str) -> datetime:
    """The moment in UTC.

    Raises: ValueError for what is not an ISO 8601 moment with a zone.
    """
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{text[:40]!r} is not a moment with a zone such as 2026-10-01T08:30:00Z")


def moment_text(moment: datetime) -> str:
    """Fixed-width UTC notation, so that texts sort like the moments they name."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
