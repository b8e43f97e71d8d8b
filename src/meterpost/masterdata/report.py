"""What an import changed, thing by thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from meterpost.core.canonical import to_plain
from meterpost.core.problem import Problem
from meterpost.masterdata.model import FOREVER
from meterpost.masterdata.timeline import Span, Values, steps

#: A stored report keeps this many changes; its counts are always complete.
STORED_CHANGES_MAX = 1000


class ChangeKind(StrEnum):
    """What happened to a span of one thing's validity."""

    ADDED = "added"
    CHANGED = "changed"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Change:
    """In [valid_from, valid_to) a thing came to be, changed, or ceased.

    ``fields`` maps each field that changed to (old, new); for added things to (None, new).
    """

    kind: ChangeKind
    entity: str
    id: str
    valid_from: datetime
    valid_to: datetime | None
    fields: Mapping[str, tuple[object, object]]

    def to_plain(self) -> dict[str, object]:
        """JSON form."""
        return {
            "kind": self.kind.value,
            "entity": self.entity,
            "id": self.id,
            "valid_from": to_plain(self.valid_from),
            "valid_to": to_plain(self.valid_to),
            "fields": {
                name: {"old": to_plain(old), "new": to_plain(new)}
                for name, (old, new) in self.fields.items()
            },
        }

    def __str__(self) -> str:
        until = "" if self.valid_to is None else f" until {_readable(self.valid_to)}"
        fields = ", ".join(
            f"{name}: {_short(new)}" if old is None else f"{name}: {_short(old)} → {_short(new)}"
            for name, (old, new) in self.fields.items()
        )
        what = f"{self.kind} {self.entity} {self.id}, from {_readable(self.valid_from)}{until}"
        return f"{what}: {fields}" if fields else what


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did, or (``dry_run``) would do; with ``refused`` it did nothing at all.

    ``rev`` is the revision it made: None where nothing changed or nothing was stored.
    ``unchanged`` counts the records that said what was known already.
    """

    rev: int | None
    changes: Sequence[Change]
    unchanged: int
    refused: Sequence[Problem]
    dry_run: bool = False

    def count(self, kind: ChangeKind) -> int:
        """How many changes of a kind there are."""
        return sum(change.kind == kind for change in self.changes)

    @property
    def counts(self) -> dict[str, int]:
        """The report in five numbers."""
        return {
            **{kind.value: self.count(kind) for kind in ChangeKind},
            "unchanged": self.unchanged,
            "refused": len(self.refused),
        }

    def to_plain(self, *, changes_max: int | None = None) -> dict[str, object]:
        """JSON form, with at most so many changes."""
        shown = self.changes if changes_max is None else self.changes[:changes_max]
        return {
            "rev": self.rev,
            "dry_run": self.dry_run,
            "counts": self.counts,
            "changes": [change.to_plain() for change in shown],
            "changes_left_out": len(self.changes) - len(shown),
            "refused": [to_plain(problem) for problem in self.refused],
        }


def changes_between(
    entity: str, key: tuple[str, ...], old: Sequence[Span], new: Sequence[Span]
) -> list[Change]:
    """The differences of two timelines in the report's words."""
    return [
        Change(
            _kind(step.old, step.new),
            entity,
            "/".join(key),
            step.start,
            None if step.end == FOREVER else step.end,
            _fields(step.old, step.new),
        )
        for step in steps(old, new)
    ]


def _kind(old: Values | None, new: Values | None) -> ChangeKind:
    if old is None:
        return ChangeKind.ADDED
    return ChangeKind.ENDED if new is None else ChangeKind.CHANGED


def _fields(old: Values | None, new: Values | None) -> dict[str, tuple[object, object]]:
    if new is None:
        return {}
    before = old or {}
    return {
        name: (before.get(name), value) for name, value in new.items() if before.get(name) != value
    }


def _readable(moment: datetime) -> str:
    text = moment.isoformat(timespec="auto").replace("+00:00", "Z")
    return text.removesuffix("T00:00:00Z")


def _short(value: object) -> str:
    text = str(to_plain(value))
    return text if len(text) <= 80 else text[:79] + "…"
