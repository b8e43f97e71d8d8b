"""Writing down what became of a call, whatever happened to the transaction meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from meterpost.posting.calls import Pending
from meterpost.posting.context import Context
from meterpost.posting.model import DocumentState, ErpDocument, differences
from meterpost.posting.ports import PostingStore
from meterpost.posting.receipts import receipt
from meterpost.staging.model import Finding, State

#: Exceptions on a transaction that end when it is posted.
_ENDED_BY_POSTING = (
    "rejected_by_erp",
    "closed_period",
    "attempts_exhausted",
    "needs_person",
    "probe_failing",
    "connector_defect",
)


def record_posted(
    context: Context,
    store: PostingStore,
    pending: Pending,
    found: Sequence[ErpDocument],
    now: datetime,
    actor: str,
    reason: str,
) -> State:
    """The transaction's state after these ERP documents turned out to carry its key.

    Normally it becomes posted, linked to the first document. Where another poster was faster,
    or the answer came after absence seemed certain, nothing is overwritten and an exception
    says so.
    """
    assert pending.document is not None
    linked = store.receipt_document(pending.id)
    if linked is not None:
        strangers = [document for document in found if document.id != linked]
        if strangers:
            _open_duplicate(store, pending, [linked, *(d.id for d in strangers)], now)
        return pending.state
    first = _best(pending, found)
    if pending.state not in {State.SENDING, State.IN_DOUBT}:
        return _late_answer(store, pending, first, now, actor)
    stored = receipt(pending.id, pending.key, pending.document, first, compared=False)
    posted = store.step(
        pending, State.POSTED, f"{reason} Document {first.id} in the ERP.", actor, now
    )
    store.add_receipt(stored, now)
    if stored.differences:
        open_stored_differently(store, pending, first.id, stored.differences, now)
    if len(found) > 1:
        others = [document.id for document in found if document.id != first.id]
        _open_duplicate(store, pending, [first.id, *others], now)
    store.close_exceptions(
        _ENDED_BY_POSTING, str(pending.key), now, by=actor, why=f"posted as {first.id}"
    )
    return posted.state


def postpone(
    context: Context,
    store: PostingStore,
    pending: Pending,
    reason: str,
    not_before: datetime,
    now: datetime,
) -> State:
    """Deferred until then, or rejected where the attempts are used up."""
    if pending.attempts >= context.config.attempts_max:
        return give_up(context, store, pending, reason, now)
    return store.step(
        pending, State.DEFERRED, reason, context.actor, now, not_before=not_before
    ).state


def give_up(
    context: Context, store: PostingStore, pending: Pending, reason: str, now: datetime
) -> State:
    """Rejected after the last attempt, with an exception that asks a person."""
    store.open_exception(
        finding(
            pending,
            "attempts_exhausted",
            f"{pending.business_key} was not posted in {pending.attempts} attempts: {reason}",
            "Remove the cause, then retry the transaction.",
            detail={"attempts": pending.attempts},
        ),
        now,
    )
    reason = f"{pending.attempts} attempts are used up. {reason}"
    return store.step(pending, State.REJECTED, reason, context.actor, now).state


def finding(
    pending: Pending,
    reason: str,
    sentence: str,
    suggestion: str,
    *,
    owner: str = "operator",
    detail: dict[str, object] | None = None,
) -> Finding:
    """An exception about one transaction; its fact is the posting key."""
    return Finding(
        reason=reason,
        fact_kind="transaction",
        fact=str(pending.key),
        sentence=sentence,
        suggestion=suggestion,
        owner=owner,
        legal_entity=pending.legal_entity,
        accounting_period=pending.accounting_period,
        estimate=pending.due,
        currency=pending.currency,
        detail={"transaction": pending.id, **(detail or {})},
    )


def open_stored_differently(
    store: PostingStore,
    pending: Pending,
    document_id: str,
    found: Sequence[object],
    now: datetime,
) -> None:
    """An exception with both values of every field that the ERP stored otherwise."""
    listed = "; ".join(str(item) for item in found)
    store.open_exception(
        finding(
            pending,
            "stored_differently",
            f"Document {document_id} for {pending.business_key} is not what we sent: {listed}.",
            "Accept the ERP's values, correct the document there, or withdraw it.",
            owner="finance",
            detail={"document": document_id, "differences": [str(item) for item in found]},
        ),
        now,
    )


def _open_duplicate(
    store: PostingStore, pending: Pending, ids: Sequence[str], now: datetime
) -> None:
    named = list(dict.fromkeys(ids))
    store.open_exception(
        finding(
            pending,
            "duplicate_in_erp",
            f"The ERP holds {len(named)} documents with the reference {pending.key} of "
            f"{pending.business_key}: {', '.join(named)}. {named[0]} is linked.",
            f"Cancel {', '.join(named[1:])} in the ERP.",
            owner="finance",
            detail={"documents": named},
        ),
        now,
    )


def _late_answer(
    store: PostingStore, pending: Pending, document: ErpDocument, now: datetime, actor: str
) -> State:
    sentence = (
        f"Document {document.id} for {pending.business_key} turned up in the ERP while its "
        f"transaction is {pending.state}."
    )
    store.open_exception(
        finding(
            pending,
            "late_answer",
            sentence,
            "Cancel it in the ERP, or link it; nothing of this transaction is sent meanwhile.",
            owner="finance",
            detail={"document": document.id},
        ),
        now,
    )
    if pending.state is State.APPROVED:
        return store.step(pending, State.HELD, sentence, actor, now).state
    return pending.state


def _best(pending: Pending, found: Sequence[ErpDocument]) -> ErpDocument:
    """The document to link: alive before cancelled, like ours before altered, first before later.

    Raises: ValueError where there is none.
    """
    ours = pending.document
    assert ours is not None
    return min(
        found,
        key=lambda document: (
            document.state is DocumentState.CANCELLED,
            bool(differences(ours, document, pending.key)),
        ),
    )
