"""What staging needs from the operational database."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from meterpost.audit.model import AuditEntry
from meterpost.core.ids import ContractLineId, ExceptionId, TransactionId
from meterpost.staging.model import (
    BusinessPeriod,
    Finding,
    Holding,
    OpenException,
    PriorRevision,
    StagedTransaction,
    State,
)


class Person(Protocol):
    """Who decides: a name and the roles it holds."""

    @property
    def user(self) -> str:
        """The user's id."""
        ...

    @property
    def roles(self) -> frozenset[str]:
        """The roles the user holds now."""
        ...


@dataclass(frozen=True, slots=True)
class RuleApproval:
    """An approval that a stated rule gave."""

    transaction: TransactionId
    document_hash: str
    cumulated: Decimal
    rule: str


@dataclass(frozen=True, slots=True)
class GivenApproval:
    """A person's decision about a document."""

    person: str
    decision: str


class StagingStore(Protocol):
    """One open database transaction: all of it stands, or nothing."""

    def lock_business_periods(self, purpose: str, keys: Sequence[BusinessPeriod]) -> None:
        """Keep posting and other closes away from these until the transaction ends."""
        ...

    def periods_staged(
        self, purpose: str, keys: Sequence[BusinessPeriod]
    ) -> Sequence[BusinessPeriod]:
        """Those of them that have a revision."""
        ...

    def latest_revisions(
        self, purpose: str, keys: Sequence[BusinessPeriod]
    ) -> Mapping[BusinessPeriod, PriorRevision]:
        """The highest revision of each that has one, with its lines."""
        ...

    def periods_staged_before(
        self, purpose: str, legal_entity: str, accounting_period: str, close: int
    ) -> Sequence[BusinessPeriod]:
        """Business periods whose latest revision came from an earlier close of this period."""
        ...

    def holdings(
        self, purpose: str, keys: Sequence[BusinessPeriod]
    ) -> Mapping[BusinessPeriod, Holding]:
        """What the targets hold for each that ever had a document."""
        ...

    def next_ids(self, count: int) -> Sequence[TransactionId]:
        """Fresh transaction ids."""
        ...

    def add(
        self,
        transactions: Sequence[StagedTransaction],
        steps: Mapping[TransactionId, Sequence[tuple[State, str]]],
        approvals: Sequence[RuleApproval],
    ) -> None:
        """Insert new revisions with their lines, steps (the first is proposed) and approvals."""
        ...

    def move_claims(self, transactions: Sequence[StagedTransaction], now: datetime) -> None:
        """Claim the usage records of these revisions' lines; earlier claims on the same usage
        pass over to them.
        """
        ...

    def release_claims(self, transaction: TransactionId) -> None:
        """Let go of what a withdrawn revision claimed."""
        ...

    def get(self, transaction: TransactionId, *, lock: bool = False) -> StagedTransaction:
        """One revision with its lines.

        Raises: NotFound.
        """
        ...

    def step(
        self, transaction: TransactionId, to_state: State, reason: str, actor: str, now: datetime
    ) -> None:
        """Move one revision along the state table.

        Raises: Conflict where the table has no such step.
        """
        ...

    def step_many(
        self,
        transactions: Sequence[TransactionId],
        to_state: State,
        reason: str,
        actor: str,
        now: datetime,
    ) -> None:
        """`step` for many in the same state-table sense, set-based."""
        ...

    def approvals(self, transaction: TransactionId, document_hash: str) -> Sequence[GivenApproval]:
        """What people said of exactly this document."""
        ...

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
        """Store a person's decision.

        Raises: Conflict when the person said the same of the same document before.
        """
        ...

    def configured_by(self, close: int) -> str:
        """Who brought in the configuration that a close used."""
        ...

    def answer_receipt(
        self,
        transaction: TransactionId,
        answer: str,
        adjustments: Mapping[ContractLineId, Decimal],
        now: datetime,
    ) -> None:
        """Store a person's answer to a changed or missing document."""
        ...

    def receipt_differences(
        self, transaction: TransactionId
    ) -> Mapping[ContractLineId, tuple[Decimal, Decimal]]:
        """Per line of the transaction's receipt: what was posted and what is held.

        Raises: NotFound where it has no receipt; Conflict where nothing waits for an answer.
        """
        ...

    def open_exceptions(self, findings: Sequence[Finding], now: datetime) -> None:
        """One open exception per finding."""
        ...

    def close_exceptions(
        self, reason: str, facts: Collection[str] | None, now: datetime, *, by: str, why: str
    ) -> int:
        """Close a reason's open exceptions (all, or of these facts); how many."""
        ...

    def settle_exceptions_of(
        self,
        transactions: Sequence[TransactionId],
        still: Collection[str],
        now: datetime,
        *,
        why: str,
    ) -> None:
        """Close what was missing to write these superseded documents, but facts in ``still``."""
        ...

    def exception(self, exception: ExceptionId, *, lock: bool = False) -> OpenException:
        """One exception.

        Raises: NotFound.
        """
        ...

    def assign_exception(self, exception: ExceptionId, assignee: str) -> None:
        """Name who is to move it."""
        ...

    def record_audit(self, entry: AuditEntry) -> None:
        """Write an audit entry in this transaction."""
        ...


class StagingStores(Protocol):
    """Opens transactions."""

    def begin(self) -> AbstractContextManager[StagingStore]:
        """A transaction, committed on leaving and rolled back on any exception."""
        ...
