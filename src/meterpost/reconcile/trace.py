"""The chain from events to an ERP document, as values: what `trace` finds and shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal

from meterpost.core.canonical import to_plain
from meterpost.metering.model import Cutoff


@dataclass(frozen=True, slots=True)
class TracedEvent:
    """One stored event. ``fates``: meter → measured, filtered or failed; or what else became of
    it (``duplicate_of``, ``conflicting_with``, ``quarantined``). ``value`` is its component where
    it is listed under a segment.
    """

    sequence: int
    source: str
    id: str | None
    type: str | None
    subject: str | None
    time: datetime | None
    recorded_at: datetime
    data: str | None
    correlation_id: str
    traceparent: str | None
    fates: Mapping[str, str] = field(default_factory=dict)
    value: Decimal | None = None


@dataclass(frozen=True, slots=True)
class TracedClose:
    """The frame a record was computed in."""

    id: int
    n: int
    workflow: str
    purpose: str
    legal_entity: str
    accounting_period: str
    basis: str
    cutoff: Cutoff
    masterdata_rev: int
    config_digest: str


@dataclass(frozen=True, slots=True)
class TracedSegment:
    """A part of a usage record and a page of its events; ``next_after`` asks for the next page
    (None: that was all).
    """

    record: int
    ordinal: int
    source: str
    subject: str
    start: datetime
    end: datetime
    dimensions: Mapping[str, str]
    events: int
    digest: str
    listed: tuple[TracedEvent, ...] = ()
    next_after: int | None = None


@dataclass(frozen=True, slots=True)
class TracedRecord:
    """One revision of a usage record; ``superseded_by`` is the revision after it."""

    id: int
    close: TracedClose
    meter: str
    line: str
    source: str
    subject: str
    period_start: datetime
    period_end: datetime
    revision: int
    fate: str
    quantity: Decimal
    unit: str
    events: int
    digest: str
    segments: tuple[TracedSegment, ...]
    claimed_by: int | None
    superseded_by: int | None


@dataclass(frozen=True, slots=True)
class TracedLine:
    """A line of a transaction: quantity, working and the record it charges."""

    ordinal: int
    line: str
    meter: str | None
    usage_record: int | None
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
    service_from: datetime
    service_to: datetime


@dataclass(frozen=True, slots=True)
class TracedStep:
    """One step of a transaction's life."""

    from_state: str | None
    to_state: str
    reason: str
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class TracedApproval:
    """A decision about one document."""

    decision: str
    person: str
    rule: str | None
    document_hash: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class TracedCall:
    """One request to the ERP that carried the transaction."""

    id: int
    n: int
    purpose: str
    posting_day: date
    reserved_at: datetime
    finished_at: datetime | None
    outcome: str | None
    sentence: str | None


@dataclass(frozen=True, slots=True)
class TracedReceipt:
    """The ERP document a transaction became, as last seen."""

    target: str
    document_id: str
    number: str | None
    state: str
    net: Decimal
    tax: Decimal
    gross: Decimal
    held_net: Decimal
    adjustment: Decimal
    comparison: str
    differences: tuple[str, ...]
    answer: str | None
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class TracedTransaction:
    """One revision of a business fact, with everything that happened to it.

    ``focus``: it is what was asked for or what the events led to, not a sibling revision.
    """

    id: int
    posting_key: str
    purpose: str
    target: str
    legal_entity: str
    accounting_period: str
    business_key: str
    customer: str
    period_start: datetime
    period_end: datetime
    revision: int
    close: int
    state: str
    currency: str
    amount: Decimal
    due: Decimal
    document_hash: str | None
    correlation_id: str
    lines: tuple[TracedLine, ...]
    history: tuple[TracedStep, ...]
    approvals: tuple[TracedApproval, ...]
    calls: tuple[TracedCall, ...]
    receipt: TracedReceipt | None
    exceptions: tuple[str, ...]
    focus: bool = False

    def focused(self) -> TracedTransaction:
        """The same as part of the answer."""
        return replace(self, focus=True)


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything that one reference leads to, both ways.

    ``kind`` is what the reference turned out to be; ``also`` lists other readings of it, each as
    the reference that asks for it. ``names`` reveals personal subjects where that was asked for.
    """

    ref: str
    kind: str
    events: tuple[TracedEvent, ...] = ()
    records: tuple[TracedRecord, ...] = ()
    transactions: tuple[TracedTransaction, ...] = ()
    also: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    more_events: bool = False

    def to_plain(self) -> dict[str, object]:
        """JSON's own types, numbers exact as strings."""
        plain = to_plain(_without_cutoffs(self))
        assert isinstance(plain, dict)
        return plain


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events behind a segment, in sequence order; ``next_after`` asks for more."""

    events: tuple[TracedEvent, ...]
    next_after: int | None


def _without_cutoffs(trace: Trace) -> dict[str, object]:
    """The trace with each cutoff in its own JSON form."""
    records = []
    for record in trace.records:
        plain = to_plain(record)
        assert isinstance(plain, dict)
        plain["close"]["cutoff"] = record.close.cutoff.to_plain()
        records.append(plain)
    return {
        "ref": trace.ref,
        "kind": trace.kind,
        "events": trace.events,
        "records": records,
        "transactions": trace.transactions,
        "also": trace.also,
        "names": trace.names,
        "more_events": trace.more_events,
    }
