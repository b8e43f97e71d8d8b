"""One approved transaction on its way: reserve, send, record; each its own transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

import structlog

from meterpost.core.crashpoints import reach
from meterpost.core.errors import MeterpostError, NeedsPerson, Permanent, Throttled, Transient
from meterpost.core.period import zone_info
from meterpost.posting.calls import CallOutcome, CallPurpose, Pending, Reserved, Tally
from meterpost.posting.context import Context
from meterpost.posting.errors import ClosedPeriod, Duplicate, Rejected
from meterpost.posting.model import Document, ErpDocument
from meterpost.posting.ports import PostingStore
from meterpost.posting.record import finding, postpone, record_posted
from meterpost.staging.model import Finding, State

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sent:
    """How one attempt ended. ``failure`` is what the ERP or the line said; None: posted."""

    failure: Exception | None = None


@dataclass(frozen=True, slots=True)
class NoPermit:
    """Nothing was reserved: the rate limit frees a permit then."""

    free_at: datetime


class Sender:
    """Sends the approved transactions of one connection, one at a time."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def send_next(self, tally: Tally) -> Sent | NoPermit | None:
        """How the next attempt ended; None where nothing is left to send.

        Raises: Transient when our own database fails; the call then stays open and the next
        round treats it as in doubt.
        """
        reserved = self._reserve(tally)
        if not isinstance(reserved, Reserved):
            return reserved
        reach("posting.reserve.after_commit")
        answer = self._send(reserved)
        self._record(reserved, answer, tally)
        reach("posting.record.after_commit")
        return Sent(None if isinstance(answer, ErpDocument) else answer)

    def _reserve(self, tally: Tally) -> Reserved | NoPermit | None:
        context, config = self._context, self._context.config
        while True:
            now = context.clock.now()
            with context.stores.begin() as store:
                pending = store.take_next(config.name, now)
                if pending is None:
                    return None
                stale = self._changed(store, pending)
                if stale is not None:
                    store.step(pending, State.PROPOSED, stale, context.actor, now)
                    tally.count(State.PROPOSED, pending.id)
                    continue
                assert pending.document is not None
                assert pending.document_hash is not None
                free_at = context.take_permit(store)
                if free_at is not None:
                    return NoPermit(free_at)
                day = posting_day(pending.document, now, store.zone_of(pending.legal_entity, now))
                # The whole exchange ends within the timeout, so a request that is begun before
                # `send_before - timeout` has been written by `send_before`.
                send_before = now + timedelta(seconds=config.lease_s + config.timeout_s)
                call = store.open_call(
                    config.name,
                    CallPurpose.POST,
                    context.poster,
                    [(pending, pending.document_hash, day)],
                    now,
                    send_before,
                )
                store.step(
                    pending,
                    State.SENDING,
                    f"Call {call}, posting day {day}.",
                    context.actor,
                    now,
                    attempts=pending.attempts + 1,
                )
                return Reserved(
                    call,
                    pending.id,
                    pending.key,
                    pending.document,
                    day,
                    send_before,
                    pending.correlation_id,
                )

    def _changed(self, store: PostingStore, pending: Pending) -> str | None:
        """Why the approval no longer covers what would be sent, or None."""
        document, approved_hash = pending.document, pending.document_hash
        if document is None or approved_hash is None:
            return "There is no rendered document to send."
        if document.hash != approved_hash or not store.is_approved(pending.id, approved_hash):
            return "No approval exists for exactly this document."
        if document.connection != self._context.config.name:
            return f"The document was rendered for connection {document.connection}."
        return changed_due(store.held_when_staged(pending.id), store.held_now(pending.id))

    def _send(self, reserved: Reserved) -> ErpDocument | Exception:
        context, config = self._context, self._context.config
        latest = reserved.send_before - timedelta(seconds=config.timeout_s)
        if context.clock.now() >= latest:
            return LeaseOver()
        reach("posting.send.before")
        try:
            answer: ErpDocument | Exception = context.connector.post(
                reserved.document,
                reserved.key,
                reserved.posting_day,
                timeout_s=config.timeout_s,
            )
        except MeterpostError as exc:
            answer = exc
        except Exception as exc:  # noqa: BLE001 - a connector's own defect; its effect is unknown
            _log.exception(
                "connector_defect",
                connection=config.name,
                posting_key=reserved.key,
                correlation_id=reserved.correlation_id,
            )
            answer = exc
        reach("posting.send.after")
        return answer

    def _record(self, reserved: Reserved, answer: ErpDocument | Exception, tally: Tally) -> None:
        context = self._context
        now = context.clock.now()
        with context.stores.begin() as store:
            pending = store.lock(reserved.transaction)
            outcome = call_outcome(answer)
            store.finish_call(
                reserved.call,
                outcome,
                now,
                sentence="" if isinstance(answer, ErpDocument) else str(answer),
                vendor_text=answer.vendor_text if isinstance(answer, Rejected) else "",
            )
            if isinstance(answer, ErpDocument):
                state = record_posted(
                    context, store, pending, [answer], now, context.actor, "The ERP answered."
                )
            elif pending.state is State.SENDING:
                state = self._record_failure(store, pending, answer, outcome, now)
            elif pending.state is State.IN_DOUBT and outcome is not CallOutcome.IN_DOUBT:
                # Taken over while we were still sending; our answer is definite all the same.
                state = self._settle_doubt(store, pending, answer, outcome, now)
            else:
                state = pending.state
            tally.count(state, reserved.transaction)
            reach("posting.record.before_commit")
        _log.info(
            "call_finished",
            connection=context.config.name,
            posting_key=reserved.key,
            outcome=outcome.value,
            state=state.value,
            correlation_id=reserved.correlation_id,
        )

    def _record_failure(
        self,
        store: PostingStore,
        pending: Pending,
        failure: Exception,
        outcome: CallOutcome,
        now: datetime,
    ) -> State:
        context, back_offs = self._context, self._context.back_offs
        sentence = str(failure)
        match outcome:
            case CallOutcome.REJECTED:
                _open_rejected(store, pending, failure, now)
                return store.step(pending, State.REJECTED, sentence, context.actor, now).state
            case CallOutcome.NOT_ADMITTED:
                pause_connection(context, store, sentence, now)
                # Refused at the door: the attempt does not count against the document.
                return self._back_to_approved(store, pending, sentence, now)
            case CallOutcome.NOT_SENT:
                return self._back_to_approved(store, pending, sentence, now)
            case CallOutcome.DEFERRED:
                wait = back_offs.transaction.after(pending.attempts)
                if isinstance(failure, ClosedPeriod):
                    _open_closed_period(store, pending, failure, now)
                    wait = back_offs.closed_period.after(pending.attempts)
                elif isinstance(failure, Transient) and failure.after_s is not None:
                    wait = max(wait, timedelta(seconds=failure.after_s))
                return postpone(context, store, pending, sentence, now + wait, now)
            case _:
                if not isinstance(failure, MeterpostError):
                    _open_defect(store, pending, failure, now)
                first_probe = now if isinstance(failure, Duplicate) else now + timedelta(seconds=1)
                return store.step(
                    pending,
                    State.IN_DOUBT,
                    sentence or type(failure).__name__,
                    context.actor,
                    now,
                    not_before=first_probe,
                ).state

    def _settle_doubt(
        self,
        store: PostingStore,
        pending: Pending,
        failure: Exception,
        outcome: CallOutcome,
        now: datetime,
    ) -> State:
        actor, sentence = self._context.actor, str(failure)
        if outcome is CallOutcome.REJECTED:
            _open_rejected(store, pending, failure, now)
            return store.step(pending, State.REJECTED, sentence, actor, now).state
        reason = f"The call had no effect after all: {sentence}"
        wait = self._context.back_offs.transaction.after(pending.attempts)
        return store.step(pending, State.APPROVED, reason, actor, now, not_before=now + wait).state

    def _back_to_approved(
        self, store: PostingStore, pending: Pending, sentence: str, now: datetime
    ) -> State:
        actor = self._context.actor
        deferred = store.step(
            pending, State.DEFERRED, sentence, actor, now, attempts=pending.attempts - 1
        )
        store.step(deferred, State.APPROVED, "Nothing was sent.", actor, now)
        return State.DEFERRED


