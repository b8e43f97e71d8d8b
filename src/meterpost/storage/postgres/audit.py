"""Audit entries in the operational database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Row,
    Select,
    Text,
    and_,
    cast,
    func,
    insert,
    or_,
    select,
)

from meterpost.audit.model import AuditEntry, Frontier, Seal, SealedRun, StoredEntry
from meterpost.core.canonical import to_plain
from meterpost.storage.postgres.database import Database, copy_rows
from meterpost.storage.tables.audit import AUDIT_ENTRY, AUDIT_SEAL, AUDIT_SEALED

#: Advisory lock of the one sealer at a time (the bytes of "seal").
_SEALER_LOCK = 0x7365616C
_PAGE = 5_000

_SNAPSHOT = func.pg_current_snapshot()
_OLDEST_RUNNING = cast(cast(func.pg_snapshot_xmin(_SNAPSHOT), Text), BigInteger)
_NEXT_TRANSACTION = cast(cast(func.pg_snapshot_xmax(_SNAPSHOT), Text), BigInteger)


def write_entry(connection: Connection, entry: AuditEntry) -> int:
    """The sequence of the entry, written in the caller's transaction: both stand or neither."""
    statement = insert(AUDIT_ENTRY).values(
        at=entry.at,
        actor=entry.actor,
        action=entry.action,
        object_kind=entry.object_kind,
        object_id=entry.object_id,
        detail=to_plain(entry.detail),
        correlation_id=entry.correlation_id,
    )
    return int(connection.execute(statement.returning(AUDIT_ENTRY.c.sequence)).scalar_one())


class PostgresAuditStore:
    """The audit log of one database (port: `meterpost.audit.ports.AuditStore`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def sealing(self) -> Iterator[PostgresSealing]:
        """A transaction that waits for, and then excludes, any other sealer."""
        with self._database.begin() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(_SEALER_LOCK)))
            yield PostgresSealing(connection)

    @contextmanager
    def reading(self) -> Iterator[PostgresAuditReading]:
        """A snapshot to verify or export."""
        with self._database.snapshot() as connection:
            yield PostgresAuditReading(connection)


class PostgresSealing:
    """One sealer's transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def last(self) -> Seal | None:
        """The newest seal."""
        row = self._connection.execute(
            select(AUDIT_SEAL).order_by(AUDIT_SEAL.c.n.desc()).limit(1)
        ).one_or_none()
        return None if row is None else _seal(row)

    def frontier(self) -> Frontier:
        """Where the log ends now."""
        row = self._connection.execute(
            select(
                _OLDEST_RUNNING.label("oldest"),
                _NEXT_TRANSACTION.label("next"),
                select(func.coalesce(func.max(AUDIT_ENTRY.c.sequence), 0))
                .scalar_subquery()
                .label("sequence"),
            )
        ).one()
        return Frontier(row.oldest, row.next, row.sequence)

    def sealable(self, limit: int, above: int) -> list[StoredEntry]:
        """Unsealed entries of transactions older than every running one, by sequence.

        An entry that is visible and still has an xid not yet given out came with a restore
        from another server; it cannot be waiting for anything.
        """
        rows = self._connection.execute(
            _unsealed(above)
            .where(
                or_(
                    AUDIT_ENTRY.c.xid < _OLDEST_RUNNING,
                    AUDIT_ENTRY.c.xid >= _NEXT_TRANSACTION,
                )
            )
            .limit(limit)
        )
        return [_stored(row) for row in rows]

    def add(self, seal: Seal, sequences: Sequence[int]) -> None:
        """Store a seal and which entry has which place in it."""
        self._connection.execute(
            insert(AUDIT_SEAL).values(
                n=seal.n,
                entries=seal.entries,
                root=seal.root,
                previous=seal.previous,
                hash=seal.hash,
                sealed_at=seal.sealed_at,
            )
        )
        copy_rows(
            self._connection,
            "audit_sealed",
            ("sequence", "seal", "place"),
            ((sequence, seal.n, place) for place, sequence in enumerate(sequences)),
        )

    def since(self, n: int) -> Iterator[Seal]:
        """Seals after the nth, in order."""
        rows = self._connection.execute(
            select(AUDIT_SEAL).where(AUDIT_SEAL.c.n > n).order_by(AUDIT_SEAL.c.n)
        )
        return (_seal(row) for row in rows)


class PostgresAuditReading:
    """One snapshot of the log."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def runs(self) -> Iterator[SealedRun]:
        """Every seal with its entries, in order; one seal's entries are in memory at a time."""
        for row in self._connection.execute(select(AUDIT_SEAL).order_by(AUDIT_SEAL.c.n)).all():
            yield self._run(_seal(row))

    def unsealed(self) -> Iterator[StoredEntry]:
        """Entries without a seal, by sequence."""
        after = -(1 << 62)
        while True:
            rows = self._connection.execute(_unsealed(after).limit(_PAGE)).all()
            yield from (_stored(row) for row in rows)
            if len(rows) < _PAGE:
                return
            after = rows[-1].sequence

    def run_of(self, sequence: int) -> SealedRun | None:
        """The seal over an entry with all it covers; None while it is unsealed or unknown."""
        row = self._connection.execute(
            select(AUDIT_SEAL)
            .join(AUDIT_SEALED, AUDIT_SEALED.c.seal == AUDIT_SEAL.c.n)
            .where(AUDIT_SEALED.c.sequence == sequence)
        ).one_or_none()
        return None if row is None else self._run(_seal(row))

    def _run(self, seal: Seal) -> SealedRun:
        rows = self._connection.execute(
            select(AUDIT_ENTRY, AUDIT_SEALED.c.place)
            .join(AUDIT_SEALED, AUDIT_SEALED.c.sequence == AUDIT_ENTRY.c.sequence)
            .where(AUDIT_SEALED.c.seal == seal.n)
            .order_by(AUDIT_SEALED.c.place, AUDIT_ENTRY.c.sequence)
        )
        return SealedRun(seal, tuple((row.place, _stored(row)) for row in rows))


def _unsealed(above: int) -> Select[Any]:
    # Both sides are bounded, so that the newest entries are found without reading the oldest.
    sealed = and_(
        AUDIT_SEALED.c.sequence == AUDIT_ENTRY.c.sequence, AUDIT_SEALED.c.sequence > above
    )
    return (
        select(AUDIT_ENTRY)
        .outerjoin(AUDIT_SEALED, sealed)
        .where(AUDIT_SEALED.c.sequence.is_(None), AUDIT_ENTRY.c.sequence > above)
        .order_by(AUDIT_ENTRY.c.sequence)
    )


def _stored(row: Row[Any]) -> StoredEntry:
    return StoredEntry(
        row.sequence,
        AuditEntry(
            at=row.at,
            actor=row.actor,
            action=row.action,
            object_kind=row.object_kind,
            object_id=row.object_id,
            detail=row.detail,
            correlation_id=row.correlation_id,
        ),
    )


def _seal(row: Row[Any]) -> Seal:
    return Seal(row.n, row.entries, row.root, row.previous, row.hash, row.sealed_at)
