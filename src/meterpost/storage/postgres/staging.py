"""Staged transactions in the operational database."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, TEXT, TIMESTAMP, distinct_on
from sqlalchemy.exc import IntegrityError

from meterpost.audit.model import AuditEntry
from meterpost.core.errors import Conflict, NotFound
from meterpost.core.ids import ContractLineId, ExceptionId, TransactionId
from meterpost.posting.model import Document
from meterpost.staging.model import (
    BusinessPeriod,
    Finding,
    Holding,
    OpenException,
    PriorRevision,
    StagedTransaction,
    State,
    TransactionLine,
    require_transition,
)
from meterpost.staging.ports import GivenApproval, RuleApproval
from meterpost.storage.postgres import exceptions
from meterpost.storage.postgres import staging_rows as rows
from meterpost.storage.postgres.audit import write_entry
from meterpost.storage.postgres.database import Database, copy_rows
from meterpost.storage.postgres.locks import business_key_lock
from meterpost.storage.tables.posting import RECEIPT, RECEIPT_LINE
from meterpost.storage.tables.staging import (
    APPROVAL,
    EXCEPTION,
    STAGED_TRANSACTION,
    TRANSACTION_LINE,
    TRANSITION,
)
from meterpost.storage.tables.workflows import CLAIM, CLOSE, CONFIG_SNAPSHOT

_T = STAGED_TRANSACTION.c
#: A receipt in one of these states waits for a person, unless answered otherwise.
_CHANGED = ("edited", "missing", "cancelled")


@dataclass(frozen=True, slots=True)
class PostgresStaging:
    """Opens staging transactions on one database."""

    database: Database

    @contextmanager
    def begin(self) -> Iterator[PostgresStagingStore]:
        """A transaction, committed on leaving and rolled back on any exception."""
        with self.database.begin() as connection:
            yield PostgresStagingStore(connection)


@dataclass(frozen=True, slots=True)
class PostgresStagingStore:
    """`meterpost.staging.ports.StagingStore` on one open transaction."""

    connection: Connection

    def lock_business_periods(self, purpose: str, keys: Sequence[BusinessPeriod]) -> None:
        """Advisory locks per business key, the same that posting takes, in one order."""
        names = sorted({business_key_lock(purpose, business_key) for business_key, _ in keys})
        self.connection.execute(
            text(
                "SELECT pg_advisory_xact_lock(hashtextextended(name, 0)) "
                "FROM unnest(CAST(:names AS text[])) AS name ORDER BY name"
            ),
            {"names": names},
        )

    def periods_staged(
        self, purpose: str, keys: Sequence[BusinessPeriod]
    ) -> Sequence[BusinessPeriod]:
        """By the unique index of revisions."""
        statement = (
            select(_T.business_key, _T.period_start)
            .where(_T.purpose == purpose, _in_keys(keys))
            .distinct()
        )
        return [(key, start) for key, start in self.connection.execute(statement)]

    def latest_revisions(
        self, purpose: str, keys: Sequence[BusinessPeriod]
    ) -> Mapping[BusinessPeriod, PriorRevision]:
        """One query for the revisions, one for their lines."""
        if not keys:
            return {}
        latest = (
            select(_T.id, _T.business_key, _T.period_start, _T.revision, _T.state, _T.document)
            .where(_T.purpose == purpose, _in_keys(keys))
            .ext(distinct_on(_T.business_key, _T.period_start))
            .order_by(_T.business_key, _T.period_start, _T.revision.desc())
        )
        found = self.connection.execute(latest).all()
        lines = self._lines([row.id for row in found])
        held_for = self._last_reasons([row.id for row in found if row.state == State.HELD])
        return {
            (row.business_key, row.period_start): PriorRevision(
                TransactionId(row.id),
                row.revision,
                State(row.state),
                None if row.document is None else Document.from_plain(row.document),
                lines.get(row.id, ()),
                held_for.get(row.id, ""),
            )
            for row in found
        }

    def _last_reasons(self, transactions: Sequence[int]) -> dict[int, str]:
        """The reason of the last step of each."""
        statement = (
            select(TRANSITION.c.transaction_id, TRANSITION.c.reason)
            .where(TRANSITION.c.transaction_id == func.any(list(transactions)))
            .ext(distinct_on(TRANSITION.c.transaction_id))
            .order_by(TRANSITION.c.transaction_id, TRANSITION.c.id.desc())
        )
        return {row.transaction_id: row.reason for row in self.connection.execute(statement)}

    def periods_staged_before(
        self, purpose: str, legal_entity: str, accounting_period: str, close: int
    ) -> Sequence[BusinessPeriod]:
        """Business periods of this accounting period that only earlier closes staged."""
        statement = (
            select(_T.business_key, _T.period_start)
            .where(
                _T.purpose == purpose,
                _T.legal_entity == legal_entity,
                _T.accounting_period == accounting_period,
            )
            .group_by(_T.business_key, _T.period_start)
            .having(func.max(_T.close_id) < close)
        )
        return [(row.business_key, row.period_start) for row in self.connection.execute(statement)]

    def holdings(
        self, purpose: str, keys: Sequence[BusinessPeriod]
    ) -> Mapping[BusinessPeriod, Holding]:
        """What holds per line, what is unanswered, what rules approved since a person did."""
        if not keys:
            return {}
        held: dict[BusinessPeriod, dict[ContractLineId, Decimal]] = {}
        per_line = (
            select(
                _T.business_key,
                _T.period_start,
                RECEIPT_LINE.c.line,
                func.sum(RECEIPT_LINE.c.held - RECEIPT_LINE.c.adjustment).label("held"),
            )
            .join(RECEIPT, RECEIPT.c.transaction_id == _T.id)
            .join(RECEIPT_LINE, RECEIPT_LINE.c.receipt_id == RECEIPT.c.id)
            .where(_T.purpose == purpose, _in_keys(keys))
            .group_by(_T.business_key, _T.period_start, RECEIPT_LINE.c.line)
        )
        for row in self.connection.execute(per_line):
            key = (row.business_key, row.period_start)
            held.setdefault(key, {})[ContractLineId(row.line)] = row.held
        unanswered: dict[BusinessPeriod, list[str]] = {}
        waiting = (
            select(_T.business_key, _T.period_start, RECEIPT.c.document_id, RECEIPT.c.state)
            .join(RECEIPT, RECEIPT.c.transaction_id == _T.id)
            .where(
                _T.purpose == purpose,
                _in_keys(keys),
                RECEIPT.c.state.in_(_CHANGED),
                func.coalesce(RECEIPT.c.answer, "withdraw") == "withdraw",
            )
        )
        for row in self.connection.execute(waiting):
            key = (row.business_key, row.period_start)
            unanswered.setdefault(key, []).append(f"document {row.document_id} ({row.state})")
        cumulated = self._cumulated(purpose, keys)
        return {
            key: Holding(
                held.get(key, {}),
                tuple(unanswered.get(key, ())),
                cumulated.get(key, Decimal(0)),
            )
            for key in {*held, *unanswered, *cumulated}
        }

    def _cumulated(
        self, purpose: str, keys: Sequence[BusinessPeriod]
    ) -> Mapping[BusinessPeriod, Decimal]:
        """Σ |due| of revisions that a rule approved after the last human approval."""
        approved = (
            select(
                _T.business_key,
                _T.period_start,
                _T.revision,
                func.abs(_T.due).label("due"),
                APPROVAL.c.rule,
            )
            .join(APPROVAL, APPROVAL.c.transaction_id == _T.id)
            .where(
                _T.purpose == purpose,
                _in_keys(keys),
                APPROVAL.c.decision == "approved",
                _T.state.not_in(["superseded", "withdrawn"]),
            )
            .subquery()
        )
        last_human = (
            select(
                approved.c.business_key,
                approved.c.period_start,
                func.max(approved.c.revision).label("revision"),
            )
            .where(approved.c.rule.is_(None))
            .group_by(approved.c.business_key, approved.c.period_start)
            .subquery()
        )
        statement = (
            select(approved.c.business_key, approved.c.period_start, func.sum(approved.c.due))
            .outerjoin(
                last_human,
                (last_human.c.business_key == approved.c.business_key)
                & (last_human.c.period_start == approved.c.period_start),
            )
            .where(
                approved.c.rule.is_not(None),
                approved.c.revision > func.coalesce(last_human.c.revision, 0),
            )
            .group_by(approved.c.business_key, approved.c.period_start)
        )
        return {(key, start): due for key, start, due in self.connection.execute(statement)}

    def next_ids(self, count: int) -> Sequence[TransactionId]:
        """Ids from the table's own sequence, in one round trip."""
        statement = text(
            "SELECT nextval(pg_get_serial_sequence('meterpost.staged_transaction', 'id')) "
            "FROM generate_series(1, :count)"
        )
        return [
            TransactionId(id_)
            for id_ in self.connection.execute(statement, {"count": count}).scalars().all()
        ]

    def add(
        self,
        transactions: Sequence[StagedTransaction],
        steps: Mapping[TransactionId, Sequence[tuple[State, str]]],
        approvals: Sequence[RuleApproval],
    ) -> None:
        """By COPY, table after table."""
        copy_rows(
            self.connection,
            "staged_transaction",
            rows.TRANSACTION_COLUMNS,
            map(rows.transaction_row, transactions),
        )
        copy_rows(
            self.connection,
            "transaction_line",
            rows.LINE_COLUMNS,
            (rows.line_row(each.id, line) for each in transactions for line in each.lines),
        )
        copy_rows(
            self.connection,
            "transition",
            ("transaction_id", "from_state", "to_state", "reason", "actor", "at"),
            (
                (each.id, before, state, reason, each.created_by, each.created_at)
                for each in transactions
                for before, state, reason in rows.chained(steps[each.id])
            ),
        )
        if approvals:
            at = transactions[0].created_at
            self.connection.execute(
                insert(APPROVAL),
                [
                    {
                        "transaction_id": approval.transaction,
                        "document_hash": approval.document_hash,
                        "decision": "approved",
                        "person": "meterpost",
                        "rule": approval.rule,
                        "cumulated": approval.cumulated,
                        "reason": "within the automatic limit",
                        "decided_at": at,
                    }
                    for approval in approvals
                ],
            )

    def move_claims(self, transactions: Sequence[StagedTransaction], now: datetime) -> None:
        """Set-based: release what the same lines and periods claimed, claim the new records."""
        ids = [transaction.id for transaction in transactions]
        claimed = """
            SELECT u.purpose, u.meter, u.line, u.period_start, u.id, l.transaction_id
            FROM meterpost.transaction_line AS l
            JOIN meterpost.usage_record AS u ON u.id = l.usage_record_id
            WHERE l.transaction_id = ANY(:ids)"""
        self.connection.execute(
            text(
                "DELETE FROM meterpost.claim AS c USING meterpost.staged_transaction AS old, "
                "meterpost.staged_transaction AS new WHERE new.id = ANY(:ids) "
                "AND old.id = c.transaction_id AND old.purpose = new.purpose "
                "AND old.business_key = new.business_key "
                "AND old.period_start = new.period_start AND old.id <> new.id"
            ),
            {"ids": ids},
        )
        # A line that moved from one contract or period to another may be claimed over there.
        self.connection.execute(
            text(
                f"INSERT INTO meterpost.claim AS c (purpose, meter, line, period_start, "  # noqa: S608
                f"usage_record_id, transaction_id, claimed_at) "
                f"SELECT s.*, :now FROM ({claimed}) AS s "
                "ON CONFLICT (purpose, meter, line, period_start) DO UPDATE SET "
                "usage_record_id = excluded.usage_record_id, "
                "transaction_id = excluded.transaction_id, claimed_at = excluded.claimed_at"
            ),
            {"ids": ids, "now": now},
        )

    def release_claims(self, transaction: TransactionId) -> None:
        """Delete them."""
        self.connection.execute(delete(CLAIM).where(CLAIM.c.transaction_id == transaction))

    def get(self, transaction: TransactionId, *, lock: bool = False) -> StagedTransaction:
        """One revision with its lines."""
        statement = select(STAGED_TRANSACTION).where(_T.id == transaction)
        row = self.connection.execute(statement.with_for_update() if lock else statement).first()
        if row is None:
            raise NotFound(
                f"There is no transaction {transaction}.", hint="List them: meterpost tx list"
            )
        return rows.transaction_from(row, self._lines([transaction]).get(transaction, ()))

    def step(
        self, transaction: TransactionId, to_state: State, reason: str, actor: str, now: datetime
    ) -> None:
        """`step_many` for one."""
        self.step_many([transaction], to_state, reason, actor, now)

    def step_many(
        self,
        transactions: Sequence[TransactionId],
        to_state: State,
        reason: str,
        actor: str,
        now: datetime,
    ) -> None:
        """Locked, checked against the state table, moved and noted."""
        if not transactions:
            return
        statement = (
            select(_T.id, _T.state)
            .where(_T.id == func.any(list(transactions)))
            .order_by(_T.id)
            .with_for_update()
        )
        found = self.connection.execute(statement).all()
        for row in found:
            require_transition(State(row.state), to_state, TransactionId(row.id))
        self.connection.execute(
            update(STAGED_TRANSACTION)
            .where(_T.id == func.any([row.id for row in found]))
            .values(state=to_state, updated_at=now, version=_T.version + 1)
        )
        self.connection.execute(
            insert(TRANSITION),
            [
                {
                    "transaction_id": row.id,
                    "from_state": row.state,
                    "to_state": to_state,
                    "reason": reason,
                    "actor": actor,
                    "at": now,
                }
                for row in found
            ],
        )

    def approvals(self, transaction: TransactionId, document_hash: str) -> Sequence[GivenApproval]:
        """Decisions by people, oldest first."""
        statement = (
            select(APPROVAL.c.person, APPROVAL.c.decision)
            .where(
                APPROVAL.c.transaction_id == transaction,
                APPROVAL.c.document_hash == document_hash,
                APPROVAL.c.rule.is_(None),
            )
            .order_by(APPROVAL.c.id)
        )
        return [
            GivenApproval(row.person, row.decision) for row in self.connection.execute(statement)
        ]

    def add_approval(
        self,
        transaction: TransactionId,
        document_hash: str,
        person: str,
        decision: str,
        reason: str,
        cumulated: Decimal,
        now: datetime,
    ) -> None:
        """One row per person, document and decision."""
        try:
            self.connection.execute(
                insert(APPROVAL).values(
                    transaction_id=transaction,
                    document_hash=document_hash,
                    decision=decision,
                    person=person,
                    rule=None,
                    cumulated=cumulated,
                    reason=reason,
                    decided_at=now,
                )
            )
        except IntegrityError as exc:
            raise Conflict(f"{person} has {decision} this document already.") from exc

    def configured_by(self, close: int) -> str:
        """The actor of the close's configuration snapshot."""
        statement = (
            select(CONFIG_SNAPSHOT.c.actor)
            .join(CLOSE, CLOSE.c.config_digest == CONFIG_SNAPSHOT.c.digest)
            .where(CLOSE.c.id == close)
        )
        return str(self.connection.execute(statement).scalar_one())

    def receipt_differences(
        self, transaction: TransactionId
    ) -> Mapping[ContractLineId, tuple[Decimal, Decimal]]:
        """Posted and held per line of a receipt that waits for an answer."""
        receipt = self.connection.execute(
            select(RECEIPT.c.id, RECEIPT.c.state, RECEIPT.c.answer)
            .where(RECEIPT.c.transaction_id == transaction)
            .with_for_update()
        ).first()
        if receipt is None:
            raise NotFound(f"Transaction {transaction} has no receipt: nothing was posted for it.")
        if receipt.state not in _CHANGED or receipt.answer not in (None, "withdraw"):
            raise Conflict(
                f"The document of transaction {transaction} waits for no answer: it is "
                f"{receipt.state}" + (f", answered {receipt.answer}." if receipt.answer else "."),
            )
        lines = self.connection.execute(
            select(RECEIPT_LINE).where(RECEIPT_LINE.c.receipt_id == receipt.id)
        )
        return {ContractLineId(line.line): (line.posted, line.held) for line in lines}

    def answer_receipt(
        self,
        transaction: TransactionId,
        answer: str,
        adjustments: Mapping[ContractLineId, Decimal],
        now: datetime,
    ) -> None:
        """The answer on the receipt, the adjustments on its lines."""
        receipt = self.connection.execute(
            update(RECEIPT)
            .where(RECEIPT.c.transaction_id == transaction)
            .values(answer=answer, adjustment=sum(adjustments.values(), Decimal(0)), seen_at=now)
            .returning(RECEIPT.c.id)
        ).scalar_one()
        self.connection.execute(
            update(RECEIPT_LINE).where(RECEIPT_LINE.c.receipt_id == receipt).values(adjustment=0)
        )
        for line, adjustment in adjustments.items():
            self.connection.execute(
                update(RECEIPT_LINE)
                .where(RECEIPT_LINE.c.receipt_id == receipt, RECEIPT_LINE.c.line == line)
                .values(adjustment=adjustment)
            )

    def open_exceptions(self, findings: Sequence[Finding], now: datetime) -> None:
        """One open exception per finding."""
        exceptions.open_exceptions(self.connection, findings, now)

    def close_exceptions(
        self, reason: str, facts: Collection[str] | None, now: datetime, *, by: str, why: str
    ) -> int:
        """Close a reason's open exceptions; how many."""
        return exceptions.close_exceptions(self.connection, reason, facts, now, by=by, why=why)

    def settle_exceptions_of(
        self,
        transactions: Sequence[TransactionId],
        still: Collection[str],
        now: datetime,
        *,
        why: str,
    ) -> None:
        """Close what was missing to write these superseded documents, but facts in ``still``."""
        about = EXCEPTION.c.detail["transaction"].as_integer()
        self.connection.execute(
            update(EXCEPTION)
            .where(
                EXCEPTION.c.state == "open",
                EXCEPTION.c.fact_kind == "transaction",
                about == func.any(list(transactions)),
                EXCEPTION.c.fact != func.all(list(still)),
            )
            .values(state="closed", closed_at=now, closed_by="meterpost", closing_reason=why)
        )

    def exception(self, exception: ExceptionId, *, lock: bool = False) -> OpenException:
        """One exception."""
        statement = select(EXCEPTION).where(EXCEPTION.c.id == exception)
        row = self.connection.execute(statement.with_for_update() if lock else statement).first()
        if row is None:
            raise NotFound(
                f"There is no exception {exception}.", hint="List them: meterpost exceptions list"
            )
        return rows.exception_from(row)

    def assign_exception(self, exception: ExceptionId, assignee: str) -> None:
        """Name who is to move it."""
        self.connection.execute(
            update(EXCEPTION).where(EXCEPTION.c.id == exception).values(assignee=assignee)
        )

    def record_audit(self, entry: AuditEntry) -> None:
        """Write an audit entry in this transaction."""
        write_entry(self.connection, entry)

    def _lines(self, transactions: Sequence[int]) -> dict[int, tuple[TransactionLine, ...]]:
        statement = (
            select(TRANSACTION_LINE)
            .where(TRANSACTION_LINE.c.transaction_id == func.any(list(transactions)))
            .order_by(TRANSACTION_LINE.c.transaction_id, TRANSACTION_LINE.c.ordinal)
        )
        collected: dict[int, list[Row[tuple[object, ...]]]] = {}
        for row in self.connection.execute(statement):
            collected.setdefault(row.transaction_id, []).append(row)
        return {id_: tuple(map(rows.line_from, lines)) for id_, lines in collected.items()}


def _in_keys(keys: Sequence[BusinessPeriod]) -> ColumnElement[bool]:
    # Two array parameters, whatever the number of keys: the statement is compiled once.
    names, starts = [name for name, _ in keys], [start for _, start in keys]
    wanted = func.unnest(
        bindparam("names", names, type_=ARRAY(TEXT), unique=True),
        bindparam("starts", starts, type_=ARRAY(TIMESTAMP(timezone=True)), unique=True),
    ).table_valued("business_key", "period_start")
    return tuple_(_T.business_key, _T.period_start).in_(select(wanted.render_derived()))
