"""Exceptions: facts that cannot go on, whose they are, and what moves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from meterpost.access.model import Scope, require
from meterpost.audit.model import AuditEntry
from meterpost.core.errors import Conflict, NotFound
from meterpost.core.ids import UNASSIGNED, ExceptionId
from meterpost.operations import closes, proof, transactions
from meterpost.operations.arguments import (
    AccountingPeriod,
    Cursor,
    Id,
    Limit,
    Name,
    Reason,
    number_after,
    page,
)
from meterpost.operations.posting import run_posters
from meterpost.operations.registry import Context, operation
from meterpost.storage.postgres import listing
from meterpost.storage.postgres.staging import PostgresStaging
from meterpost.workflows.close import Ask

#: Facts about single events: nothing we can do makes them right, a person decides and notes it.
_SETTLED_BY_PERSON = frozenset({"conflicting_duplicate", "failed_measurement", "quarantined_event"})
_ANSWERED = frozenset({"document_edited", "document_missing", "document_cancelled"})
_RETRIED = frozenset({"rejected_by_erp", "attempts_exhausted"})
_RECONCILED = frozenset({"stored_differently", "document_without_receipt", "duplicate_in_erp"})
_LOOKED_AGAIN = frozenset(
    {
        "closed_period",
        "connection_credentials",
        "connector_defect",
        "late_answer",
        "needs_person",
        "probe_failing",
    }
)
_POST_FOR_S = 30.0


@dataclass(frozen=True)
class ListExceptions:
    """``grouped`` counts per reason; otherwise one by one, newest first."""

    grouped: bool = False
    state: Literal["open", "closed", "all"] = "open"
    reason: Name | None = None
    entity: Name | None = None
    period: AccountingPeriod | None = None
    owner: Name | None = None
    assignee: Name | None = None
    cursor: Cursor | None = None
    limit: Limit = 100


@operation(
    "exceptions.list",
    scope=Scope.TRANSACTIONS_READ,
    summary="What cannot go on: reasons, records, money at stake, age, owner.",
)
def list_exceptions(context: Context, asked: ListExceptions) -> object:
    """``estimate`` is money left of staging, and no part of any proof. Ages are in days."""
    wanted = listing.ExceptionFilter(
        state=None if asked.state == "all" else asked.state,
        reason=asked.reason,
        legal_entity=asked.entity,
        accounting_period=asked.period,
        owner=asked.owner,
        assignee=asked.assignee,
    )
    now = context.app.clock.now()
    with context.app.database.begin() as connection:
        if asked.grouped:
            groups = listing.exception_groups(connection, wanted)
            items = [
                {**group, "oldest_days": (now - group["oldest_at"]) // timedelta(days=1)}
                for group in groups
            ]
            return {"items": items, "next": None}
        rows = listing.exceptions(connection, wanted, number_after(asked.cursor), asked.limit + 1)
    return page(
        rows,
        asked.limit,
        lambda row: row["id"],
        lambda row: {**row, "age_days": (now - row["opened_at"]) // timedelta(days=1)},
    )


@dataclass(frozen=True)
class ShowException:
    """One exception."""

    id: Id


@operation(
    "exceptions.show",
    scope=Scope.TRANSACTIONS_READ,
    summary="An exception with everything known of it, and what helps.",
)
def show_exception(context: Context, asked: ShowException) -> object:
    """``detail`` depends on the reason."""
    with context.app.database.begin() as connection:
        row = listing.exception(connection, asked.id)
    age = context.app.clock.now() - row["opened_at"]
    return {**row, "age_days": age // timedelta(days=1), "retry": _what_retry_does(row["reason"])}


@dataclass(frozen=True)
class AssignException:
    """``assignee``: a person's name or id."""

    id: Id
    assignee: Name


@operation(
    "exceptions.assign",
    scope=Scope.EXCEPTIONS_WRITE,
    summary="Name who is to move an exception.",
)
def assign_exception(context: Context, asked: AssignException) -> object:
    """It stays with them when the same fact is found again."""
    found = context.app.review.assign(ExceptionId(asked.id), asked.assignee, context.principal)
    return {"id": asked.id, "assignee": found.assignee}


@dataclass(frozen=True)
class SettleException:
    """``reason`` says what was decided."""

    id: Id
    reason: Reason


@operation(
    "exceptions.settle",
    scope=Scope.EXCEPTIONS_WRITE,
    summary="Close an exception about a single event that nothing but a decision can end.",
)
def settle_exception(context: Context, asked: SettleException) -> object:
    """All others are closed by what solves them, when it has."""
    now = context.app.clock.now()
    with PostgresStaging(context.app.database).begin() as store:
        found = store.exception(ExceptionId(asked.id), lock=True)
        if found.finding.reason not in _SETTLED_BY_PERSON:
            raise Conflict(
                f"Exception {asked.id} ({found.finding.reason}) ends when its cause does.",
                hint=found.finding.suggestion,
            )
        closed = store.close_exceptions(
            found.finding.reason,
            [found.finding.fact],
            now,
            by=context.principal.user,
            why=asked.reason,
        )
        if not closed:
            raise Conflict(f"Exception {asked.id} is closed: {found.closing_reason}.")
        store.record_audit(
            AuditEntry(
                now,
                context.principal.user,
                "exception.settled",
                "exception",
                str(asked.id),
                {"why": asked.reason},
                context.correlation_id,
            )
        )
    return {"id": asked.id, "state": "closed", "reason": asked.reason}


