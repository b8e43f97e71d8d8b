"""What lists show, read from the operational database; nothing here changes anything.

Lists are in order of ids, newest first, and read by key: ``before`` is the last id seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Select, func, select
from sqlalchemy.sql.elements import ColumnElement

from meterpost.core.errors import NotFound
from meterpost.core.period import Period
from meterpost.storage.tables.audit import AUDIT_ENTRY, AUDIT_SEAL, AUDIT_SEALED
from meterpost.storage.tables.ingest import INTAKE_COUNT, JOURNAL_STATE, QUARANTINE
from meterpost.storage.tables.masterdata import CONTRACT, LEGAL_ENTITY
from meterpost.storage.tables.masterdata import REVISION as MASTERDATA_REVISION
from meterpost.storage.tables.posting import CALL, CALL_ITEM, RECEIPT
from meterpost.storage.tables.staging import EXCEPTION, STAGED_TRANSACTION
from meterpost.storage.tables.workflows import CLOSE, CONFIG_SNAPSHOT

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TransactionFilter:
    """Which transactions; None leaves a field open. ``minimum`` is of the due, either sign."""

    states: Sequence[str] = ()
    legal_entity: str | None = None
    accounting_period: str | None = None
    customer: str | None = None
    contract: str | None = None
    target: str | None = None
    close: int | None = None
    minimum: Decimal | None = None


@dataclass(frozen=True, slots=True)
class ExceptionFilter:
    """Which exceptions; None leaves a field open."""

    state: str | None = "open"
    reason: str | None = None
    legal_entity: str | None = None
    accounting_period: str | None = None
    owner: str | None = None
    assignee: str | None = None


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which audit entries; None leaves a field open."""

    action: str | None = None
    actor: str | None = None
    object_kind: str | None = None
    object_id: str | None = None


_TRANSACTION = STAGED_TRANSACTION.c


