"""Posting's rows in the operational database: transactions on their way, calls, permits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg
from sqlalchemy import Connection, Row, func, insert, or_, select, update

from meterpost.audit.model import AuditEntry
from meterpost.core.errors import Conflict, NotFound
from meterpost.core.ids import LegalEntityId, PostingKey, TargetId, TransactionId
from meterpost.posting.calls import Doubtful, Pending
from meterpost.posting.model import Document
from meterpost.staging.model import Finding, State, require_transition
from meterpost.storage.postgres.audit import write_entry
from meterpost.storage.postgres.calls import CallRows, poster_lock
from meterpost.storage.postgres.database import Database
from meterpost.storage.postgres.exceptions import close_exceptions, open_exception
from meterpost.storage.postgres.locks import business_key_lock, lock_business_key, try_lock
from meterpost.storage.postgres.receipts import ReceiptRows
from meterpost.storage.tables.masterdata import LEGAL_ENTITY
from meterpost.storage.tables.posting import RECEIPT, RECEIPT_LINE
from meterpost.storage.tables.staging import (
    APPROVAL,
    EXCEPTION,
    STAGED_TRANSACTION,
    TRANSACTION_LINE,
    TRANSITION,
)

#: What holds now per contract line, given the due's transaction; staging may give its own.
DueCheck = Callable[[Connection, TransactionId], Mapping[str, Decimal]]

_CANDIDATES = 20
_T = STAGED_TRANSACTION.c


def held_per_line(connection: Connection, transaction: TransactionId) -> Mapping[str, Decimal]:
    """What holds per contract line by the receipts of the fact's other revisions.

    Adjustments (ERP − ours, accepted by a person) are taken off: due = amount + adjustments −
    held. Cancelled and missing documents have `held` 0 in their rows.
    """
    this = STAGED_TRANSACTION.alias()
    others = STAGED_TRANSACTION.alias()
    amount = func.sum(RECEIPT_LINE.c.held - RECEIPT_LINE.c.adjustment).label("held")
    rows = connection.execute(
        select(RECEIPT_LINE.c.line, amount)
        .select_from(this)
        .join(
            others,
            (others.c.purpose == this.c.purpose)
            & (others.c.business_key == this.c.business_key)
            & (others.c.period_start == this.c.period_start)
            & (others.c.id != this.c.id),
        )
        .join(RECEIPT, RECEIPT.c.transaction_id == others.c.id)
        .join(RECEIPT_LINE, RECEIPT_LINE.c.receipt_id == RECEIPT.c.id)
        .where(this.c.id == transaction)
        .group_by(RECEIPT_LINE.c.line)
    )
    return {row.line: row.held for row in rows}


class PostgresPostingStores:
    """Opens posting's transactions on one database."""

    def __init__(self, database: Database, due_check: DueCheck = held_per_line) -> None:
        self._database = database
        self._due_check = due_check

    @contextmanager
    def begin(self) -> Iterator[PostgresPostingStore]:
        """A transaction, committed on leaving and rolled back on any exception."""
        with self._database.begin() as connection:
            yield PostgresPostingStore(connection, self._due_check)

    def register(self, poster: str) -> PosterPresence:
        """Announce a poster to the others by a session lock."""
        return PosterPresence(self._database, poster)


class PosterPresence:
    """A session lock that PostgreSQL lets go when the poster's process ends."""

    def __init__(self, database: Database, poster: str) -> None:
        self._database = database
        self._name = poster_lock(poster)
        self._session: psycopg.Connection[Any] | None = None
        self.renew()

    def renew(self) -> None:
        """Hold the lock, on a new session where the old one broke.

        Raises: Transient when the database does not answer.
        """
        if self._session is not None:
            try:
                self._session.execute("SELECT 1")
            except psycopg.OperationalError:
                self.close()
            else:
                return
        session = self._database.raw_connection(autocommit=True)
        session.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (self._name,))
        self._session = session

    def close(self) -> None:
        """Let go, at once for others where the session still works."""
        session, self._session = self._session, None
        if session is not None:
            with suppress(psycopg.OperationalError):
                session.execute("SELECT pg_advisory_unlock_all()")
            session.close()