@dataclass(frozen=True)
class RetryException:
    """``reason`` is noted where a decision needs one."""

    id: Id
    reason: Annotated[str, Field(max_length=1_000)] = "retried from the worklist"


@operation(
    "exceptions.retry",
    scope=Scope.EXCEPTIONS_WRITE,
    summary="Do what helps for the exception's reason, and say whether it is gone.",
    needs_events=True,
    creates=True,
)
def retry_exception(context: Context, asked: RetryException) -> object:
    """Re-runs the close as ``resolved``, sends again, looks again, or reconciles. The scope of
    that deed is needed too.
    """
    with context.app.database.begin() as connection:
        row = listing.exception(connection, asked.id)
    if row["state"] != "open":
        raise Conflict(f"Exception {asked.id} is closed: {row['closing_reason']}.")
    did, result = _retry(context, row, asked.reason or "retried from the worklist")
    with context.app.database.begin() as connection:
        after = listing.exception(connection, asked.id)
    return {
        "id": asked.id,
        "did": did,
        "state": after["state"],
        "closing_reason": after["closing_reason"],
        "suggestion": None if after["state"] == "closed" else after["suggestion"],
        "result": result,
    }


def _retry(context: Context, row: Mapping[str, object], reason: str) -> tuple[str, object]:
    why = str(row["reason"])
    if why in _ANSWERED:
        raise Conflict(
            f"Exception {row['id']} waits for an answer, not for another try.",
            hint=f"meterpost tx answer {_transaction(row)} accept|restate|withdraw",
        )
    if why in _SETTLED_BY_PERSON:
        raise Conflict(
            f"Exception {row['id']} ({why}) cannot be retried.", hint=str(row["suggestion"])
        )
    if why in _RETRIED:
        require(context.principal, Scope.POSTING_RUN)
        state = transactions.retry_rejected(context, _transaction_of(context, row), reason)
        return "transaction sent again", {"state": state}
    if why in _RECONCILED:
        require(context.principal, Scope.RECONCILE_RUN)
        return "reconciled", proof.reconcile_all(context, _connection(context, row))
    if why not in _LOOKED_AGAIN and row["accounting_period"] is not None:
        require(context.principal, Scope.CLOSES_RUN)
        return "close run again as resolved", _close_again(context, row)
    require(context.principal, Scope.POSTING_RUN)
    return "looked again", run_posters(context, _connection(context, row), _POST_FOR_S)


def _what_retry_does(reason: str) -> str:
    if reason in _ANSWERED:
        return "Nothing: answer with `meterpost tx answer`."
    if reason in _SETTLED_BY_PERSON:
        return "Nothing: decide, then `meterpost exceptions settle`."
    if reason in _RETRIED:
        return "Sends the same document again under the same key."
    if reason in _RECONCILED:
        return "Reconciles the connection again."
    if reason in _LOOKED_AGAIN:
        return "Looks in the ERP again."
    return "Runs the close of its period again with today's master data."


def _close_again(context: Context, row: Mapping[str, object]) -> object:
    """The close of the exception's entity; of everybody's, where nobody owns the usage yet."""
    period = str(row["accounting_period"])
    entity = row["legal_entity"]
    with context.app.database.begin() as connection:
        closed = listing.latest_closes(connection, period)
    wanted = [
        (workflow, name)
        for workflow, name in closed
        if name != UNASSIGNED and entity in (None, UNASSIGNED, name)
    ]
    if not wanted:
        raise NotFound(f"{period} was not closed yet.", hint="Run `meterpost close run` first.")
    return [closes.run(context, workflow, name, period, Ask.RESOLVED) for workflow, name in wanted]


def _transaction(row: Mapping[str, object]) -> object:
    detail = row["detail"]
    return detail.get("transaction", row["fact"]) if isinstance(detail, Mapping) else row["fact"]


def _transaction_of(context: Context, row: Mapping[str, object]) -> int:
    named = _transaction(row)
    with context.app.database.begin() as connection:
        found = listing.transaction_of(connection, named)
    if found is None:
        raise NotFound(f"Exception {row['id']} names no transaction.")
    return int(found["id"])


def _connection(context: Context, row: Mapping[str, object]) -> str | None:
    """The connection an exception is about, or None for all."""
    with context.app.database.begin() as connection:
        found = listing.transaction_of(connection, _transaction(row))
    if found is not None:
        return str(found["target"])
    name = str(row["fact"]).split("/")[0]
    known = {connection.name for connection in context.app.workspace.connections}
    return name if name in known else None
