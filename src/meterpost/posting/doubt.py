"""Calls whose effect is unknown: taking them over, looking in the ERP, and only then going on.

One empty look-up proves nothing. A request that we gave up on may still be worked on, and a
stored document may still hide from searches. Absence counts only for a look-up begun after
``send_before`` + the server's request limit + visibility + margin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import structlog

from meterpost.core.errors import MeterpostError, NeedsPerson
from meterpost.core.ids import PostingKey
from meterpost.posting.calls import CallOutcome, CallPurpose, Doubtful, Tally
from meterpost.posting.context import Context
from meterpost.posting.model import ErpDocument
from meterpost.posting.ports import PostingStore
from meterpost.posting.record import finding, give_up, record_posted
from meterpost.posting.sending import pause_connection
from meterpost.staging.model import State

_log = structlog.get_logger(__name__)

_BATCH = 50
#: After so many look-ups without an answer a person is told; looking goes on, at its slowest.
_PROBES_BEFORE_ALARM = 10
#: How often a connector without search asks a person again.
_ASK_AGAIN = timedelta(days=1)


class Doubts:
    """Settles what is in doubt on one connection."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def take_over(self, tally: Tally) -> None:
        """Treat open calls of this poster's past rounds and of dead posters as in doubt.

        Being in doubt is always safe: only certain absence lets a transaction be sent again.
        """
        context = self._context
        with context.stores.begin() as store:
            orphans = store.orphaned_calls(context.config.name, context.poster)
        for call, purpose, transactions in orphans:
            now = context.clock.now()
            with context.stores.begin() as store:
                for transaction in transactions if purpose is CallPurpose.POST else ():
                    pending = store.lock(transaction)
                    if pending.state is State.SENDING:
                        reason = f"Call {call} was left open by a poster that is gone."
                        store.step(
                            pending, State.IN_DOUBT, reason, context.actor, now, not_before=now
                        )
                        tally.taken_over.append(transaction)
                outcome = (
                    CallOutcome.IN_DOUBT if purpose is CallPurpose.POST else CallOutcome.FAILED
                )
                store.finish_call(call, outcome, now, sentence="left open by a poster that is gone")

    def probe(self, tally: Tally) -> datetime | None:
        """Look up what is due; when a permit will be free, where none was."""
        context = self._context
        now = context.clock.now()
        with context.stores.begin() as store:
            doubts = store.due_doubts(context.config.name, now, _BATCH)
            if not doubts:
                return None
            if not context.connector.capabilities.search:
                for doubt in doubts:
                    self._ask_person(store, doubt, now)
                return None
            free_at = context.take_permit(store)
            if free_at is not None:
                return free_at
            for doubt in doubts:  # nobody else looks for the same meanwhile
                store.wait_until(doubt.transaction, self._next_probe(doubt, now))
            call = store.open_call(
                context.config.name,
                CallPurpose.PROBE,
                context.poster,
                [(doubt, "", now.date()) for doubt in doubts],
                now,
                now + timedelta(seconds=context.config.timeout_s),
            )
        asked_at = context.clock.now()
        found, failure = self._find([doubt.key for doubt in doubts])
        outcomes = {
            doubt.transaction: self._settle(doubt, found, failure, asked_at, tally)
            for doubt in doubts
        }
        with context.stores.begin() as store:
            store.finish_call(
                call,
                CallOutcome.FAILED if failure is not None else CallOutcome.FOUND,
                context.clock.now(),
                sentence="" if failure is None else str(failure),
                items=outcomes,
            )
        return None

    def _find(
        self, keys: Sequence[PostingKey]
    ) -> tuple[Mapping[PostingKey, Sequence[ErpDocument]], MeterpostError | None]:
        try:
            return self._context.connector.find(keys), None
        except MeterpostError as exc:
            return {}, exc

    def _settle(
        self,
        doubt: Doubtful,
        found: Mapping[PostingKey, Sequence[ErpDocument]],
        failure: MeterpostError | None,
        asked_at: datetime,
        tally: Tally,
    ) -> CallOutcome:
        context = self._context
        now = context.clock.now()
        with context.stores.begin() as store:
            pending = store.lock(doubt.transaction)
            if isinstance(failure, NeedsPerson):
                pause_connection(context, store, str(failure), now)
            if pending.state is not State.IN_DOUBT:
                return CallOutcome.FAILED if failure is not None else CallOutcome.FOUND
            if failure is not None:
                if doubt.probes + 1 >= _PROBES_BEFORE_ALARM:
                    store.open_exception(
                        finding(
                            pending,
                            "probe_failing",
                            f"{pending.business_key} is in doubt and {doubt.probes + 1} look-ups "
                            f"gave no answer: {failure}",
                            "Make the ERP reachable; looking goes on.",
                        ),
                        now,
                    )
                return CallOutcome.FAILED
            documents = found.get(doubt.key, ())
            if documents:
                state = record_posted(
                    context,
                    store,
                    pending,
                    documents,
                    now,
                    context.actor,
                    "Found by its reference.",
                )
                tally.count(state, pending.id)
                return CallOutcome.FOUND
            # Read again under the lock: a later call would move the certain moment.
            certain = context.certain_from(store.doubt(pending.id).send_before)
            if asked_at < certain:
                return CallOutcome.EMPTY
            reason = (
                f"Absent from the ERP at {asked_at:%H:%M:%S}Z, certain from {certain:%H:%M:%S}Z."
            )
            if pending.attempts >= context.config.attempts_max:
                tally.count(give_up(context, store, pending, reason, now), pending.id)
                return CallOutcome.ABSENT
            back = store.step(pending, State.APPROVED, reason, context.actor, now)
            tally.count(back.state, pending.id)
            return CallOutcome.ABSENT

    def _next_probe(self, doubt: Doubtful, now: datetime) -> datetime:
        """After the back-off, but not past the moment from which absence is certain."""
        later = now + self._context.back_offs.probe.after(doubt.probes + 1)
        certain = self._context.certain_from(doubt.send_before)
        return min(later, certain) if certain > now else later

    def _ask_person(self, store: PostingStore, doubt: Doubtful, now: datetime) -> None:
        pending = store.lock(doubt.transaction)
        certain = self._context.certain_from(doubt.send_before)
        store.open_exception(
            finding(
                pending,
                "needs_person",
                f"{pending.business_key} may or may not be in the ERP, which cannot be searched.",
                f"Look for reference {pending.key} there after {certain:%Y-%m-%d %H:%M:%S}Z and "
                "say whether it exists.",
                detail={"certain_from": certain},
            ),
            now,
        )
        store.wait_until(pending.id, now + _ASK_AGAIN)
