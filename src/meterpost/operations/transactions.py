"""Staged transactions: look at them, and decide about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from meterpost.access.model import Scope
from meterpost.bootstrap import stored_configuration
from meterpost.core.errors import MeterpostError
from meterpost.core.ids import CloseId, TransactionId
from meterpost.operations.arguments import (
    AccountingPeriod,
    Cursor,
    Id,
    Limit,
    MinimumAmount,
    Name,
    OptionalReason,
    Reason,
    number_after,
    page,
)
from meterpost.operations.connections import decisions
from meterpost.operations.registry import Context, operation
from meterpost.operations.working import working_sentences
from meterpost.reconcile.trace import TracedTransaction
from meterpost.staging.model import ApprovalPolicy, State
from meterpost.staging.review import Answer, Decision
from meterpost.storage.postgres import listing
from meterpost.storage.postgres.trace import PostgresTraces

#: Decisions taken with one request; each stands or falls on its own.
DECISIONS_MAX = 1_000


@dataclass(frozen=True)
class ListTransactions:
    """Filters are combined; ``minimum`` is of the due amount, whatever its sign."""

    state: Annotated[tuple[State, ...], Field(max_length=20)] = ()
    entity: Name | None = None
    period: AccountingPeriod | None = None
    customer: Name | None = None
    contract: Name | None = None
    target: Name | None = None
    close: Id | None = None
    minimum: MinimumAmount | None = None
    cursor: Cursor | None = None
    limit: Limit = 100


@operation("tx.list", scope=Scope.TRANSACTIONS_READ, summary="Staged transactions, newest first.")
def list_transactions(context: Context, asked: ListTransactions) -> object:
    """Without lines; ``first_day`` and ``last_day`` are local to the contract."""
    wanted = listing.TransactionFilter(
        states=tuple(state.value for state in asked.state),
        legal_entity=asked.entity,
        accounting_period=asked.period,
        customer=asked.customer,
        contract=asked.contract,
        target=asked.target,
        close=asked.close,
        minimum=asked.minimum,
    )
    with context.app.database.begin() as connection:
        rows = listing.transactions(connection, wanted, number_after(asked.cursor), asked.limit + 1)
    return page(rows, asked.limit, lambda row: row["id"])


@dataclass(frozen=True)
class ShowTransaction:
    """One transaction."""

    id: Id


@operation(
    "tx.show",
    scope=Scope.TRANSACTIONS_READ,
    summary="A transaction: document, lines with their working, history, approvals, receipt.",
)
def show_transaction(context: Context, asked: ShowTransaction) -> object:
    """An approval binds to ``document_hash``: it says what exactly is shown here."""
    with context.app.database.begin() as connection:
        row = listing.transaction(connection, asked.id)
    with PostgresTraces(context.app.database).snapshot() as store:
        all_ = store.transactions([asked.id])
    [found] = [each for each in all_ if each.id == asked.id]
    return {
        **row,
        "lines": _lines(found),
        "history": found.history,
        "approvals": found.approvals,
        "calls": found.calls,
        "receipt": found.receipt,
        "exceptions": found.exceptions,
        "revisions": [
            {"id": each.id, "revision": each.revision, "state": each.state, "due": each.due}
            for each in all_
        ],
    }


def _lines(found: TracedTransaction) -> list[dict[str, Any]]:
    return [
        {
            "ordinal": line.ordinal,
            "line": line.line,
            "meter": line.meter,
            "usage_record": line.usage_record,
            "description": line.description,
            "unit": line.unit,
            "quantity": line.quantity,
            "included": line.included,
            "charged": line.charged,
            "price": line.price,
            "amount": line.amount,
            "held": line.held,
            "due": line.due,
            "service_from": line.service_from,
            "service_to": line.service_to,
            "working": line.working,
            "sentences": working_sentences(line.working, line.unit),
        }
        for line in found.lines
    ]


@dataclass(frozen=True)
class Reviewed:
    """A transaction and the hash of the document that was looked at."""

    id: Id
    hash: Annotated[str, Field(min_length=64, max_length=64)]


_Reviewed = Annotated[tuple[Reviewed, ...], Field(min_length=1, max_length=DECISIONS_MAX)]
_Ids = Annotated[tuple[Id, ...], Field(min_length=1, max_length=DECISIONS_MAX)]


@dataclass(frozen=True)
class ApproveTransactions:
    """Each by the hash of the document that the approver saw."""

    transactions: _Reviewed
    reason: OptionalReason = ""


@operation(
    "tx.approve",
    scope=Scope.TRANSACTIONS_APPROVE,
    summary="Approve exactly the documents with these hashes; an answer per transaction.",
)
def approve(context: Context, asked: ApproveTransactions) -> object:
    """Nobody approves what they closed or configured themselves (four eyes)."""
    policies = _Policies(context)

    def decide(reviewed: Reviewed) -> Decision:
        id_ = TransactionId(reviewed.id)
        return context.app.review.approve(
            id_, reviewed.hash, context.principal, policies.of(reviewed.id), asked.reason
        )

    return _each(context, asked.transactions, decide)


@dataclass(frozen=True)
class RejectTransactions:
    """Each by the hash of the document that was looked at."""

    transactions: _Reviewed
    reason: Reason


@operation(
    "tx.reject",
    scope=Scope.TRANSACTIONS_REVIEW,
    summary="Refuse documents with a reason: they are held until released.",
)
def reject(context: Context, asked: RejectTransactions) -> object:
    """An answer per transaction."""
    policies = _Policies(context)

    def decide(reviewed: Reviewed) -> Decision:
        id_ = TransactionId(reviewed.id)
        return context.app.review.reject(
            id_, reviewed.hash, context.principal, policies.of(reviewed.id), asked.reason
        )

    return _each(context, asked.transactions, decide)


@dataclass(frozen=True)
class DecideTransactions:
    """Some transactions, and why."""

    ids: _Ids
    reason: Reason


@operation(
    "tx.release",
    scope=Scope.TRANSACTIONS_REVIEW,
    summary="Put held transactions up for review again, as they are.",
)
def release(context: Context, asked: DecideTransactions) -> object:
    """One without a document needs a close run as ``resolved`` instead."""

    def decide(id_: int) -> Decision:
        return context.app.review.release(TransactionId(id_), context.principal, asked.reason)

    return _each(context, asked.ids, decide)


@operation(
    "tx.retry",
    scope=Scope.POSTING_RUN,
    summary="Send transactions that the ERP rejected again: same document, same key.",
)
def retry(context: Context, asked: DecideTransactions) -> object:
    """Their exceptions are closed and their attempts counted anew."""

    def decide(id_: int) -> State:
        return retry_rejected(context, id_, asked.reason)

    return _each(context, asked.ids, decide)


def retry_rejected(context: Context, id_: int, reason: str) -> State:
    """The state after the retry of one rejected transaction. Raises: NotFound, Conflict."""
    with context.app.database.begin() as connection:
        target = listing.transaction(connection, id_)["target"]
    return decisions(context, target).retry_rejected(
        TransactionId(id_), actor=context.principal.user, reason=reason
    )


@operation(
    "tx.withdraw",
    scope=Scope.TRANSACTIONS_APPROVE,
    summary="End open transactions for good; later revisions of the same period are held.",
)
def withdraw(context: Context, asked: DecideTransactions) -> object:
    """What they claimed is free again."""

    def decide(id_: int) -> Decision:
        return context.app.review.withdraw(TransactionId(id_), context.principal, asked.reason)

    return _each(context, asked.ids, decide)


@dataclass(frozen=True)
class AnswerReceipt:
    """accept (the ERP's amounts stand), restate (the next close posts the difference) or
    withdraw (later revisions are held).
    """

    id: Id
    answer: Answer
    reason: Reason


@operation(
    "tx.answer",
    scope=Scope.TRANSACTIONS_APPROVE,
    summary="Decide about a posted document that was changed or deleted in the ERP.",
)
def answer(context: Context, asked: AnswerReceipt) -> object:
    """Reconcile found the change; until it is answered, newer revisions stay held."""
    sentence = context.app.review.answer_receipt(
        TransactionId(asked.id), asked.answer, context.principal, asked.reason
    )
    return {"id": asked.id, "answer": asked.answer, "sentence": sentence}


class _Policies:
    """The approval policy that a transaction's close stored: later edits of the YAML, looser
    ones above all, do not count for what was staged before.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._by_close: dict[tuple[int, str], ApprovalPolicy] = {}

    def of(self, transaction: int) -> ApprovalPolicy:
        with self._context.app.database.begin() as connection:
            row = listing.transaction(connection, transaction)
        key = (row["close"], row["workflow"])
        if key not in self._by_close:
            with self._context.app.closes.begin() as store:
                close = store.get(CloseId(row["close"]))
                content = store.config(close.config_digest)
            configuration = stored_configuration(close.config_digest, content, row["workflow"])
            self._by_close[key] = configuration.workflow.approval
        return self._by_close[key]


def _each(
    context: Context,
    asked: Sequence[Any],
    decide: Callable[[Any], Decision | State],
) -> Mapping[str, object]:
    """An answer per transaction; one that fails leaves the others alone."""
    items: list[dict[str, object]] = []
    for done, each in enumerate(asked, 1):
        id_ = each.id if isinstance(each, Reviewed) else each
        try:
            outcome = decide(each)
        except MeterpostError as exc:
            items.append({"id": id_, "ok": False, **failure(exc)})
        else:
            state = outcome.state if isinstance(outcome, Decision) else outcome
            sentence = outcome.sentence if isinstance(outcome, Decision) else f"{state}"
            items.append({"id": id_, "ok": True, "state": state, "sentence": sentence})
        context.progress("transactions", done, len(asked))
    done_ = sum(item["ok"] is True for item in items)
    return {"done": done_, "refused": len(items) - done_, "items": items}


def failure(exc: MeterpostError) -> dict[str, object]:
    """A failure as part of an answer."""
    return {"code": exc.code, "sentence": exc.sentence, "hint": exc.hint}