class PostgresPostingStore(ReceiptRows, CallRows):
    """One open transaction over posting's tables."""

    def __init__(self, connection: Connection, due_check: DueCheck) -> None:
        super().__init__(connection)
        self._due_check = due_check

    def take_next(self, connection: TargetId, now: datetime) -> Pending | None:
        """The next approved transaction whose time has come, with its business key locked."""
        candidates = self._connection.execute(
            select(_T.id, _T.purpose, _T.business_key)
            .where(
                _T.target == connection,
                _T.state == State.APPROVED.value,
                or_(_T.not_before.is_(None), _T.not_before <= now),
            )
            .order_by(_T.attempts, _T.id)  # in an outage everybody tries in turn
            .limit(_CANDIDATES)
        ).all()
        for candidate in candidates:
            name = business_key_lock(candidate.purpose, candidate.business_key)
            if not try_lock(self._connection, name):
                continue
            row = self._connection.execute(
                select(STAGED_TRANSACTION)
                .where(
                    _T.id == candidate.id,
                    _T.state == State.APPROVED.value,
                    or_(_T.not_before.is_(None), _T.not_before <= now),
                )
                .with_for_update(skip_locked=True)
            ).one_or_none()
            if row is not None:
                return _pending(row)
        return None

    def lock(self, transaction: TransactionId) -> Pending:
        """The transaction, with its business key and its row locked (waits for both)."""
        key = self._connection.execute(
            select(_T.purpose, _T.business_key).where(_T.id == transaction)
        ).one_or_none()
        if key is None:
            raise NotFound(f"There is no transaction {transaction}.")
        lock_business_key(self._connection, key.purpose, key.business_key)
        row = self._connection.execute(
            select(STAGED_TRANSACTION).where(_T.id == transaction).with_for_update()
        ).one()
        return _pending(row)

    def is_approved(self, transaction: TransactionId, document_hash: str) -> bool:
        """Whether an approval exists for exactly this document."""
        found = select(APPROVAL.c.id).where(
            APPROVAL.c.transaction_id == transaction,
            APPROVAL.c.document_hash == document_hash,
            APPROVAL.c.decision == "approved",
        )
        return self._connection.execute(found.limit(1)).first() is not None

    def held_when_staged(self, transaction: TransactionId) -> Mapping[str, Decimal]:
        """Per contract line: what held in the target when the due was computed."""
        columns = TRANSACTION_LINE.c
        rows = self._connection.execute(
            select(columns.line, func.sum(columns.held).label("held"))
            .where(columns.transaction_id == transaction)
            .group_by(columns.line)
        )
        return {row.line: row.held for row in rows}

    def held_now(self, transaction: TransactionId) -> Mapping[str, Decimal]:
        """Per contract line: what holds now, by the due check given."""
        return self._due_check(self._connection, transaction)

    def zone_of(self, entity: LegalEntityId, now: datetime) -> str:
        """The legal entity's time zone; UTC where it has no row."""
        columns = LEGAL_ENTITY.c
        zone = self._connection.execute(
            select(columns.zone)
            .where(
                columns.id == entity,
                columns.rev_to.is_(None),
                columns.valid_from <= now,
                or_(columns.valid_to.is_(None), columns.valid_to > now),
            )
            .limit(1)
        ).scalar_one_or_none()
        return zone or "UTC"

    def step(
        self,
        pending: Pending,
        to_state: State,
        reason: str,
        actor: str,
        now: datetime,
        *,
        not_before: datetime | None = None,
        attempts: int | None = None,
    ) -> Pending:
        """The transaction in its new state, with a transition row and an audit entry."""
        require_transition(pending.state, to_state, pending.id)
        values: dict[str, object] = {
            "state": to_state.value,
            "not_before": not_before,
            "version": _T.version + 1,
            "updated_at": now,
        }
        if attempts is not None:
            values["attempts"] = attempts
        row = self._connection.execute(
            update(STAGED_TRANSACTION)
            .where(_T.id == pending.id, _T.state == pending.state.value)
            .values(values)
            .returning(STAGED_TRANSACTION)
        ).one_or_none()
        if row is None:
            raise Conflict(f"Transaction {pending.id} is no longer {pending.state}.")
        self._connection.execute(
            insert(TRANSITION).values(
                transaction_id=pending.id,
                from_state=pending.state.value,
                to_state=to_state.value,
                reason=reason,
                actor=actor,
                at=now,
            )
        )
        self.audit(
            f"transaction.{to_state.value}",
            "transaction",
            str(pending.id),
            actor,
            now,
            {
                "from": pending.state.value,
                "reason": reason,
                "posting_key": pending.key,
                "document_hash": pending.document_hash,
            },
            pending.correlation_id,
        )
        return _pending(row)

    def wait_until(self, transaction: TransactionId, not_before: datetime) -> None:
        """Look at the transaction again from then on; its state stays."""
        self._connection.execute(
            update(STAGED_TRANSACTION).where(_T.id == transaction).values(not_before=not_before)
        )

    def due_deferred(self, connection: TargetId, now: datetime, limit: int) -> list[TransactionId]:
        """Deferred transactions whose waiting time is over."""
        rows = self._connection.execute(
            select(_T.id)
            .where(
                _T.target == connection,
                _T.state == State.DEFERRED.value,
                or_(_T.not_before.is_(None), _T.not_before <= now),
            )
            .order_by(_T.id)
            .limit(limit)
        )
        return [TransactionId(row.id) for row in rows]

    def due_doubts(self, connection: TargetId, now: datetime, limit: int) -> list[Doubtful]:
        """Transactions in doubt whose next probe is due; their rows stay locked."""
        rows = self._connection.execute(
            select(_T.id)
            .where(
                _T.target == connection,
                _T.state == State.IN_DOUBT.value,
                or_(_T.not_before.is_(None), _T.not_before <= now),
            )
            .order_by(_T.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        return [self.doubt(TransactionId(row.id)) for row in rows]

    def next_wake(self, connection: TargetId) -> datetime | None:
        """The earliest moment that a waiting transaction of the connection names."""
        waiting = [State.APPROVED.value, State.DEFERRED.value, State.IN_DOUBT.value]
        moment: datetime | None = self._connection.execute(
            select(func.min(_T.not_before)).where(
                _T.target == connection, _T.state.in_(waiting), _T.not_before.is_not(None)
            )
        ).scalar_one()
        return moment

    def connection_problem(self, connection: TargetId) -> str | None:
        """The sentence of the open exception that pauses the connection, or None."""
        return self._connection.execute(
            select(EXCEPTION.c.sentence).where(
                EXCEPTION.c.reason == "connection_credentials",
                EXCEPTION.c.fact == connection,
                EXCEPTION.c.state == "open",
            )
        ).scalar_one_or_none()

    def open_exception(self, finding: Finding, now: datetime) -> None:
        """Make sure the finding has one open exception that says its latest."""
        open_exception(self._connection, finding, now)

    def close_exceptions(
        self, reasons: Sequence[str], fact: str, now: datetime, *, by: str, why: str
    ) -> None:
        """Close the fact's open exceptions of these reasons."""
        for reason in reasons:
            close_exceptions(self._connection, reason, [fact], now, by=by, why=why)

    def audit(
        self,
        action: str,
        object_kind: str,
        object_id: str,
        actor: str,
        now: datetime,
        detail: Mapping[str, object],
        correlation_id: str = "",
    ) -> None:
        """Write an audit entry in this transaction."""
        write_entry(
            self._connection,
            AuditEntry(now, actor, action, object_kind, object_id, detail, correlation_id),
        )


def _pending(row: Row[Any]) -> Pending:
    return Pending(
        id=TransactionId(row.id),
        key=PostingKey(row.posting_key),
        purpose=row.purpose,
        business_key=row.business_key,
        legal_entity=LegalEntityId(row.legal_entity),
        accounting_period=row.accounting_period,
        state=State(row.state),
        currency=row.currency,
        due=row.due,
        document=None if row.document is None else Document.from_plain(row.document),
        document_hash=row.document_hash,
        attempts=row.attempts,
        correlation_id=row.correlation_id,
    )