class LeaseOver(Transient):
    """The reserved call came too late to its turn; nothing was written."""

    code = "lease-over"

    def __init__(self) -> None:
        super().__init__("The call's lease ended before its turn; nothing was sent.")


def posting_day(document: Document, now: datetime, zone: str) -> date:
    """Today in the legal entity's zone, moved into the days the approval permits."""
    today = now.astimezone(zone_info(zone)).date()
    return min(max(today, document.date_from), document.date_to)


def changed_due(staged: Mapping[str, Decimal], held: Mapping[str, Decimal]) -> str | None:
    """A sentence naming the lines whose held amount is no longer what the due was made of."""
    zero = Decimal(0)
    changed = [
        f"{line} holds {held.get(line, zero)} instead of {staged.get(line, zero)}"
        for line in sorted({*staged, *held})
        if held.get(line, zero) != staged.get(line, zero)
    ]
    if not changed:
        return None
    return f"What holds in the ERP changed since the due was computed: {'; '.join(changed)}."


def call_outcome(answer: ErpDocument | Exception) -> CallOutcome:
    """What an answer says about the call; anything unheard of leaves it in doubt."""
    match answer:
        case ErpDocument():
            return CallOutcome.POSTED
        case LeaseOver():
            return CallOutcome.NOT_SENT
        case ClosedPeriod() | Transient():
            return CallOutcome.DEFERRED
        case Permanent():
            return CallOutcome.REJECTED
        case NeedsPerson():
            return CallOutcome.NOT_ADMITTED
        case _:
            return CallOutcome.IN_DOUBT


