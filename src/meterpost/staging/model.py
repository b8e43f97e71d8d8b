"""The life of a staged transaction, as literal data, and the values around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from meterpost.core.errors import Conflict
from meterpost.core.ids import (
    CloseId,
    ContractLineId,
    CustomerId,
    ExceptionId,
    ItemId,
    LegalEntityId,
    MeterId,
    PostingKey,
    TargetId,
    TransactionId,
    UsageRecordId,
)
from meterpost.core.period import Period
from meterpost.posting.model import Document


class State(StrEnum):
    """Where a staged transaction stands."""

    PROPOSED = "proposed"
    HELD = "held"
    IN_REVIEW = "in_review"
    APPROVED = "approved"
    NOTHING_DUE = "nothing_due"
    SENDING = "sending"
    IN_DOUBT = "in_doubt"
    DEFERRED = "deferred"
    REJECTED = "rejected"
    POSTED = "posted"
    RECONCILED = "reconciled"
    REVERSED = "reversed"
    SUPERSEDED = "superseded"
    WITHDRAWN = "withdrawn"


_ENDS = (State.SUPERSEDED, State.WITHDRAWN)

#: from → the states it may become. Printed into docs/staging.md.
TRANSITIONS: Mapping[State, tuple[State, ...]] = {
    State.PROPOSED: (State.HELD, State.IN_REVIEW, State.APPROVED, State.NOTHING_DUE, *_ENDS),
    State.HELD: (State.PROPOSED, *_ENDS),
    State.IN_REVIEW: (State.APPROVED, State.HELD, *_ENDS),
    State.APPROVED: (State.SENDING, State.PROPOSED, State.HELD, *_ENDS),
    State.SENDING: (State.POSTED, State.IN_DOUBT, State.REJECTED, State.DEFERRED),
    State.IN_DOUBT: (State.POSTED, State.REJECTED, State.APPROVED),
    State.DEFERRED: (State.APPROVED, *_ENDS),
    State.REJECTED: (State.APPROVED, *_ENDS),
    State.NOTHING_DUE: (),
    State.POSTED: (State.RECONCILED, State.REVERSED),
    State.RECONCILED: (State.POSTED, State.REVERSED),
    State.REVERSED: (),
    State.SUPERSEDED: (),
    State.WITHDRAWN: (),
}

OPEN = frozenset(
    {
        State.PROPOSED,
        State.HELD,
        State.IN_REVIEW,
        State.APPROVED,
        State.SENDING,
        State.IN_DOUBT,
        State.DEFERRED,
        State.REJECTED,
    }
)
SETTLED = frozenset({State.NOTHING_DUE, State.POSTED, State.RECONCILED})
ENDED = frozenset({State.REVERSED, State.SUPERSEDED, State.WITHDRAWN})


def require_transition(from_state: State, to_state: State, transaction: TransactionId) -> None:
    """Nothing, where the table allows the step.

    Raises: Conflict naming both states and what is allowed instead.
    """
    allowed = TRANSITIONS[from_state]
    if to_state not in allowed:
        words = ", ".join(allowed) or "nothing: this is an end"
        raise Conflict(
            f"Transaction {transaction} is {from_state} and cannot become {to_state}.",
            hint=f"From {from_state} it can become: {words}.",
        )


@dataclass(frozen=True, slots=True)
class TransactionLine:
    """One contract line's part: the absolute amount with its working, and what is due of it."""

    ordinal: int
    line: ContractLineId
    meter: MeterId | None
    usage_record: UsageRecordId | None
    item: ItemId
    description: str
    unit: str
    quantity: Decimal
    included: Decimal
    charged: Decimal
    price: str
    amount: Decimal
    held: Decimal
    due: Decimal
    working: Mapping[str, object]
    tax_category: str | None
    revenue_account: str | None
    service: Period


@dataclass(frozen=True, slots=True)
class StagedTransaction:
    """One revision of what should exist in a target.

    ``amount`` is absolute, ``due`` what this revision adds to what holds in the target; both
    are in ``currency``. ``document`` is None while something is missing to render it.
    """

    id: TransactionId
    posting_key: PostingKey
    purpose: str
    kind: str
    workflow: str
    target: TargetId
    legal_entity: LegalEntityId
    accounting_period: str
    business_key: str
    customer: CustomerId
    period: Period
    revision: int
    close: CloseId
    state: State
    currency: str
    amount: Decimal
    due: Decimal
    document: Document | None
    document_hash: str | None
    attempts: int
    not_before: datetime | None
    version: int
    created_by: str
    created_at: datetime
    updated_at: datetime
    correlation_id: str
    lines: tuple[TransactionLine, ...] = ()


