"""Staged transactions, lines and exceptions to and from table rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from meterpost.core.canonical import canonical_json
from meterpost.core.ids import ExceptionId, LegalEntityId
from meterpost.core.period import Period
from meterpost.posting.model import Document
from meterpost.staging.model import (
    ExceptionState,
    Finding,
    OpenException,
    StagedTransaction,
    State,
    TransactionLine,
)

TRANSACTION_COLUMNS = (
    "id",
    "posting_key",
    "purpose",
    "kind",
    "workflow",
    "target",
    "legal_entity",
    "accounting_period",
    "business_key",
    "customer",
    "period_start",
    "period_end",
    "revision",
    "close_id",
    "state",
    "currency",
    "amount",
    "due",
    "document",
    "document_hash",
    "attempts",
    "not_before",
    "version",
    "created_by",
    "created_at",
    "updated_at",
    "correlation_id",
)

LINE_COLUMNS = (
    "transaction_id",
    "ordinal",
    "line",
    "meter",
    "usage_record_id",
    "item",
    "description",
    "unit",
    "quantity",
    "included",
    "charged",
    "price",
    "amount",
    "held",
    "due",
    "working",
    "tax_category",
    "revenue_account",
    "service_from",
    "service_to",
)


def transaction_row(each: StagedTransaction) -> tuple[object, ...]:
    """In the order of `TRANSACTION_COLUMNS`."""
    return (
        each.id,
        each.posting_key,
        each.purpose,
        each.kind,
        each.workflow,
        each.target,
        each.legal_entity,
        each.accounting_period,
        each.business_key,
        each.customer,
        each.period.start,
        each.period.end,
        each.revision,
        each.close,
        each.state.value,
        each.currency,
        each.amount,
        each.due,
        None if each.document is None else canonical_json(each.document).decode(),
        each.document_hash,
        each.attempts,
        each.not_before,
        each.version,
        each.created_by,
        each.created_at,
        each.updated_at,
        each.correlation_id,
    )


def line_row(transaction: int, line: TransactionLine) -> tuple[object, ...]:
    """In the order of `LINE_COLUMNS`."""
    return (
        transaction,
        line.ordinal,
        line.line,
        line.meter,
        line.usage_record,
        line.item,
        line.description,
        line.unit,
        line.quantity,
        line.included,
        line.charged,
        line.price,
        line.amount,
        line.held,
        line.due,
        json.dumps(line.working, ensure_ascii=False),
        line.tax_category,
        line.revenue_account,
        line.service.start,
        line.service.end,
    )


def transaction_from(row: Any, lines: tuple[TransactionLine, ...]) -> StagedTransaction:
    """The transaction a row and its lines hold."""
    return StagedTransaction(
        id=row.id,
        posting_key=row.posting_key,
        purpose=row.purpose,
        kind=row.kind,
        workflow=row.workflow,
        target=row.target,
        legal_entity=row.legal_entity,
        accounting_period=row.accounting_period,
        business_key=row.business_key,
        customer=row.customer,
        period=Period(row.period_start, row.period_end),
        revision=row.revision,
        close=row.close_id,
        state=State(row.state),
        currency=row.currency,
        amount=row.amount,
        due=row.due,
        document=None if row.document is None else Document.from_plain(row.document),
        document_hash=row.document_hash,
        attempts=row.attempts,
        not_before=row.not_before,
        version=row.version,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
        correlation_id=row.correlation_id,
        lines=lines,
    )


def line_from(row: Any) -> TransactionLine:
    """The line a row holds."""
    return TransactionLine(
        ordinal=row.ordinal,
        line=row.line,
        meter=row.meter,
        usage_record=row.usage_record_id,
        item=row.item,
        description=row.description,
        unit=row.unit,
        quantity=row.quantity,
        included=row.included,
        charged=row.charged,
        price=row.price,
        amount=row.amount,
        held=row.held,
        due=row.due,
        working=row.working,
        tax_category=row.tax_category,
        revenue_account=row.revenue_account,
        service=Period(row.service_from, row.service_to),
    )


def exception_from(row: Any) -> OpenException:
    """The exception a row holds."""
    estimate: Decimal | None = row.estimate
    closed_at: datetime | None = row.closed_at
    return OpenException(
        id=ExceptionId(row.id),
        finding=Finding(
            reason=row.reason,
            fact_kind=row.fact_kind,
            fact=row.fact,
            sentence=row.sentence,
            suggestion=row.suggestion,
            owner=row.owner,
            records=row.records,
            legal_entity=None if row.legal_entity is None else LegalEntityId(row.legal_entity),
            accounting_period=row.accounting_period,
            estimate=estimate,
            currency=row.currency,
            detail=row.detail,
        ),
        state=ExceptionState(row.state),
        assignee=row.assignee,
        opened_at=row.opened_at,
        seen_at=row.seen_at,
        closed_at=closed_at,
        closed_by=row.closed_by,
        closing_reason=row.closing_reason,
    )


def chained(
    steps: Sequence[tuple[State, str]],
) -> Iterator[tuple[str | None, str, str]]:
    """(from, to, reason) of consecutive steps; the first comes from nothing."""
    before: str | None = None
    for state, reason in steps:
        yield before, state.value, reason
        before = state.value
