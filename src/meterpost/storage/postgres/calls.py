"""Calls and permits in the operational database: what was asked of an ERP, when, by whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime

from sqlalchemy import Connection, delete, func, insert, select, text, update

from meterpost.core.errors import NotFound
from meterpost.core.ids import CallId, PostingKey, TargetId, TransactionId
from meterpost.posting.calls import CallOutcome, CallPurpose, Doubtful, Pending
from meterpost.posting.throttle import RateLimit
from meterpost.storage.postgres.locks import try_lock
from meterpost.storage.tables.posting import CALL, CALL_ITEM, PERMIT
from meterpost.storage.tables.staging import STAGED_TRANSACTION

_T = STAGED_TRANSACTION.c


def poster_lock(poster: str) -> str:
    """The name of the session lock that tells others a poster lives."""
    return f"meterpost.poster:{poster}"


class CallRows:
    """The rows of calls and permits within one open transaction."""

    _connection: Connection

    def take_permit(self, connection: TargetId, limit: RateLimit, now: datetime) -> datetime:
        """``now`` where a permit was free and is now taken, else when the next one is free."""
        self._connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"),
            {"name": f"meterpost.permit:{connection}"},
        )
        columns = PERMIT.c
        gone = now - limit.window
        self._connection.execute(
            delete(PERMIT).where(columns.connection == connection, columns.granted_at <= gone)
        )
        granted = self._connection.execute(
            select(columns.granted_at)
            .where(columns.connection == connection)
            .order_by(columns.granted_at.desc())
            .limit(limit.permits)
        ).scalars()
        free_at = limit.free_at(list(granted), now)
        if free_at <= now:
            self._connection.execute(insert(PERMIT).values(connection=connection, granted_at=now))
        return free_at

    def open_call(
        self,
        connection: TargetId,
        purpose: CallPurpose,
        poster: str,
        items: Sequence[tuple[Pending | Doubtful, str, date]],
        now: datetime,
        send_before: datetime,
    ) -> CallId:
        """A call reserved with its items (transaction, document hash, posting day)."""
        self._connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"),
            {"name": f"meterpost.call:{connection}"},
        )
        n = self._connection.execute(
            select(func.coalesce(func.max(CALL.c.n), 0) + 1).where(CALL.c.connection == connection)
        ).scalar_one()
        first = items[0][0]
        call = self._connection.execute(
            insert(CALL)
            .values(
                connection=connection,
                n=n,
                purpose=purpose.value,
                poster=poster,
                reserved_at=now,
                send_before=send_before,
                correlation_id=first.correlation_id,
            )
            .returning(CALL.c.id)
        ).scalar_one()
        self._connection.execute(
            insert(CALL_ITEM),
            [
                {
                    "call_id": call,
                    "ordinal": ordinal,
                    "transaction_id": _transaction_id(item),
                    "posting_key": item.key,
                    "document_hash": document_hash,
                    "posting_day": day,
                }
                for ordinal, (item, document_hash, day) in enumerate(items, 1)
            ],
        )
        return CallId(call)

    def finish_call(
        self,
        call: CallId,
        outcome: CallOutcome,
        now: datetime,
        *,
        sentence: str = "",
        vendor_text: str = "",
        items: Mapping[TransactionId, CallOutcome] | None = None,
    ) -> bool:
        """Whether the call was still open, and is now over; its items alike unless given."""
        done = self._connection.execute(
            update(CALL)
            .where(CALL.c.id == call, CALL.c.outcome.is_(None))
            .values(
                outcome=outcome.value,
                finished_at=now,
                sentence=sentence or None,
                vendor_text=vendor_text or None,
            )
        )
        item = CALL_ITEM.c
        if items is None:
            self._connection.execute(
                update(CALL_ITEM).where(item.call_id == call).values(outcome=outcome.value)
            )
        else:
            for transaction, item_outcome in items.items():
                self._connection.execute(
                    update(CALL_ITEM)
                    .where(item.call_id == call, item.transaction_id == transaction)
                    .values(outcome=item_outcome.value)
                )
        return done.rowcount == 1

    def orphaned_calls(
        self, connection: TargetId, poster: str
    ) -> list[tuple[CallId, CallPurpose, tuple[TransactionId, ...]]]:
        """Open calls of this poster itself (between its rounds) and of posters that are gone."""
        rows = self._connection.execute(
            select(CALL.c.id, CALL.c.purpose, CALL.c.poster, CALL_ITEM.c.transaction_id)
            .join(CALL_ITEM, CALL_ITEM.c.call_id == CALL.c.id)
            .where(CALL.c.connection == connection, CALL.c.outcome.is_(None))
            .order_by(CALL.c.id, CALL_ITEM.c.ordinal)
        ).all()
        gone = {
            name: name == poster or try_lock(self._connection, poster_lock(name))
            for name in {row.poster for row in rows}
        }
        calls: dict[CallId, tuple[CallPurpose, list[TransactionId]]] = {}
        for row in rows:
            if gone[row.poster]:
                _, items = calls.setdefault(CallId(row.id), (CallPurpose(row.purpose), []))
                items.append(TransactionId(row.transaction_id))
        return [(call, purpose, tuple(items)) for call, (purpose, items) in calls.items()]

    def doubt(self, transaction: TransactionId) -> Doubtful:
        """When the transaction's last call can have been written, and how often it was probed."""
        calls = (
            select(CALL.c.purpose, CALL.c.send_before, CALL.c.id)
            .join(CALL_ITEM, CALL_ITEM.c.call_id == CALL.c.id)
            .where(CALL_ITEM.c.transaction_id == transaction)
            .subquery()
        )
        is_post = calls.c.purpose == CallPurpose.POST.value
        last_post = select(func.max(calls.c.id)).where(is_post).scalar_subquery()
        row = self._connection.execute(
            select(
                func.max(calls.c.send_before).filter(is_post).label("send_before"),
                func.count().filter(~is_post, calls.c.id > last_post).label("probes"),
            )
        ).one()
        if row.send_before is None:
            raise NotFound(f"Transaction {transaction} has never been sent.")
        this = self._connection.execute(
            select(_T.posting_key, _T.correlation_id).where(_T.id == transaction)
        ).one()
        return Doubtful(
            transaction,
            PostingKey(this.posting_key),
            row.send_before,
            row.probes,
            this.correlation_id,
        )


def _transaction_id(item: Pending | Doubtful) -> TransactionId:
    return item.id if isinstance(item, Pending) else item.transaction
