"""What posting needs from the operational database."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from decimal import Decimal
from typing import Protocol

from meterpost.core.ids import CallId, LegalEntityId, ReceiptId, TargetId, TransactionId
from meterpost.posting.calls import (
    CallOutcome,
    CallPurpose,
    Doubtful,
    Pending,
    Unread,
)
from meterpost.posting.receipts import Receipt
from meterpost.posting.throttle import RateLimit
from meterpost.staging.model import Finding, State


class PostingStore(Protocol):
    """One open database transaction: all of it stands, or nothing."""

    def take_next(self, connection: TargetId, now: datetime) -> Pending | None:
        """The next approved transaction whose time has come, with its business key locked.

        Transactions whose row or business key somebody else holds are passed over.
        """
        ...

    def lock(self, transaction: TransactionId) -> Pending:
        """The transaction, with its business key and its row locked (waits for both).

        Raises: NotFound.
        """
        ...

    def is_approved(self, transaction: TransactionId, document_hash: str) -> bool:
        """Whether an approval exists for exactly this document."""
        ...

    def held_when_staged(self, transaction: TransactionId) -> Mapping[str, Decimal]:
        """Per contract line: what held in the target when the due was computed."""
        ...

    def held_now(self, transaction: TransactionId) -> Mapping[str, Decimal]:
        """Per contract line: what holds now, by the due check that staging gave."""
        ...

    def zone_of(self, entity: LegalEntityId, now: datetime) -> str:
        """The legal entity's time zone; UTC where it has no row."""
        ...

    def take_permit(self, connection: TargetId, limit: RateLimit, now: datetime) -> datetime:
        """``now`` where a permit was free and is now taken, else when the next one is free."""
        ...

    def open_call(
        self,
        connection: TargetId,
        purpose: CallPurpose,
        poster: str,
        items: Sequence[tuple[Pending | Doubtful, str, date]],
        now: datetime,
        send_before: datetime,
    ) -> CallId:
        """A call reserved with its items (transaction, document hash, posting day)."""
        ...

    def finish_call(
        self,
        call: CallId,
        outcome: CallOutcome,
        now: datetime,
        *,
        sentence: str = "",
        vendor_text: str = "",
        items: Mapping[TransactionId, CallOutcome] | None = None,
    ) -> bool:
        """Whether the call was still open, and is now over; its items alike unless given."""
        ...

    def step(
        self,
        pending: Pending,
        to_state: State,
        reason: str,
        actor: str,
        now: datetime,
        *,
        not_before: datetime | None = None,
        attempts: int | None = None,
    ) -> Pending:
        """The transaction in its new state, with a transition row and an audit entry.

        Raises: Conflict where the state table forbids the step.
        """
        ...

    def wait_until(self, transaction: TransactionId, not_before: datetime) -> None:
        """Look at the transaction again from then on; its state stays."""
        ...

    def add_receipt(self, receipt: Receipt, now: datetime) -> None:
        """Store the receipt and its lines.

        Raises: Conflict where the document belongs to another transaction.
        """
        ...

    def refresh_receipt(self, receipt: ReceiptId, fresh: Receipt, now: datetime) -> None:
        """Replace what the receipt says of the document, which was read again just now."""
        ...

    def receipt_document(self, transaction: TransactionId) -> str | None:
        """The ERP document the transaction became, or None."""
        ...

    def unread_receipts(
        self, connection: TargetId, since: datetime, excluding: Collection[ReceiptId], limit: int
    ) -> list[Unread]:
        """Receipts made since then whose documents have not been read back, oldest first."""
        ...

    def orphaned_calls(
        self, connection: TargetId, poster: str
    ) -> list[tuple[CallId, CallPurpose, tuple[TransactionId, ...]]]:
        """Open calls of this poster itself (between its rounds) and of posters that are gone."""
        ...

    def due_deferred(self, connection: TargetId, now: datetime, limit: int) -> list[TransactionId]:
        """Deferred transactions whose waiting time is over."""
        ...

    def due_doubts(self, connection: TargetId, now: datetime, limit: int) -> list[Doubtful]:
        """Transactions in doubt whose next probe is due."""
        ...

    def doubt(self, transaction: TransactionId) -> Doubtful:
        """When the transaction's last call can have been written, and how often it was probed.

        Raises: NotFound where it has no call.
        """
        ...

    def next_wake(self, connection: TargetId) -> datetime | None:
        """The earliest moment that a waiting transaction of the connection names."""
        ...

    def connection_problem(self, connection: TargetId) -> str | None:
        """The sentence of the open exception that pauses the connection, or None."""
        ...

    def open_exception(self, finding: Finding, now: datetime) -> None:
        """Make sure the finding has one open exception that says its latest."""
        ...

    def close_exceptions(
        self, reasons: Sequence[str], fact: str, now: datetime, *, by: str, why: str
    ) -> None:
        """Close the fact's open exceptions of these reasons."""
        ...

    def audit(
        self,
        action: str,
        object_kind: str,
        object_id: str,
        actor: str,
        now: datetime,
        detail: Mapping[str, object],
        correlation_id: str = "",
    ) -> None:
        """Write an audit entry in this transaction."""
        ...


class Presence(Protocol):
    """Tells other posters that this one lives, for as long as its process does.

    It is no fence: a poster cut off from the database may still be sending. Whoever takes over
    therefore looks in the ERP before anything is sent again.
    """

    def renew(self) -> None:
        """Make sure others still see us; called at the start of each round."""
        ...

    def close(self) -> None:
        """Leave."""
        ...


class PostingStores(Protocol):
    """Opens transactions and registers posters."""

    def begin(self) -> AbstractContextManager[PostingStore]:
        """A transaction, committed on leaving and rolled back on any exception."""
        ...

    def register(self, poster: str) -> Presence:
        """Announce a poster."""
        ...
