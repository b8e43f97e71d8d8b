"""What people decide: approve, reject, release, withdraw, answer for a changed document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from meterpost.audit.model import AuditEntry
from meterpost.core.clock import Clock
from meterpost.core.errors import Conflict, InvalidInput, NotAllowed
from meterpost.core.ids import ContractLineId, ExceptionId, TransactionId
from meterpost.staging.model import ApprovalPolicy, OpenException, StagedTransaction, State
from meterpost.staging.ports import Person, StagingStore, StagingStores

REASON_MAX = 1000


class Answer(StrEnum):
    """What to do about a document that a clerk changed or deleted."""

    ACCEPT = "accept"
    RESTATE = "restate"
    WITHDRAW = "withdraw"


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a transaction stands after a decision, and what is still missing."""

    transaction: StagedTransaction
    state: State
    sentence: str


class Review:
    """Decisions by people; each is checked against content, role and origin, and audited."""

    def __init__(self, stores: StagingStores, clock: Clock) -> None:
        self._stores = stores
        self._clock = clock

    def approve(
        self,
        transaction: TransactionId,
        document_hash: str,
        person: Person,
        policy: ApprovalPolicy,
        reason: str = "",
    ) -> Decision:
        """Approve exactly the document with that hash.

        Raises: Conflict when the document is another one by now, the transaction is not in
        review, or the person decided on it before; NotAllowed without the policy's role, for
        who requested the close, and for who brought in its configuration.
        """
        _require_reason(reason, required=False)
        with self._stores.begin() as store:
            staged = _in_review(store, transaction, document_hash)
            _require_role(person, policy.role, f"approve transaction {transaction}")
            if person.user == staged.created_by:
                raise NotAllowed(
                    f"{person.user} requested the close that made transaction {transaction}.",
                    hint="Somebody else has to approve it (four eyes).",
                )
            if person.user == store.configured_by(staged.close):
                raise NotAllowed(
                    f"{person.user} brought in the configuration that transaction "
                    f"{transaction} was made with.",
                    hint="Somebody else has to approve its money.",
                )
            now = self._clock.now()
            store.add_approval(
                transaction, document_hash, person.user, "approved", reason, abs(staged.due), now
            )
            given = {
                each.person
                for each in store.approvals(transaction, document_hash)
                if each.decision == "approved"
            }
            missing = policy.persons(staged.due) - len(given)
            state = staged.state
            if missing <= 0:
                state = State.APPROVED
                store.step(transaction, state, reason or "approved", person.user, now)
            self._audit(
                store,
                "transaction.approved",
                staged,
                person,
                {"hash": document_hash, "why": reason},
            )
        sentence = "approved" if missing <= 0 else f"{missing} more approval is needed"
        return Decision(staged, state, sentence)

    def reject(
        self,
        transaction: TransactionId,
        document_hash: str,
        person: Person,
        policy: ApprovalPolicy,
        reason: str,
    ) -> Decision:
        """Refuse the document with a reason: the transaction is held until released.

        Raises: as `approve`; InvalidInput without a reason.
        """
        _require_reason(reason)
        with self._stores.begin() as store:
            staged = _in_review(store, transaction, document_hash)
            if not person.roles & {policy.role, "reviewer"}:
                _require_role(person, policy.role, f"reject transaction {transaction}")
            now = self._clock.now()
            store.add_approval(
                transaction, document_hash, person.user, "rejected", reason, abs(staged.due), now
            )
            store.step(transaction, State.HELD, reason, person.user, now)
            self._audit(store, "transaction.refused", staged, person, {"why": reason})
        return Decision(staged, State.HELD, f"held: {reason}")

    def release(self, transaction: TransactionId, person: Person, reason: str) -> Decision:
        """Put a held transaction up for review again, as it is.

        Raises: Conflict where it is not held or has no document yet (run the close again then).
        """
        _require_reason(reason)
        with self._stores.begin() as store:
            staged = store.get(transaction, lock=True)
            if staged.document is None:
                raise Conflict(
                    f"Transaction {transaction} has no document: something is missing to write it.",
                    hint="Solve its exceptions, then run the close again.",
                )
            now = self._clock.now()
            store.step(transaction, State.PROPOSED, reason, person.user, now)
            store.step(transaction, State.IN_REVIEW, "released", person.user, now)
            self._audit(store, "transaction.released", staged, person, {"why": reason})
        return Decision(staged, State.IN_REVIEW, "in review")

    def retry(self, transaction: TransactionId, person: Person, reason: str) -> Decision:
        """Send a rejected transaction again: same document, same approval, same key.

        Raises: Conflict where it was not rejected.
        """
        _require_reason(reason)
        with self._stores.begin() as store:
            staged = store.get(transaction, lock=True)
            if staged.state is not State.REJECTED:
                raise Conflict(
                    f"Transaction {transaction} is {staged.state}; only a rejected one is retried."
                )
            store.step(transaction, State.APPROVED, reason, person.user, self._clock.now())
            self._audit(store, "transaction.retried", staged, person, {"why": reason})
        return Decision(staged, State.APPROVED, "will be sent again")

    def withdraw(self, transaction: TransactionId, person: Person, reason: str) -> Decision:
        """End an open revision for good; what it claimed is free again, later ones are held.

        Raises: Conflict where it is on its way, settled or ended.
        """
        _require_reason(reason)
        with self._stores.begin() as store:
            staged = store.get(transaction, lock=True)
            store.step(transaction, State.WITHDRAWN, reason, person.user, self._clock.now())
            store.release_claims(transaction)
            self._audit(store, "transaction.withdrawn", staged, person, {"why": reason})
        return Decision(staged, State.WITHDRAWN, "withdrawn")

    def answer_receipt(
        self, transaction: TransactionId, answer: Answer, person: Person, reason: str
    ) -> str:
        """Decide about a posted document that a clerk changed or deleted in the ERP.

        ACCEPT keeps the ERP's amounts (the difference becomes an adjustment), RESTATE lets the
        next revision post the difference, WITHDRAW holds later revisions. Returns what follows.

        Raises: NotFound, Conflict where nothing waits for an answer.
        """
        _require_reason(reason)
        now = self._clock.now()
        with self._stores.begin() as store:
            staged = store.get(transaction, lock=True)
            store.lock_business_periods(
                staged.purpose, [(staged.business_key, staged.period.start)]
            )
            changed = store.receipt_differences(transaction)
            adjustments: Mapping[ContractLineId, Decimal] = {}
            if answer is Answer.ACCEPT:
                adjustments = {line: held - posted for line, (posted, held) in changed.items()}
            store.answer_receipt(transaction, answer, adjustments, now)
            for exception in ("document_edited", "document_missing", "document_cancelled"):
                store.close_exceptions(
                    exception, [staged.posting_key], now, by=person.user, why=f"{answer}: {reason}"
                )
            self._audit(
                store,
                f"receipt.{answer}",
                staged,
                person,
                {"why": reason, "adjustments": {k: v for k, v in adjustments.items() if v}},
            )
        return {
            Answer.ACCEPT: "the ERP's amounts stand; later revisions count from them",
            Answer.RESTATE: "the next close run posts the difference",
            Answer.WITHDRAW: "later revisions are held",
        }[answer]

    def assign(self, exception: ExceptionId, assignee: str, person: Person) -> OpenException:
        """Name who is to move an exception.

        Raises: NotFound.
        """
        with self._stores.begin() as store:
            store.exception(exception, lock=True)
            store.assign_exception(exception, assignee)
            store.record_audit(
                AuditEntry(
                    self._clock.now(),
                    person.user,
                    "exception.assigned",
                    "exception",
                    str(exception),
                    {"assignee": assignee},
                )
            )
            return store.exception(exception)

    def _audit(
        self,
        store: StagingStore,
        action: str,
        staged: StagedTransaction,
        person: Person,
        detail: Mapping[str, object],
    ) -> None:
        store.record_audit(
            AuditEntry(
                self._clock.now(),
                person.user,
                action,
                "transaction",
                str(staged.id),
                {"posting_key": staged.posting_key, "due": staged.due, **detail},
                staged.correlation_id,
            )
        )


def _in_review(
    store: StagingStore, transaction: TransactionId, document_hash: str
) -> StagedTransaction:
    staged = store.get(transaction, lock=True)
    if staged.state is not State.IN_REVIEW:
        raise Conflict(
            f"Transaction {transaction} is {staged.state}, not in review.",
            hint="Only a transaction in review can be approved or rejected.",
        )
    if staged.document_hash != document_hash:
        raise Conflict(
            f"The document of transaction {transaction} is not the one that was looked at.",
            hint="Show it again and decide on its present hash.",
        )
    return staged


def _require_role(person: Person, role: str, deed: str) -> None:
    if role not in person.roles:
        raise NotAllowed(f"{person.user} may not {deed}.", hint=f"That takes the role {role!r}.")


def _require_reason(reason: str, *, required: bool = True) -> None:
    if required and not reason.strip():
        raise InvalidInput("A reason is needed, so that others can follow the decision.")
    if len(reason) > REASON_MAX:
        raise InvalidInput(f"The reason is longer than {REASON_MAX} characters.")
