"""Calls to an ERP as we remember them, and the transactions they carry."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

from meterpost.core.ids import CallId, LegalEntityId, PostingKey, ReceiptId, TransactionId
from meterpost.posting.model import Document
from meterpost.staging.model import State


class CallPurpose(StrEnum):
    """Why we ask."""

    POST = "post"
    PROBE = "probe"


class CallOutcome(StrEnum):
    """What is known of a call once it is over; an open call has none."""

    POSTED = "posted"
    REJECTED = "rejected"
    DEFERRED = "deferred"
    IN_DOUBT = "in_doubt"
    #: The lease ran out before anything was written.
    NOT_SENT = "not_sent"
    #: Credentials or rights were refused before any work.
    NOT_ADMITTED = "not_admitted"
    #: Probes: the look-up found a document, found none (yet), proved absence, or failed.
    FOUND = "found"
    EMPTY = "empty"
    ABSENT = "absent"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Pending:
    """A staged transaction as far as posting looks at it, read under its row's lock."""

    id: TransactionId
    key: PostingKey
    purpose: str
    business_key: str
    legal_entity: LegalEntityId
    accounting_period: str
    state: State
    currency: str
    due: Decimal
    document: Document | None
    document_hash: str | None
    attempts: int
    correlation_id: str


@dataclass(frozen=True, slots=True)
class Reserved:
    """A call that may be written until ``send_before``, stored before anything is sent."""

    call: CallId
    transaction: TransactionId
    key: PostingKey
    document: Document
    posting_day: date
    send_before: datetime
    correlation_id: str


@dataclass(frozen=True, slots=True)
class Doubtful:
    """A transaction in doubt: since when its last call can have been written, and the probes."""

    transaction: TransactionId
    key: PostingKey
    send_before: datetime
    probes: int
    correlation_id: str


@dataclass(frozen=True, slots=True)
class Unread:
    """A receipt whose document we have not read back yet."""

    receipt: ReceiptId
    transaction: TransactionId
    key: PostingKey
    document_id: str
    document: Document


@dataclass(frozen=True, slots=True)
class PosterReport:
    """What one round of a poster did, for people and for tests.

    ``next_at`` is when the next round can find something to do by the clock alone (None: only
    when something new is approved); ``paused`` says why nothing is sent just now.
    """

    posted: tuple[TransactionId, ...] = ()
    rejected: tuple[TransactionId, ...] = ()
    deferred: tuple[TransactionId, ...] = ()
    in_doubt: tuple[TransactionId, ...] = ()
    returned: tuple[TransactionId, ...] = ()
    taken_over: tuple[TransactionId, ...] = ()
    absent: tuple[TransactionId, ...] = ()
    next_at: datetime | None = None
    paused: str | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing moved."""
        return not any(
            (
                self.posted,
                self.rejected,
                self.deferred,
                self.in_doubt,
                self.returned,
                self.taken_over,
                self.absent,
            )
        )


@dataclass(slots=True)
class Tally:
    """The report of a round while it is being written."""

    posted: list[TransactionId] = field(default_factory=list)
    rejected: list[TransactionId] = field(default_factory=list)
    deferred: list[TransactionId] = field(default_factory=list)
    in_doubt: list[TransactionId] = field(default_factory=list)
    returned: list[TransactionId] = field(default_factory=list)
    taken_over: list[TransactionId] = field(default_factory=list)
    absent: list[TransactionId] = field(default_factory=list)

    def count(self, state: State, transaction: TransactionId) -> None:
        """Note that a transaction arrived in a state."""
        lists = {
            State.POSTED: self.posted,
            State.REJECTED: self.rejected,
            State.DEFERRED: self.deferred,
            State.IN_DOUBT: self.in_doubt,
            State.PROPOSED: self.returned,
            State.APPROVED: self.absent,
        }
        if state in lists:
            lists[state].append(transaction)

    def report(self, next_at: datetime | None, paused: str | None) -> PosterReport:
        """The finished report."""
        return PosterReport(
            posted=tuple(self.posted),
            rejected=tuple(self.rejected),
            deferred=tuple(self.deferred),
            in_doubt=tuple(self.in_doubt),
            returned=tuple(self.returned),
            taken_over=tuple(self.taken_over),
            absent=tuple(self.absent),
            next_at=next_at,
            paused=paused,
        )
