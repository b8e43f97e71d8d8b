"""Receipts and the documents behind them, for reconciling."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select, text, update

from meterpost.audit.model import AuditEntry
from meterpost.core.canonical import to_plain
from meterpost.core.ids import LegalEntityId, PostingKey, ReceiptId, TargetId, TransactionId
from meterpost.posting.model import Difference, Document
from meterpost.reconcile.model import (
    Baseline,
    Comparison,
    HeldLine,
    Judgement,
    ReceiptState,
    StoredReceipt,
)
from meterpost.staging.model import Finding, State, require_transition
from meterpost.storage.postgres import exceptions
from meterpost.storage.postgres.audit import write_entry
from meterpost.storage.postgres.database import Database
from meterpost.storage.postgres.locks import business_key_lock
from meterpost.storage.tables.posting import RECEIPT, RECEIPT_LINE
from meterpost.storage.tables.staging import EXCEPTION, STAGED_TRANSACTION, TRANSITION

_T = STAGED_TRANSACTION.c
#: Where the first reading of a document lies in the receipt's JSON, beside the latest.
_FIRST = "first_read"


@dataclass(frozen=True, slots=True)
class PostgresReconcile:
    """Opens reconciling transactions on one database."""

    database: Database

    @contextmanager
    def begin(self) -> Iterator[PostgresReconcileStore]:
        """A transaction, committed on leaving and rolled back on any exception."""
        with self.database.begin() as connection:
            yield PostgresReconcileStore(connection)


@dataclass(frozen=True, slots=True)
class PostgresReconcileStore:
    """`meterpost.reconcile.ports.ReconcileStore` on one open transaction."""

    connection: Connection

    def count(self, connection: TargetId) -> int:
        """How many receipts the connection has."""
        return self.connection.execute(
            select(func.count()).select_from(RECEIPT).where(RECEIPT.c.target == connection)
        ).scalar_one()

    def page(self, connection: TargetId, after: ReceiptId, limit: int) -> Sequence[StoredReceipt]:
        """The next receipts by id, not locked."""
        return self._read(
            _receipts()
            .where(RECEIPT.c.target == connection, RECEIPT.c.id > after)
            .order_by(RECEIPT.c.id)
            .limit(limit)
        )

    def lock(self, receipts: Sequence[ReceiptId]) -> Sequence[StoredReceipt]:
        """Business keys first, in order, then transactions, as everybody locks them."""
        keys = self.connection.execute(
            select(_T.purpose, _T.business_key)
            .join(RECEIPT, RECEIPT.c.transaction_id == _T.id)
            .where(RECEIPT.c.id == func.any(list(receipts)))
            .distinct()
        )
        names = sorted({business_key_lock(purpose, key) for purpose, key in keys})
        # The same order as staging's, so that two batches wait for each other and never in turn.
        self.connection.execute(
            text(
                "SELECT pg_advisory_xact_lock(hashtextextended(name, 0)) "
                "FROM unnest(CAST(:names AS text[])) AS name ORDER BY name"
            ),
            {"names": names},
        )
        self.connection.execute(
            select(_T.id)
            .join(RECEIPT, RECEIPT.c.transaction_id == _T.id)
            .where(RECEIPT.c.id == func.any(list(receipts)))
            .order_by(_T.id)
            .with_for_update()
        ).all()
        return self._read(
            _receipts().where(RECEIPT.c.id == func.any(list(receipts))).order_by(RECEIPT.c.id)
        )

    def write(self, stored: StoredReceipt, judgement: Judgement, now: datetime) -> None:
        """The receipt's row and its lines."""
        document = judgement.document
        values: dict[str, Any] = {
            "state": judgement.state.value,
            "held_net": judgement.held_net,
            "comparison": judgement.comparison.value,
            "differences": to_plain(judgement.differences),
            "answer": judgement.answer,
            "adjustment": sum(judgement.adjustments.values(), Decimal(0)),
            "compared_at": now,
        }
        if document is not None:
            assert judgement.baseline is not None
            values |= {
                "number": document.number,
                "document_date": document.date,
                "net": document.net,
                "tax": document.tax,
                "gross": document.gross,
                "document": {**document.to_plain(), _FIRST: to_plain(judgement.baseline)},
                "seen_at": now,
            }
        self.connection.execute(update(RECEIPT).where(RECEIPT.c.id == stored.id).values(**values))
        for name, line in stored.lines.items():
            held, adjustment = judgement.held[name], judgement.adjustments[name]
            if (held, adjustment) != (line.held, line.adjustment):
                self.connection.execute(
                    update(RECEIPT_LINE)
                    .where(RECEIPT_LINE.c.receipt_id == stored.id, RECEIPT_LINE.c.line == name)
                    .values(held=held, adjustment=adjustment)
                )

    def step(
        self, stored: StoredReceipt, to_state: State, reason: str, actor: str, now: datetime
    ) -> None:
        """Checked against the state table, moved, noted and audited; the row is locked already."""
        require_transition(stored.transaction_state, to_state, stored.transaction)
        self.connection.execute(
            update(STAGED_TRANSACTION)
            .where(_T.id == stored.transaction)
            .values(state=to_state, updated_at=now, version=_T.version + 1)
        )
        self.connection.execute(
            insert(TRANSITION).values(
                transaction_id=stored.transaction,
                from_state=stored.transaction_state,
                to_state=to_state,
                reason=reason,
                actor=actor,
                at=now,
            )
        )
        self.record_audit(
            AuditEntry(
                now,
                actor,
                f"transaction.{to_state}",
                "transaction",
                str(stored.transaction),
                {"posting_key": stored.key, "why": reason},
                stored.correlation_id,
            )
        )

    def first_day(self, connection: TargetId) -> date | None:
        """The earliest of document dates and days of writing."""
        created = func.min(func.timezone("UTC", RECEIPT.c.created_at))
        row = self.connection.execute(
            select(func.min(RECEIPT.c.document_date), created).where(RECEIPT.c.target == connection)
        ).one()
        days = [row[0], None if row[1] is None else row[1].date()]
        return min((day for day in days if day is not None), default=None)

    def known_documents(self, connection: TargetId, ids: Collection[str]) -> set[str]:
        """Those that a receipt of the connection names."""
        return set(
            self.connection.execute(
                select(RECEIPT.c.document_id).where(
                    RECEIPT.c.target == connection, RECEIPT.c.document_id == func.any(list(ids))
                )
            ).scalars()
        )

    def transaction_states(self, keys: Collection[str]) -> Mapping[str, State]:
        """By posting key."""
        rows = self.connection.execute(
            select(_T.posting_key, _T.state).where(_T.posting_key == func.any(list(keys)))
        )
        return {row.posting_key: State(row.state) for row in rows}

    def open_facts(self, reason: str, prefix: str) -> set[str]:
        """Facts of open exceptions."""
        return set(
            self.connection.execute(
                select(EXCEPTION.c.fact).where(
                    EXCEPTION.c.state == "open",
                    EXCEPTION.c.reason == reason,
                    EXCEPTION.c.fact.startswith(prefix, autoescape=True),
                )
            ).scalars()
        )

    def open_exceptions(self, findings: Sequence[Finding], now: datetime) -> None:
        """One open exception per finding."""
        exceptions.open_exceptions(self.connection, findings, now)

    def close_exceptions(
        self, reason: str, facts: Collection[str], now: datetime, *, by: str, why: str
    ) -> int:
        """Close the open exceptions of that reason about these facts; how many."""
        return exceptions.close_exceptions(self.connection, reason, facts, now, by=by, why=why)

    def record_audit(self, entry: AuditEntry) -> None:
        """Write an audit entry in this transaction."""
        write_entry(self.connection, entry)

    def _read(self, statement: Select[Any]) -> list[StoredReceipt]:
        rows = self.connection.execute(statement).all()
        lines: dict[int, dict[str, HeldLine]] = {}
        for line in self.connection.execute(
            select(RECEIPT_LINE)
            .where(RECEIPT_LINE.c.receipt_id == func.any([row.id for row in rows]))
            .order_by(RECEIPT_LINE.c.receipt_id, RECEIPT_LINE.c.line)
        ):
            held = HeldLine(line.posted, line.held, line.adjustment)
            lines.setdefault(line.receipt_id, {})[line.line] = held
        return [_stored(row, lines.get(row.id, {})) for row in rows]


