"""What master data needs of its store, inside one database transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

import pyarrow as pa

from meterpost.audit.model import AuditEntry
from meterpost.masterdata.model import NewVersion, StoredVersion


class MasterdataStore(Protocol):
    """Versions of master data, and the revisions they were known in."""

    def lock(self) -> None:
        """Wait until no other transaction writes master data; held to the transaction's end.

        Revisions are committed in order because of it, so a revision never grows afterwards.
        """
        ...

    def latest_revision(self) -> int:
        """The number of the last revision; 0 before the first."""
        ...

    def current_rows(
        self, entity: str, where: Mapping[str, Collection[str]]
    ) -> Sequence[StoredVersion]:
        """What is known now of the things whose columns have one of the values."""
        ...

    def write_revision(
        self,
        *,
        recorded_at: datetime,
        actor: str,
        source: str,
        report: Mapping[str, object],
        ended: Mapping[str, Sequence[int]],
        new: Mapping[str, Iterable[NewVersion]],
    ) -> int:
        """Store a revision: rows by id that are no longer known, and new ones, per entity."""
        ...

    def tables(self, rev: int, entities: Sequence[str]) -> Mapping[str, pa.Table]:
        """Every row known at a revision, per entity.

        Shape: the table's columns as text (JSON and dates included), ``valid_from`` and
        ``valid_to`` as int64 microseconds since 1970 (open: the end of year 9999), accounting
        periods' ``starts_at`` and ``ends_at`` likewise; ``rev_from`` as int64.
        """
        ...

    def page(
        self,
        entity: str,
        *,
        where: Mapping[str, str],
        at: datetime | None,
        after: Sequence[str] | None,
        limit: int,
    ) -> Sequence[StoredVersion]:
        """Current rows in the order of (key, valid_from), after such a tuple."""
        ...

    def history(self, entity: str, key: tuple[str, ...]) -> Sequence[StoredVersion]:
        """Every row ever known of one thing, in the order of (rev_from, valid_from)."""
        ...

    def links(
        self,
        system: str,
        kind: str,
        *,
        column: str,
        values: Collection[str],
        at: datetime,
        rev: int,
    ) -> Mapping[str, str]:
        """Crosswalk links in force at a moment, as known at a revision.

        ``column`` is ``external_id`` (to our ids) or ``canonical_id`` (to theirs).
        """
        ...

    def record_audit(self, entry: AuditEntry) -> None:
        """Write an audit entry in this transaction."""
        ...


class PersonalTokens(Protocol):
    """Turns personal subjects into the tokens that events carry instead."""

    def tokens(self, values: Sequence[str]) -> Sequence[str]:
        """The token of each value, made where there is none yet."""
        ...