def transactions(
    connection: Connection, wanted: TransactionFilter, before: int | None, limit: int
) -> list[Row]:
    """Staged transactions without their lines, with what their receipt says."""
    statement = _transactions().order_by(_TRANSACTION.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(_TRANSACTION.id < before)
    statement = statement.where(*_transaction_conditions(wanted))
    return [_transaction(row) for row in connection.execute(statement)]


def transaction(connection: Connection, id: int) -> Row:
    """One of `transactions`, with its document.

    Raises: NotFound.
    """
    statement = _transactions().add_columns(_TRANSACTION.document).where(_TRANSACTION.id == id)
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise NotFound(f"There is no transaction {id}.", hint="`meterpost tx list` shows them.")
    return {**_transaction(row), "document": row.document}


def transaction_of(connection: Connection, named: object) -> Row | None:
    """The transaction of an id or a posting key; None where there is none."""
    column = _TRANSACTION.id if isinstance(named, int) else _TRANSACTION.posting_key
    row = connection.execute(_transactions().where(column == named)).one_or_none()
    return None if row is None else _transaction(row)


def transaction_sums(connection: Connection, wanted: TransactionFilter) -> list[Row]:
    """Count and due per state and currency."""
    statement = (
        select(
            _TRANSACTION.state,
            _TRANSACTION.currency,
            func.count().label("transactions"),
            func.sum(_TRANSACTION.due).label("due"),
        )
        .where(*_transaction_conditions(wanted))
        .group_by(_TRANSACTION.state, _TRANSACTION.currency)
        .order_by(_TRANSACTION.state, _TRANSACTION.currency)
    )
    return _rows(connection, statement)


def _transactions() -> Select[Any]:
    zone = (
        select(CONTRACT.c.zone)
        .where(CONTRACT.c.id == _TRANSACTION.business_key, CONTRACT.c.rev_to.is_(None))
        .order_by(CONTRACT.c.valid_from.desc())
        .limit(1)
        .scalar_subquery()
    )
    left_out = {"document", "not_before", "version"}
    columns = [column for column in STAGED_TRANSACTION.columns if column.name not in left_out]
    return select(
        *columns,
        func.coalesce(zone, "UTC").label("zone"),
        RECEIPT.c.document_id.label("erp_document"),
        RECEIPT.c.number.label("erp_number"),
        RECEIPT.c.state.label("erp_state"),
    ).select_from(
        STAGED_TRANSACTION.outerjoin(RECEIPT, RECEIPT.c.transaction_id == _TRANSACTION.id)
    )


def _transaction(row: Any) -> Row:
    first, last = Period(row.period_start, row.period_end).local_days(row.zone)
    plain = dict(row._mapping)
    plain.pop("document", None)
    plain["contract"] = plain.pop("business_key")
    plain["close"] = plain.pop("close_id")
    return {**plain, "first_day": first, "last_day": last}


def _transaction_conditions(wanted: TransactionFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = _equal(
        (_TRANSACTION.legal_entity, wanted.legal_entity),
        (_TRANSACTION.accounting_period, wanted.accounting_period),
        (_TRANSACTION.customer, wanted.customer),
        (_TRANSACTION.business_key, wanted.contract),
        (_TRANSACTION.target, wanted.target),
        (_TRANSACTION.close_id, wanted.close),
    )
    if wanted.states:
        conditions.append(_TRANSACTION.state.in_(wanted.states))
    if wanted.minimum is not None:
        conditions.append(func.abs(_TRANSACTION.due) >= wanted.minimum)
    return conditions


def doubts(connection: Connection, target: str | None, before: int | None, limit: int) -> list[Row]:
    """Transactions in doubt, with their last call: what it said, and by when it was to be sent."""
    last = (
        select(func.max(CALL.c.id))
        .join(CALL_ITEM, CALL_ITEM.c.call_id == CALL.c.id)
        .where(CALL_ITEM.c.transaction_id == _TRANSACTION.id, CALL.c.purpose == "post")
        .scalar_subquery()
    )
    statement = (
        select(
            _TRANSACTION.id,
            _TRANSACTION.posting_key,
            _TRANSACTION.target,
            _TRANSACTION.customer,
            _TRANSACTION.business_key.label("contract"),
            _TRANSACTION.currency,
            _TRANSACTION.due,
            _TRANSACTION.not_before,
            _TRANSACTION.updated_at.label("since"),
            CALL.c.id.label("call"),
            CALL.c.reserved_at,
            CALL.c.send_before,
            CALL.c.sentence,
        )
        .select_from(STAGED_TRANSACTION.outerjoin(CALL, CALL.c.id == last))
        .where(_TRANSACTION.state == "in_doubt", *_equal((_TRANSACTION.target, target)))
        .order_by(_TRANSACTION.id.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(_TRANSACTION.id < before)
    return _rows(connection, statement)


def closes(
    connection: Connection,
    entity: str | None,
    accounting_period: str | None,
    workflow: str | None,
    before: int | None,
    limit: int,
) -> list[Row]:
    """Closes with what they counted."""
    statement = (
        select(CLOSE)
        .where(
            *_equal(
                (CLOSE.c.legal_entity, entity),
                (CLOSE.c.accounting_period, accounting_period),
                (CLOSE.c.workflow, workflow),
            )
        )
        .order_by(CLOSE.c.id.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(CLOSE.c.id < before)
    return _rows(connection, statement)


def close(connection: Connection, id: int) -> Row:
    """One close.

    Raises: NotFound.
    """
    rows = _rows(connection, select(CLOSE).where(CLOSE.c.id == id))
    if not rows:
        raise NotFound(f"There is no close {id}.", hint="`meterpost close list` shows them.")
    return rows[0]


def exceptions(
    connection: Connection, wanted: ExceptionFilter, before: int | None, limit: int
) -> list[Row]:
    """Exceptions one by one."""
    statement = (
        select(EXCEPTION)
        .where(*_exception_conditions(wanted))
        .order_by(EXCEPTION.c.id.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(EXCEPTION.c.id < before)
    return _rows(connection, statement)


def exception(connection: Connection, id: int) -> Row:
    """One exception.

    Raises: NotFound.
    """
    rows = _rows(connection, select(EXCEPTION).where(EXCEPTION.c.id == id))
    if not rows:
        raise NotFound(
            f"There is no exception {id}.", hint="`meterpost exceptions list` shows them."
        )
    return rows[0]


def exception_groups(connection: Connection, wanted: ExceptionFilter) -> list[Row]:
    """Per reason: how many, how many records, money per currency, since when, whose."""
    statement = (
        select(
            EXCEPTION.c.reason,
            EXCEPTION.c.currency,
            func.count().label("exceptions"),
            func.sum(EXCEPTION.c.records).label("records"),
            func.sum(EXCEPTION.c.estimate).label("estimate"),
            func.min(EXCEPTION.c.opened_at).label("oldest_at"),
            func.array_agg(EXCEPTION.c.owner.distinct()).label("owners"),
        )
        .where(*_exception_conditions(wanted))
        .group_by(EXCEPTION.c.reason, EXCEPTION.c.currency)
        .order_by(EXCEPTION.c.reason, EXCEPTION.c.currency)
    )
    groups: dict[str, Row] = {}
    for row in connection.execute(statement):
        group = groups.setdefault(
            row.reason,
            {
                "reason": row.reason,
                "exceptions": 0,
                "records": 0,
                "estimates": {},
                "oldest_at": row.oldest_at,
                "owners": [],
            },
        )
        group["exceptions"] += row.exceptions
        group["records"] += int(row.records)
        group["oldest_at"] = min(group["oldest_at"], row.oldest_at)
        group["owners"] = sorted({*group["owners"], *row.owners})
        if row.currency is not None and row.estimate is not None:
            group["estimates"][row.currency] = row.estimate
    return sorted(groups.values(), key=lambda group: -group["exceptions"])


def _exception_conditions(wanted: ExceptionFilter) -> list[ColumnElement[bool]]:
    return _equal(
        (EXCEPTION.c.state, wanted.state),
        (EXCEPTION.c.reason, wanted.reason),
        (EXCEPTION.c.legal_entity, wanted.legal_entity),
        (EXCEPTION.c.accounting_period, wanted.accounting_period),
        (EXCEPTION.c.owner, wanted.owner),
        (EXCEPTION.c.assignee, wanted.assignee),
    )


def audit_entries(
    connection: Connection, wanted: AuditFilter, before: int | None, limit: int
) -> list[Row]:
    """Audit entries, with the seal over each (None: not sealed yet)."""
    statement = (
        select(
            AUDIT_ENTRY.c.sequence,
            AUDIT_ENTRY.c.at,
            AUDIT_ENTRY.c.actor,
            AUDIT_ENTRY.c.action,
            AUDIT_ENTRY.c.object_kind,
            AUDIT_ENTRY.c.object_id,
            AUDIT_ENTRY.c.detail,
            AUDIT_ENTRY.c.correlation_id,
            AUDIT_SEALED.c.seal,
        )
        .select_from(
            AUDIT_ENTRY.outerjoin(AUDIT_SEALED, AUDIT_SEALED.c.sequence == AUDIT_ENTRY.c.sequence)
        )
        .where(
            *_equal(
                (AUDIT_ENTRY.c.action, wanted.action),
                (AUDIT_ENTRY.c.actor, wanted.actor),
                (AUDIT_ENTRY.c.object_kind, wanted.object_kind),
                (AUDIT_ENTRY.c.object_id, wanted.object_id),
            )
        )
        .order_by(AUDIT_ENTRY.c.sequence.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(AUDIT_ENTRY.c.sequence < before)
    return _rows(connection, statement)


def applied_configuration(connection: Connection) -> Row | None:
    """The configuration applied last: digest, content, who and when."""
    statement = (
        select(
            CONFIG_SNAPSHOT.c.digest,
            CONFIG_SNAPSHOT.c.content,
            AUDIT_ENTRY.c.actor,
            AUDIT_ENTRY.c.at,
        )
        .join(CONFIG_SNAPSHOT, CONFIG_SNAPSHOT.c.digest == AUDIT_ENTRY.c.object_id)
        .where(AUDIT_ENTRY.c.action == "config.applied")
        .order_by(AUDIT_ENTRY.c.sequence.desc())
        .limit(1)
    )
    rows = _rows(connection, statement)
    return rows[0] if rows else None


def entity_zone(connection: Connection, entity: str) -> str | None:
    """The time zone a legal entity keeps its books in, as known now."""
    return connection.execute(
        select(LEGAL_ENTITY.c.zone)
        .where(LEGAL_ENTITY.c.id == entity, LEGAL_ENTITY.c.rev_to.is_(None))
        .order_by(LEGAL_ENTITY.c.valid_from.desc())
        .limit(1)
    ).scalar_one_or_none()


def legal_entities(connection: Connection) -> list[str]:
    """The legal entities known now."""
    statement = select(LEGAL_ENTITY.c.id).where(LEGAL_ENTITY.c.rev_to.is_(None)).distinct()
    return sorted(connection.execute(statement).scalars())


def latest_closes(connection: Connection, accounting_period: str) -> list[tuple[str, str]]:
    """(workflow, legal entity) of everything that was closed for an accounting period."""
    statement = (
        select(CLOSE.c.workflow, CLOSE.c.legal_entity)
        .where(CLOSE.c.accounting_period == accounting_period)
        .distinct()
        .order_by(CLOSE.c.workflow, CLOSE.c.legal_entity)
    )
    return [(row.workflow, row.legal_entity) for row in connection.execute(statement)]


@dataclass(frozen=True, slots=True)
class Figures:
    """The operational database in a few numbers."""

    journal_sequence: int = 0
    events_accepted: int = 0
    events_refused: int = 0
    quarantine_open: int = 0
    masterdata_revision: int = 0
    closes: Mapping[str, int] = field(default_factory=dict)
    transactions: Sequence[Row] = ()
    exceptions_open: Mapping[str, int] = field(default_factory=dict)
    audit_entries: int = 0
    audit_seals: int = 0


def figures(connection: Connection) -> Figures:
    """Counts for a status page."""

    def one(statement: Select[Any]) -> int:
        return int(connection.execute(statement).scalar() or 0)

    def per(column: Any, *conditions: ColumnElement[bool]) -> dict[str, int]:
        statement = select(column, func.count()).where(*conditions).group_by(column)
        return {str(name): count for name, count in connection.execute(statement.order_by(column))}

    return Figures(
        journal_sequence=one(select(func.max(JOURNAL_STATE.c.last_sequence))),
        events_accepted=one(select(func.sum(INTAKE_COUNT.c.accepted))),
        events_refused=one(select(func.sum(INTAKE_COUNT.c.invalid))),
        quarantine_open=one(select(func.count()).where(QUARANTINE.c.settled_at.is_(None))),
        masterdata_revision=one(select(func.max(MASTERDATA_REVISION.c.rev))),
        closes=per(CLOSE.c.state),
        transactions=transaction_sums(connection, TransactionFilter()),
        exceptions_open=per(EXCEPTION.c.reason, EXCEPTION.c.state == "open"),
        audit_entries=one(select(func.count()).select_from(AUDIT_ENTRY)),
        audit_seals=one(select(func.count()).select_from(AUDIT_SEAL)),
    )


def _equal(*pairs: tuple[Any, object]) -> list[ColumnElement[bool]]:
    return [column == value for column, value in pairs if value is not None]


def _rows(connection: Connection, statement: Select[Any]) -> list[Row]:
    return [dict(row._mapping) for row in connection.execute(statement)]