def _receipts() -> Select[Any]:
    return select(
        RECEIPT,
        _T.document.label("ours"),
        _T.state.label("transaction_state"),
        _T.purpose,
        _T.business_key,
        _T.legal_entity,
        _T.accounting_period,
        _T.correlation_id,
    ).join(STAGED_TRANSACTION, _T.id == RECEIPT.c.transaction_id)


def _stored(row: Any, lines: Mapping[str, HeldLine]) -> StoredReceipt:
    return StoredReceipt(
        id=ReceiptId(row.id),
        target=TargetId(row.target),
        transaction=TransactionId(row.transaction_id),
        key=PostingKey(row.posting_key),
        document_id=row.document_id,
        number=row.number,
        ours=Document.from_plain(row.ours),
        state=ReceiptState(row.state),
        comparison=Comparison(row.comparison),
        differences=tuple(Difference(**each) for each in row.differences),
        net=row.net,
        tax=row.tax,
        gross=row.gross,
        held_net=row.held_net,
        lines=lines,
        baseline=_baseline(row),
        answer=row.answer,
        created_at=row.created_at,
        transaction_state=State(row.transaction_state),
        purpose=row.purpose,
        business_key=row.business_key,
        legal_entity=LegalEntityId(row.legal_entity),
        accounting_period=row.accounting_period,
        correlation_id=row.correlation_id,
    )


def _baseline(row: Any) -> Baseline | None:
    """What the document was when first read; posting's read-back is such a reading."""
    document: Mapping[str, Any] = row.document
    first = document.get(_FIRST)
    if first is not None:
        lines = {
            name: (account, tuple(sorted(taxes)))
            for name, (account, taxes) in first["lines"].items()
        }
        return Baseline(Decimal(first["tax"]), Decimal(first["gross"]), lines)
    if row.compared_at is None:
        return None
    return Baseline(
        Decimal(document["tax"]),
        Decimal(document["gross"]),
        {
            line["reference"]: (line["account"], tuple(sorted(line["tax_codes"])))
            for line in document["lines"]
            if line["reference"] is not None
        },
    )
