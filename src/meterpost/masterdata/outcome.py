"""What would be known after an import: the timelines it touches, over what is stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from meterpost.core.problem import Problem
from meterpost.masterdata.model import KEYS, NewVersion, StoredVersion
from meterpost.masterdata.ports import MasterdataStore
from meterpost.masterdata.reading import Parsed
from meterpost.masterdata.report import Change, changes_between
from meterpost.masterdata.timeline import Span, apply, conflict, steps

Key = tuple[str, ...]

#: One thing has at most this many statements in one import.
STATEMENTS_MAX = 1000


class Outcome:
    """Old and new timelines of every thing an import touches."""

    def __init__(
        self, parsed: Iterable[Parsed], store: MasterdataStore, problems: list[Problem]
    ) -> None:
        self._store = store
        self._stated: dict[str, dict[Key, list[Parsed]]] = defaultdict(lambda: defaultdict(list))
        for one in parsed:
            self._stated[one.record.entity][one.key].append(one)
        self._rows: dict[str, dict[Key, list[StoredVersion]]] = {}
        self.new: dict[str, dict[Key, list[Span]]] = {}
        for entity, things in self._stated.items():
            self._rows[entity] = self._stored(entity, things)
            self.new[entity] = {
                key: self._after(entity, key, stated, problems) for key, stated in things.items()
            }

    def where(self, entity: str, key: Key) -> str:
        """Where the import speaks of a thing, for problems."""
        stated = self._stated[entity].get(key, ())
        return stated[0].record.where if stated else ""

    def touches(self, entity: str, key: Key) -> bool:
        """Whether the import says anything about it."""
        return key in self.new.get(entity, ())

    def vanished(self, entity: str) -> set[str]:
        """Ids of which nothing is known any more."""
        old = self._rows.get(entity, {})
        return {key[0] for key, new in self.new.get(entity, {}).items() if not new and old.get(key)}

    def final(self, entity: str, column: str, values: Collection[str]) -> dict[Key, list[Span]]:
        """What will be known of the things whose column has one of the values."""
        found: dict[Key, list[Span]] = defaultdict(list)
        if not values:
            return found
        touched = self.new.get(entity, {})
        for row in self._store.current_rows(entity, {column: values}):
            if row.key not in touched:
                found[row.key].append(Span(row.valid_from, row.valid_to, row.values))
        place = KEYS[entity].index(column) if column in KEYS[entity] else None
        for key, spans in touched.items():
            for span in spans:
                value = span.values[column] if place is None else key[place]
                if value in values:
                    found[key].append(span)
        return found

    def changes(self) -> list[Change]:
        """What differs, thing by thing."""
        return [
            change
            for entity, things in self.new.items()
            for key, spans in things.items()
            for change in changes_between(entity, key, self._old(entity, key), spans)
        ]

    def unchanged(self) -> int:
        """How many records said what was known already."""
        return sum(
            len(stated)
            for entity, things in self._stated.items()
            for key, stated in things.items()
            if self.new[entity][key] == self._old(entity, key)
        )

    def ended_rows(self) -> dict[str, list[int]]:
        """Stored rows that are no longer known as they stand."""
        return {
            entity: [
                row.row_id
                for key, rows in things.items()
                for row in rows
                if _span(row) not in self.new[entity][key]
            ]
            for entity, things in self._rows.items()
        }

    def new_rows(self) -> dict[str, list[NewVersion]]:
        """Rows to store."""
        return {
            entity: [
                NewVersion(key, span.values, span.start, span.end)
                for key, spans in things.items()
                for old in (self._old(entity, key),)
                for span in spans
                if span not in old
            ]
            for entity, things in self.new.items()
        }

    def _old(self, entity: str, key: Key) -> list[Span]:
        rows = self._rows[entity].get(key, ())
        return sorted(map(_span, rows), key=lambda span: span.start)

    def _stored(self, entity: str, things: Collection[Key]) -> dict[Key, list[StoredVersion]]:
        found: dict[Key, list[StoredVersion]] = defaultdict(list)
        column = KEYS[entity][-1]
        for row in self._store.current_rows(entity, {column: {key[-1] for key in things}}):
            if row.key in things:
                found[row.key].append(row)
        return found

    def _after(
        self, entity: str, key: Key, stated: Sequence[Parsed], problems: list[Problem]
    ) -> list[Span]:
        statements = [one.statement for one in stated]
        first = stated[0].record.where
        name = "/".join(key)
        if len(statements) > STATEMENTS_MAX:
            sentence = f"{entity} {name} has {len(statements)} records; at most {STATEMENTS_MAX}."
            problems.append(Problem("too-many", sentence, first))
            return self._old(entity, key)
        clash = conflict(statements)
        if clash is not None:
            one, other = clash
            problems.append(
                Problem(
                    "overlapping",
                    f"{entity} {name} is said to be two things at once, here and at {one.where}.",
                    other.where,
                    "Give each its own valid_from and valid_to, without overlap.",
                )
            )
            return self._old(entity, key)
        if all(s.values is None for s in statements) and not self._rows[entity].get(key):
            problems.append(
                Problem("unknown", f"{entity} {name} cannot end: it is not known.", first)
            )
        old = self._old(entity, key)
        new = apply(old, statements)
        return new if any(steps(old, new)) else old


def _span(row: StoredVersion) -> Span:
    return Span(row.valid_from, row.valid_to, row.values)
