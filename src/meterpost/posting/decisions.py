"""What a person may decide about a transaction on its way to the ERP."""

from __future__ import annotations

from dataclasses import dataclass

from meterpost.core.errors import Conflict, InvalidInput, NotFound
from meterpost.core.ids import TransactionId
from meterpost.posting.context import Context
from meterpost.posting.record import record_posted
from meterpost.staging.model import State

_REASON_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Exists:
    """The person found the document in the ERP."""

    document_id: str


@dataclass(frozen=True, slots=True)
class Absent:
    """The person looked in the ERP and found nothing."""


class PostingDecisions:
    """Decisions about one connection's transactions; who may take them is checked before."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def resolve_in_doubt(
        self, transaction: TransactionId, answer: Exists | Absent, *, actor: str, reason: str
    ) -> State:
        """The state after a person said whether the ERP holds the document.

        Raises: Conflict where the transaction is not in doubt (any more), where absence is not
        certain yet, or where the document belongs to another transaction; NotFound where the
        ERP does not hold the document named.
        """
        _require_reason(reason)
        context = self._context
        document = None
        if isinstance(answer, Exists):
            document = context.connector.read([answer.document_id]).get(answer.document_id)
            if document is None:
                raise NotFound(
                    f"The ERP holds no document {answer.document_id}.",
                    hint="Give its internal id, or say that it is absent.",
                )
        now = context.clock.now()
        with context.stores.begin() as store:
            pending = store.lock(transaction)
            if pending.state is not State.IN_DOUBT:
                raise Conflict(f"Transaction {transaction} is {pending.state}, not in doubt.")
            if document is not None:
                return record_posted(
                    context, store, pending, [document], now, actor, f"Linked by hand: {reason}"
                )
            certain = context.certain_from(store.doubt(transaction).send_before)
            if now < certain:
                raise Conflict(
                    f"Transaction {transaction} may still appear in the ERP until "
                    f"{certain:%Y-%m-%d %H:%M:%S}Z.",
                    hint="Look again after that moment.",
                )
            store.close_exceptions(
                ("needs_person", "probe_failing"),
                str(pending.key),
                now,
                by=actor,
                why=f"absent: {reason}",
            )
            reason = f"Absent by hand: {reason}"
            return store.step(pending, State.APPROVED, reason, actor, now).state

    def retry_rejected(self, transaction: TransactionId, *, actor: str, reason: str) -> State:
        """Approved again: the same document under the same key, with its attempts anew.

        Raises: Conflict where it is not rejected or its document is not approved.
        """
        _require_reason(reason)
        now = self._context.clock.now()
        with self._context.stores.begin() as store:
            pending = store.lock(transaction)
            if pending.state is not State.REJECTED:
                raise Conflict(f"Transaction {transaction} is {pending.state}, not rejected.")
            retried = store.step(pending, State.APPROVED, reason, actor, now, attempts=0)
            store.close_exceptions(
                ("rejected_by_erp", "attempts_exhausted"),
                str(pending.key),
                now,
                by=actor,
                why=f"retried: {reason}",
            )
            return retried.state


def _require_reason(reason: str) -> None:
    if not reason.strip() or len(reason) > _REASON_MAX:
        raise InvalidInput(f"A decision needs a reason of 1 to {_REASON_MAX} characters.")
