"""Transactions, usage records and what hangs on them, for traces and proofs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from meterpost.metering.model import Cutoff
from meterpost.reconcile.trace import (
    TracedApproval,
    TracedCall,
    TracedClose,
    TracedLine,
    TracedReceipt,
    TracedRecord,
    TracedSegment,
    TracedStep,
    TracedTransaction,
)
from meterpost.storage.postgres.database import Database

#: Calls per transaction that a trace shows; a probed document may have had hundreds.
_CALLS_MAX = 50
_BODIES_MAX = 20

_NAMED = {
    "key": "SELECT id FROM meterpost.staged_transaction WHERE posting_key = :name",
    "transaction": "SELECT id FROM meterpost.staged_transaction WHERE id = CAST(:name AS bigint)",
    "document": "SELECT transaction_id FROM meterpost.receipt "
    "WHERE number = :name OR document_id = :name",
    "correlation": "SELECT id FROM meterpost.staged_transaction WHERE correlation_id = :name",
}
_RECORDS = """
    SELECT u.*, c.n, c.workflow, c.basis, c.cutoff, c.masterdata_rev, c.config_digest,
           claim.transaction_id AS claimed_by,
           (SELECT min(later.id) FROM meterpost.usage_record AS later
             WHERE (later.purpose, later.meter, later.line, later.source, later.subject,
                    later.period_start, later.revision)
                 = (u.purpose, u.meter, u.line, u.source, u.subject, u.period_start,
                    u.revision + 1)) AS superseded_by
      FROM meterpost.usage_record AS u
      JOIN meterpost.close AS c ON c.id = u.close_id
      LEFT JOIN meterpost.claim AS claim ON claim.usage_record_id = u.id
     WHERE u.id = ANY(:ids)
     ORDER BY u.purpose, u.meter, u.line, u.source, u.subject, u.period_start, u.revision"""
_TRANSACTIONS = """
    SELECT t.* FROM meterpost.staged_transaction AS t
     WHERE (t.purpose, t.business_key, t.period_start) IN (
        SELECT s.purpose, s.business_key, s.period_start
          FROM meterpost.staged_transaction AS s WHERE s.id = ANY(:ids))
     ORDER BY t.business_key, t.period_start, t.revision"""


@dataclass(frozen=True, slots=True)
class PostgresTraces:
    """Opens snapshots of one database."""

    database: Database

    @contextmanager
    def snapshot(self) -> Iterator[PostgresTraceStore]:
        """A read-only view of one moment."""
        with self.database.snapshot() as connection:
            yield PostgresTraceStore(connection)


@dataclass(frozen=True, slots=True)
class PostgresTraceStore:
    """`meterpost.reconcile.tracer.TraceStore` on one snapshot."""

    connection: Connection

    def transactions_named(self, kind: str, name: str, limit: int) -> Sequence[int]:
        """Newest first."""
        if kind == "transaction" and not (name.isascii() and name.isdigit() and len(name) < 19):
            return []
        return self._ids(f"{_NAMED[kind]} ORDER BY 1 DESC LIMIT :limit", name=name, limit=limit)

    def transactions(self, ids: Collection[int]) -> Sequence[TracedTransaction]:
        """One query per table."""
        if not ids:
            return []
        rows = self._rows(_TRANSACTIONS, ids=list(ids))
        all_ids = [row.id for row in rows]

        def parts(sql: str) -> dict[int, list[Any]]:
            grouped: dict[int, list[Any]] = {}
            for part in self._rows(sql, ids=all_ids):
                grouped.setdefault(part.transaction_id, []).append(part)
            return grouped

        lines = parts(
            "SELECT * FROM meterpost.transaction_line WHERE transaction_id = ANY(:ids) "
            "ORDER BY transaction_id, ordinal"
        )
        history = parts(
            "SELECT * FROM meterpost.transition WHERE transaction_id = ANY(:ids) ORDER BY id"
        )
        approvals = parts(
            "SELECT * FROM meterpost.approval WHERE transaction_id = ANY(:ids) ORDER BY id"
        )
        calls = parts(
            "SELECT c.*, i.transaction_id, i.posting_day, i.outcome AS item_outcome "
            "FROM meterpost.call_item AS i JOIN meterpost.call AS c ON c.id = i.call_id "
            "WHERE i.transaction_id = ANY(:ids) ORDER BY c.id"
        )
        receipts = parts("SELECT * FROM meterpost.receipt WHERE transaction_id = ANY(:ids)")
        sentences: dict[str, list[str]] = {}
        for row in self._rows(
            "SELECT fact, sentence FROM meterpost.exception WHERE state = 'open' "
            "AND fact = ANY(:keys) ORDER BY id",
            keys=[row.posting_key for row in rows],
        ):
            sentences.setdefault(row.fact, []).append(row.sentence)
        return [
            _transaction(
                row,
                lines=tuple(map(_line, lines.get(row.id, ()))),
                history=tuple(map(_step, history.get(row.id, ()))),
                approvals=tuple(map(_approval, approvals.get(row.id, ()))),
                calls=tuple(map(_call, calls.get(row.id, ())[-_CALLS_MAX:])),
                receipt=next(map(_receipt, receipts.get(row.id, ())), None),
                exceptions=tuple(sentences.get(row.posting_key, ())),
            )
            for row in rows
        ]

    def transactions_of_records(self, records: Collection[int]) -> Sequence[int]:
        """In order of id."""
        return self._ids(
            "SELECT DISTINCT transaction_id FROM meterpost.transaction_line "
            "WHERE usage_record_id = ANY(:records) ORDER BY 1",
            records=list(records),
        )

    def transactions_of_close(self, close: int) -> Sequence[int]:
        """Transactions that carry the latest records as of a close, in order of id."""
        return self._ids(
            "SELECT DISTINCT l.transaction_id FROM meterpost.transaction_line AS l "
            "JOIN meterpost.claim AS c ON c.usage_record_id = l.usage_record_id "
            "AND c.transaction_id = l.transaction_id "
            "WHERE l.usage_record_id = ANY(:records) ORDER BY 1",
            records=list(self.records_of_close(close)),
        )

    def records(self, ids: Collection[int]) -> Sequence[TracedRecord]:
        """One query for the records, one for their segments."""
        if not ids:
            return []
        segments: dict[int, list[TracedSegment]] = {}
        for row in self._rows(
            "SELECT * FROM meterpost.usage_segment WHERE usage_record_id = ANY(:ids) "
            "ORDER BY usage_record_id, ordinal",
            ids=list(ids),
        ):
            segments.setdefault(row.usage_record_id, []).append(_segment(row))
        rows = self._rows(_RECORDS, ids=list(ids))
        return [_record(row, tuple(segments.get(row.id, ()))) for row in rows]

    def records_of_subject(
        self, source: str | None, subject: str, at: datetime | None, limit: int
    ) -> Sequence[int]:
        """Latest first."""
        return self._ids(
            "SELECT DISTINCT usage_record_id FROM meterpost.usage_segment "
            "WHERE subject = :subject AND (CAST(:source AS text) IS NULL OR source = :source) "
            "AND (CAST(:at AS timestamptz) IS NULL OR (start_at <= :at AND :at < end_at)) "
            "ORDER BY 1 DESC LIMIT :limit",
            subject=subject,
            source=source,
            at=at,
            limit=limit,
        )

    def records_of_close(self, close: int) -> Sequence[int]:
        """The highest revisions as of a close, of its purpose, entity and accounting period."""
        return self._ids(
            """
            SELECT DISTINCT ON (u.meter, u.line, u.source, u.subject, u.period_start) u.id
              FROM meterpost.close AS mine
              JOIN meterpost.close AS c
                ON (c.workflow, c.legal_entity, c.accounting_period)
                 = (mine.workflow, mine.legal_entity, mine.accounting_period) AND c.n <= mine.n
              JOIN meterpost.usage_record AS u ON u.close_id = c.id
             WHERE mine.id = :close
             ORDER BY u.meter, u.line, u.source, u.subject, u.period_start, u.revision DESC""",
            close=close,
        )

    def close(self, close: int) -> TracedClose | None:
        """The frame of a close, or None."""
        rows = self._rows(
            "SELECT id AS close_id, n, workflow, purpose, legal_entity, accounting_period, basis, "
            "cutoff, masterdata_rev, config_digest FROM meterpost.close WHERE id = :close",
            close=close,
        )
        return _close(rows[0]) if rows else None

    def event_keys(self, correlation_id: str, limit: int) -> Sequence[tuple[str, str]]:
        """Read from the bodies of the first requests with that correlation id."""
        found: list[tuple[str, str]] = []
        for row in self._rows(
            "SELECT body FROM meterpost.journal WHERE correlation_id = :name "
            "ORDER BY sequence LIMIT :bodies",
            name=correlation_id,
            bodies=_BODIES_MAX,
        ):
            for event in events_in(bytes(row.body)):
                if len(found) == limit:
                    return found
                source, event_id = event.get("source"), event.get("id")
                if isinstance(source, str) and isinstance(event_id, str):
                    found.append((source, event_id))
        return found

    def _rows(self, sql: str, **values: object) -> Sequence[Any]:
        return self.connection.execute(text(sql), values).all()

    def _ids(self, sql: str, **values: object) -> list[int]:
        return list(self.connection.execute(text(sql), values).scalars())


def events_in(body: bytes) -> Iterator[Mapping[str, Any]]:
    """The events of a journal body: a JSON array, one object, or NDJSON."""
    try:
        whole = json.loads(body)
    except ValueError:
        parts: list[object] = []
        for line in body.splitlines():
            try:
                parts.append(json.loads(line))
            except ValueError:
                continue
    else:
        parts = whole if isinstance(whole, list) else [whole]
    for part in parts:
        if isinstance(part, dict):
            yield part


def _close(row: Any) -> TracedClose:
    return TracedClose(
        row.close_id,
        row.n,
        row.workflow,
        row.purpose,
        row.legal_entity,
        row.accounting_period,
        row.basis,
        Cutoff.from_plain(row.cutoff),
        row.masterdata_rev,
        row.config_digest,
    )


def _record(row: Any, segments: tuple[TracedSegment, ...]) -> TracedRecord:
    return TracedRecord(
        row.id,
        _close(row),
        row.meter,
        row.line,
        row.source,
        row.subject,
        row.period_start,
        row.period_end,
        row.revision,
        row.fate,
        row.quantity,
        row.unit,
        row.events,
        row.digest,
        segments,
        row.claimed_by,
        row.superseded_by,
    )


def _segment(row: Any) -> TracedSegment:
    return TracedSegment(
        row.usage_record_id,
        row.ordinal,
        row.source,
        row.subject,
        row.start_at,
        row.end_at,
        row.dimensions,
        row.events,
        row.digest,
    )


def _line(row: Any) -> TracedLine:
    return TracedLine(
        row.ordinal,
        row.line,
        row.meter,
        row.usage_record_id,
        row.description,
        row.unit,
        row.quantity,
        row.included,
        row.charged,
        row.price,
        row.amount,
        row.held,
        row.due,
        row.working,
        row.service_from,
        row.service_to,
    )


def _step(row: Any) -> TracedStep:
    return TracedStep(row.from_state, row.to_state, row.reason, row.actor, row.at)


def _approval(row: Any) -> TracedApproval:
    return TracedApproval(
        row.decision, row.person, row.rule, row.document_hash, row.reason, row.decided_at
    )


def _call(row: Any) -> TracedCall:
    return TracedCall(
        row.id,
        row.n,
        row.purpose,
        row.posting_day,
        row.reserved_at,
        row.finished_at,
        row.item_outcome or row.outcome,
        row.sentence,
    )


def _receipt(row: Any) -> TracedReceipt:
    return TracedReceipt(
        row.target,
        row.document_id,
        row.number,
        row.state,
        row.net,
        row.tax,
        row.gross,
        row.held_net,
        row.adjustment,
        row.comparison,
        tuple(
            f"{each['field']}: sent {each['ours']}, the ERP holds {each['theirs']}"
            for each in row.differences
        ),
        row.answer,
        row.seen_at,
    )


def _transaction(row: Any, **parts: Any) -> TracedTransaction:
    return TracedTransaction(
        id=row.id,
        posting_key=row.posting_key,
        purpose=row.purpose,
        target=row.target,
        legal_entity=row.legal_entity,
        accounting_period=row.accounting_period,
        business_key=row.business_key,
        customer=row.customer,
        period_start=row.period_start,
        period_end=row.period_end,
        revision=row.revision,
        close=row.close_id,
        state=row.state,
        currency=row.currency,
        amount=row.amount,
        due=row.due,
        document_hash=row.document_hash,
        correlation_id=row.correlation_id,
        **parts,
    )