def pauses_connection(failure: Exception) -> bool:
    """Whether the failure speaks of the connection rather than of one document."""
    return isinstance(failure, (Throttled, Transient)) and not isinstance(failure, LeaseOver)


def pause_connection(context: Context, store: PostingStore, sentence: str, now: datetime) -> None:
    """Nothing more is sent on this connection until its check succeeds; one exception says so."""
    name = str(context.config.name)
    if store.connection_problem(context.config.name) is None:
        store.audit("connection.paused", "connection", name, context.actor, now, {"why": sentence})
    store.open_exception(
        Finding(
            reason="connection_credentials",
            fact_kind="connection",
            fact=name,
            sentence=f"Connection {name} is paused: {sentence}",
            suggestion="Correct its credentials or rights; posting resumes once its check works.",
            owner="engineer",
        ),
        now,
    )


def _open_rejected(
    store: PostingStore, pending: Pending, failure: Exception, now: datetime
) -> None:
    vendor_text = failure.vendor_text if isinstance(failure, Rejected) else ""
    store.open_exception(
        finding(
            pending,
            "rejected_by_erp",
            f"The ERP refused {pending.business_key}: {failure}",
            "Correct the master data or the mapping, then retry; a changed document is a new "
            "revision.",
            owner="finance",
            detail={"vendor_text": vendor_text},
        ),
        now,
    )


def _open_closed_period(
    store: PostingStore, pending: Pending, failure: ClosedPeriod, now: datetime
) -> None:
    store.open_exception(
        finding(
            pending,
            "closed_period",
            f"{pending.business_key} waits: {failure}",
            "Open the period in the ERP, or approve a document with later accounting days.",
            owner="finance",
            detail={"vendor_text": failure.vendor_text},
        ),
        now,
    )


def _open_defect(store: PostingStore, pending: Pending, failure: Exception, now: datetime) -> None:
    store.open_exception(
        finding(
            pending,
            "connector_defect",
            f"The connector failed on {pending.business_key} with {type(failure).__name__}; "
            "what it did is not known, so the document is being looked for.",
            "Report the defect with the log's traceback.",
            owner="engineer",
        ),
        now,
    )
