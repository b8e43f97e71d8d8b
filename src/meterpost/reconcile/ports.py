"""What reconciling needs from the operational database."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from typing import Protocol

from meterpost.audit.model import AuditEntry
from meterpost.core.ids import ReceiptId, TargetId
from meterpost.reconcile.model import Judgement, StoredReceipt
from meterpost.staging.model import Finding, State


class ReconcileStore(Protocol):
    """One open database transaction: all of it stands, or nothing."""

    def count(self, connection: TargetId) -> int:
        """How many receipts the connection has."""
        ...

    def page(self, connection: TargetId, after: ReceiptId, limit: int) -> Sequence[StoredReceipt]:
        """The next receipts by id, not locked."""
        ...

    def lock(self, receipts: Sequence[ReceiptId]) -> Sequence[StoredReceipt]:
        """The receipts as they stand, their business keys and transactions locked.

        Whoever computes a due holds the same lock, so a due never counts half a batch.
        """
        ...

    def write(self, stored: StoredReceipt, judgement: Judgement, now: datetime) -> None:
        """What the document is now, and what of each line holds."""
        ...

    def step(
        self, stored: StoredReceipt, to_state: State, reason: str, actor: str, now: datetime
    ) -> None:
        """Move the receipt's transaction, with a transition row and an audit entry.

        Raises: Conflict where the state table forbids the step.
        """
        ...

    def first_day(self, connection: TargetId) -> date | None:
        """The earliest day that a document of the connection may bear; None without receipts."""
        ...

    def known_documents(self, connection: TargetId, ids: Collection[str]) -> set[str]:
        """Those of the ERP's document ids that a receipt knows."""
        ...

    def transaction_states(self, keys: Collection[str]) -> Mapping[str, State]:
        """The states of the transactions with these posting keys; others are absent."""
        ...

    def open_facts(self, reason: str, prefix: str) -> set[str]:
        """Facts with an open exception of that reason that start with the prefix."""
        ...

    def open_exceptions(self, findings: Sequence[Finding], now: datetime) -> None:
        """One open exception per finding."""
        ...

    def close_exceptions(
        self, reason: str, facts: Collection[str], now: datetime, *, by: str, why: str
    ) -> int:
        """Close the open exceptions of that reason about these facts; how many."""
        ...

    def record_audit(self, entry: AuditEntry) -> None:
        """Write an audit entry in this transaction."""
        ...


class ReconcileStores(Protocol):
    """Opens transactions."""

    def begin(self) -> AbstractContextManager[ReconcileStore]:
        """A transaction, committed on leaving and rolled back on any exception."""
        ...
