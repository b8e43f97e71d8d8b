"""Closes and usage records in the operational database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert

from meterpost.audit.model import AuditEntry
from meterpost.core.canonical import to_plain
from meterpost.core.errors import NotFound
from meterpost.core.ids import CloseId, LegalEntityId, UsageRecordId
from meterpost.metering.model import Components, Cutoff
from meterpost.staging.model import Finding
from meterpost.storage.postgres import exceptions
from meterpost.storage.postgres.audit import write_entry
from meterpost.storage.postgres.database import Database, copy_rows
from meterpost.storage.tables.masterdata import REVISION
from meterpost.storage.tables.staging import EXCEPTION
from meterpost.storage.tables.workflows import CLOSE, CONFIG_SNAPSHOT, USAGE_RECORD
from meterpost.workflows.model import Basis, Close, CloseState
from meterpost.workflows.records import Fate, KnownRecord, RecordKey, UsageDraft

_U = USAGE_RECORD.c

_RECORD_COLUMNS = (
    "id",
    "close_id",
    "purpose",
    "legal_entity",
    "accounting_period",
    "meter",
    "line",
    "source",
    "subject",
    "period_start",
    "period_end",
    "revision",
    "fate",
    "quantity",
    "unit",
    "events",
    "total",
    "minimum",
    "maximum",
    "distinct_count",
    "latest",
    "digest",
)
_SEGMENT_COLUMNS = (
    "usage_record_id",
    "ordinal",
    "source",
    "subject",
    "start_at",
    "end_at",
    "dimensions",
    "events",
    "total",
    "minimum",
    "maximum",
    "distinct_count",
    "latest",
    "digest",
)


@dataclass(frozen=True, slots=True)
class PostgresCloses:
    """Opens close transactions on one database."""

    database: Database

    @contextmanager
    def begin(self) -> Iterator[PostgresCloseStore]:
        """A transaction, committed on leaving and rolled back on any exception."""
        with self.database.begin() as connection:
            yield PostgresCloseStore(connection)


@dataclass(frozen=True, slots=True)
class PostgresCloseStore:
    """`meterpost.workflows.ports.CloseStore` on one open transaction."""

    connection: Connection

    def lock_period(self, workflow: str, entity: LegalEntityId, accounting_period: str) -> None:
        """An advisory lock on the period's name."""
        self.connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 1))"),
            {"name": f"{workflow}/{entity}/{accounting_period}"},
        )

    def latest(self, workflow: str, entity: LegalEntityId, accounting_period: str) -> Close | None:
        """The close with the highest n."""
        row = self.connection.execute(
            select(CLOSE)
            .where(
                CLOSE.c.workflow == workflow,
                CLOSE.c.legal_entity == entity,
                CLOSE.c.accounting_period == accounting_period,
            )
            .order_by(CLOSE.c.n.desc())
            .limit(1)
        ).first()
        return None if row is None else close_from(row)

    def get(self, close: CloseId) -> Close:
        """One close."""
        row = self.connection.execute(select(CLOSE).where(CLOSE.c.id == close)).first()
        if row is None:
            raise NotFound(f"There is no close {close}.", hint="List them: meterpost close list")
        return close_from(row)

    def add(self, close: Close) -> Close:
        """Store a new frame; the close with its id."""
        row = self.connection.execute(
            insert(CLOSE)
            .values(
                workflow=close.workflow,
                purpose=close.purpose,
                legal_entity=close.legal_entity,
                accounting_period=close.accounting_period,
                n=close.n,
                basis=close.basis,
                cutoff=close.cutoff.to_plain(),
                masterdata_rev=close.masterdata_rev,
                config_digest=close.config_digest,
                state=close.state,
                requested_by=close.requested_by,
                requested_at=close.requested_at,
                counts={},
                correlation_id=close.correlation_id,
            )
            .returning(CLOSE)
        ).one()
        return close_from(row)

    def remember_config(
        self, digest: str, content: Mapping[str, object], actor: str, now: datetime
    ) -> None:
        """Insert, or leave as it is."""
        self.connection.execute(
            upsert(CONFIG_SNAPSHOT)
            .values(digest=digest, content=to_plain(content), recorded_at=now, actor=actor)
            .on_conflict_do_nothing()
        )

    def config(self, digest: str) -> Mapping[str, object]:
        """The configuration of that digest."""
        content = self.connection.execute(
            select(CONFIG_SNAPSHOT.c.content).where(CONFIG_SNAPSHOT.c.digest == digest)
        ).scalar_one_or_none()
        if content is None:
            raise NotFound(f"No configuration with digest {digest} is stored.")
        assert isinstance(content, dict)
        return content

    def masterdata_revision(self) -> int:
        """The latest master-data revision, 0 before the first."""
        return int(
            self.connection.execute(select(func.coalesce(func.max(REVISION.c.rev), 0))).scalar_one()
        )

    def known_records(self, close: Close) -> Mapping[RecordKey, KnownRecord]:
        """One query: the highest revision of each record by closes up to this one."""
        key = (_U.meter, _U.line, _U.source, _U.subject, _U.period_start)
        statement = (
            select(
                *key,
                _U.id,
                _U.revision,
                CLOSE.c.n,
                _U.fate,
                _U.quantity,
                _U.unit,
                _U.period_end,
                _U.digest,
            )
            .join(CLOSE, CLOSE.c.id == _U.close_id)
            .where(
                _U.purpose == close.purpose,
                _U.legal_entity == close.legal_entity,
                _U.accounting_period == close.accounting_period,
                CLOSE.c.n <= close.n,
            )
            .ext(distinct_on(*key))
            .order_by(*key, _U.revision.desc())
        )
        fates = {fate.value: fate for fate in Fate}
        return {
            (meter, line, source, subject, start): KnownRecord(
                UsageRecordId(id_), revision, n, fates[fate], quantity, unit, end, digest
            )
            for (
                meter,
                line,
                source,
                subject,
                start,
                id_,
                revision,
                n,
                fate,
                quantity,
                unit,
                end,
                digest,
            ) in self.connection.execute(statement)
        }

    def add_records(
        self, close: Close, drafts: Sequence[tuple[UsageDraft, int]]
    ) -> Sequence[UsageRecordId]:
        """By COPY, with ids from the table's sequence."""
        ids = [
            UsageRecordId(id_)
            for id_ in self.connection.execute(
                text(
                    "SELECT nextval(pg_get_serial_sequence('meterpost.usage_record', 'id')) "
                    "FROM generate_series(1, :count)"
                ),
                {"count": len(drafts)},
            )
            .scalars()
            .all()
        ]
        copy_rows(
            self.connection,
            "usage_record",
            _RECORD_COLUMNS,
            (
                (
                    id_,
                    close.id,
                    close.purpose,
                    close.legal_entity,
                    close.accounting_period,
                    *draft.key[:4],
                    draft.period.start,
                    draft.period.end,
                    revision,
                    draft.fate.value,
                    draft.quantity,
                    draft.unit,
                    *_components(draft.components),
                    draft.digest,
                )
                for id_, (draft, revision) in zip(ids, drafts, strict=True)
            ),
        )
        copy_rows(
            self.connection,
            "usage_segment",
            _SEGMENT_COLUMNS,
            (
                (
                    id_,
                    ordinal,
                    segment.source,
                    segment.subject,
                    segment.start,
                    segment.end,
                    segment.dimensions,
                    *_components(segment.components),
                    segment.digest,
                )
                for id_, (draft, _) in zip(ids, drafts, strict=True)
                for ordinal, segment in enumerate(draft.segments, 1)
            ),
        )
        return ids

    def advance(
        self, close: CloseId, state: CloseState, counts: Mapping[str, object], now: datetime
    ) -> None:
        """Note that a step is over; counts of earlier steps stay."""
        moment = {CloseState.COMPUTED: "computed_at", CloseState.STAGED: "staged_at"}[state]
        self.connection.execute(
            update(CLOSE)
            .where(CLOSE.c.id == close)
            .values(
                {
                    "state": state,
                    "counts": CLOSE.c.counts.concat(
                        bindparam("more", to_plain(counts), type_=CLOSE.c.counts.type)
                    ),
                    moment: now,
                }
            )
        )

    def open_exceptions(self, findings: Sequence[Finding], now: datetime) -> None:
        """One open exception per finding."""
        exceptions.open_exceptions(self.connection, findings, now)

    def settle_exceptions(
        self,
        reason: str,
        entity: LegalEntityId,
        accounting_period: str,
        still: Iterable[str],
        now: datetime,
        *,
        why: str,
    ) -> int:
        """Close this period's open exceptions of this reason, but those about ``still``."""
        result = self.connection.execute(
            update(EXCEPTION)
            .where(
                EXCEPTION.c.state == "open",
                EXCEPTION.c.reason == reason,
                EXCEPTION.c.legal_entity == entity,
                EXCEPTION.c.accounting_period == accounting_period,
                EXCEPTION.c.fact != func.all(list(still)),
            )
            .values(state="closed", closed_at=now, closed_by="meterpost", closing_reason=why)
        )
        return result.rowcount

    def record_audit(self, entry: AuditEntry) -> None:
        """Write an audit entry in this transaction."""
        write_entry(self.connection, entry)


def close_from(row: Any) -> Close:
    """The close a row holds."""
    return Close(
        id=CloseId(row.id),
        workflow=row.workflow,
        purpose=row.purpose,
        legal_entity=LegalEntityId(row.legal_entity),
        accounting_period=row.accounting_period,
        n=row.n,
        basis=Basis(row.basis),
        cutoff=Cutoff.from_plain(row.cutoff),
        masterdata_rev=row.masterdata_rev,
        config_digest=row.config_digest,
        state=CloseState(row.state),
        requested_by=row.requested_by,
        requested_at=row.requested_at,
        correlation_id=row.correlation_id,
        counts=row.counts,
    )


def _components(components: Components) -> tuple[object, ...]:
    return (
        components.events,
        components.total,
        components.minimum,
        components.maximum,
        components.distinct,
        components.latest,
    )