@dataclass(frozen=True, slots=True)
class ProposedLine:
    """A contract line with its absolute amount, before anyone asked what the ERP holds.

    ``unit_price`` is set where ``amount`` is ``charged`` × that price, rounded once; only then
    may a document show quantity × price.
    """

    line: ContractLineId
    meter: MeterId | None
    usage_record: UsageRecordId | None
    item: ItemId
    description: str
    unit: str
    quantity: Decimal
    included: Decimal
    charged: Decimal
    price: str
    unit_price: Decimal | None
    amount: Decimal
    working: Mapping[str, object]
    tax_category: str | None
    revenue_account: str | None
    service: Period


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a close says should exist in a target for one business key and billing period."""

    purpose: str
    kind: str
    workflow: str
    target: TargetId
    legal_entity: LegalEntityId
    accounting_period: str
    business_key: str
    customer: CustomerId
    period: Period
    zone: str
    currency: str
    payment_term: str | None
    close: CloseId
    lines: tuple[ProposedLine, ...]

    @property
    def key(self) -> BusinessPeriod:
        """What revisions of this proposal have in common (beside the purpose)."""
        return self.business_key, self.period.start


#: (business key, start of the billing period)
BusinessPeriod = tuple[str, datetime]


@dataclass(frozen=True, slots=True)
class PriorRevision:
    """The latest revision of a business period, as far as the next one needs to know.

    ``held_for`` is the reason of the step that led to ``held``, '' in every other state.
    """

    transaction: TransactionId
    revision: int
    state: State
    document: Document | None
    lines: tuple[TransactionLine, ...]
    held_for: str = ""


@dataclass(frozen=True, slots=True)
class Holding:
    """What the target holds for a business period, per contract line, adjustments taken off.

    ``unanswered`` lists receipts that a clerk changed or deleted and nobody has decided on.
    """

    lines: Mapping[ContractLineId, Decimal] = field(default_factory=dict)
    unanswered: tuple[str, ...] = ()
    #: Σ |due| approved by rule since the last human approval.
    cumulated: Decimal = Decimal(0)


class ExceptionState(StrEnum):
    """Whether someone still has to act."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Finding:
    """A fact that cannot go on, before it has a row: equal (reason, fact) is the same finding.

    ``estimate`` is money left of staging, in ``currency``; it is no part of any proof.
    """

    reason: str
    fact_kind: str
    fact: str
    sentence: str
    suggestion: str
    owner: str
    records: int = 1
    legal_entity: LegalEntityId | None = None
    accounting_period: str | None = None
    estimate: Decimal | None = None
    currency: str | None = None
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpenException:
    """A finding with its row: since when, whose, and how it ended."""

    id: ExceptionId
    finding: Finding
    state: ExceptionState
    assignee: str | None
    opened_at: datetime
    seen_at: datetime
    closed_at: datetime | None
    closed_by: str | None
    closing_reason: str | None


@dataclass(frozen=True, slots=True)
class ApprovalPolicy:
    """Who must look before money moves.

    A document is approved by rule while the cumulated absolute due per business key and period
    since the last human approval stays at or below ``automatic_up_to`` (None: never by rule).
    Otherwise one person with role ``role`` decides, two from ``four_eyes_from`` on; never who
    requested the close, nor who brought in its configuration.
    """

    automatic_up_to: Decimal | None = None
    role: str = "approver"
    four_eyes_from: Decimal | None = None

    def persons(self, due: Decimal) -> int:
        """How many people must approve a document of that size."""
        return 2 if self.four_eyes_from is not None and abs(due) >= self.four_eyes_from else 1

    def automatic(self, due: Decimal, cumulated: Decimal) -> bool:
        """Whether the rule alone may approve, counting what it let through before."""
        return self.automatic_up_to is not None and abs(due) + cumulated <= self.automatic_up_to
