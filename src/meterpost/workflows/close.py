"""Closing a period: a stored frame, then usage records, then staged transactions.

Each step is repeated whole after a crash and gives the same result, because the frame (cutoff,
master-data revision, configuration) was stored before the first of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

import pyarrow.compute as pc

from meterpost.audit.model import AuditEntry
from meterpost.core.clock import Clock
from meterpost.core.crashpoints import reach
from meterpost.core.errors import Conflict
from meterpost.core.ids import UNASSIGNED, CloseId, LegalEntityId, TargetId, UsageRecordId
from meterpost.masterdata.model import TARGET_KINDS
from meterpost.masterdata.snapshot import MasterdataSnapshot, to_us
from meterpost.metering.model import Cutoff, Meter
from meterpost.metering.ports import EventStore
from meterpost.posting.model import Precision
from meterpost.staging.model import Finding
from meterpost.staging.render import TargetNames
from meterpost.staging.service import Staging, StagingFrame, StagingReport
from meterpost.workflows.calculation import Calculation
from meterpost.workflows.model import Basis, Close, CloseState, Workflow
from meterpost.workflows.ports import CloseStore, CloseStores
from meterpost.workflows.records import UsageDraft, changed
from meterpost.workflows.usage_billing import REASONS, findings, proposals


class Ask(StrEnum):
    """What a person wants of a period that may have been closed before."""

    #: The latest close: made where there is none, finished where it is not, else unchanged.
    LATEST = "latest"
    #: A close with the same cutoff and today's master data and configuration.
    RESOLVED = "resolved"
    #: A close with a new cutoff, for events that came late.
    LATE = "late"


@dataclass(frozen=True, slots=True)
class Configuration:
    """Meters and workflow as configured, with the digest and plain form that closes store."""

    digest: str
    content: Mapping[str, object]
    meters: Mapping[str, Meter]
    workflow: Workflow


@dataclass(frozen=True, slots=True)
class CloseReport:
    """A close and what running it did now; ``ran`` is False where nothing was left to do."""

    close: Close
    ran: bool
    lines: int = 0
    records: int = 0
    exceptions: Mapping[str, int] = field(default_factory=dict)
    staging: StagingReport | None = None
    unassigned: CloseReport | None = None


OnProgress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class ClosingParts:
    """What closing is wired with.

    ``drain`` stores everything the journal holds at the call; ``snapshot`` reads master data as
    known at a revision; ``configuration`` reads a stored configuration back; ``precision`` is
    what the target's connector states.
    """

    stores: CloseStores
    events: EventStore
    staging: Staging
    clock: Clock
    installation: str
    environment: str
    drain: Callable[[OnProgress], None]
    snapshot: Callable[[int], MasterdataSnapshot]
    configuration: Callable[[str, Mapping[str, object], str], Configuration]
    precision: Callable[[str], Precision]


class Closing:
    """Closes accounting periods of legal entities."""

    def __init__(self, parts: ClosingParts) -> None:
        self._parts = parts
        # Checking the period and calculating mostly read the same revision.
        self._snapshot = lru_cache(maxsize=1)(parts.snapshot)

    def run(
        self,
        configuration: Configuration,
        entity: LegalEntityId,
        accounting_period: str,
        *,
        ask: Ask,
        actor: str,
        correlation_id: str,
        on_progress: OnProgress,
    ) -> CloseReport:
        """The close that was asked for, run to its end.

        Usage that nobody owns is closed along, as the entity ``unassigned``.
        Raises: NotFound for a period or entity that master data does not have; Conflict for a
        period that does not end before now.
        """
        close = self._frame(
            configuration, entity, accounting_period, ask, actor, correlation_id, on_progress
        )
        reach("close.frame.after_commit")
        return self._finish(close, on_progress, again=ask is not Ask.LATEST)

    def _frame(
        self,
        configuration: Configuration,
        entity: LegalEntityId,
        accounting_period: str,
        ask: Ask,
        actor: str,
        correlation_id: str,
        on_progress: OnProgress,
    ) -> Close:
        workflow = configuration.workflow
        with self._parts.stores.begin() as store:
            latest = store.latest(workflow.name, entity, accounting_period)
            revision = store.masterdata_revision()
        if latest is not None and (latest.state is not CloseState.STAGED or ask is Ask.LATEST):
            return latest
        # Read now, so that a period nobody knows is refused before anything is stored.
        period = self._snapshot(revision).accounting_period(entity, accounting_period).period
        if period.end > self._parts.clock.now():
            raise Conflict(
                f"{accounting_period} of {entity} ends {period.end:%Y-%m-%d %H:%M} UTC.",
                hint="Close it after it has ended.",
            )
        if latest is None or ask is Ask.LATE:
            self._parts.drain(on_progress)
            cutoff = self._parts.events.cutoff()
        else:
            cutoff = latest.cutoff
        frame = (cutoff, revision, configuration.digest)
        if latest is not None and frame == _frame_of(latest):
            return latest
        basis = Basis.FIRST
        if latest is not None:
            basis = Basis.LATE if cutoff != latest.cutoff else Basis.MASTERDATA
        now = self._parts.clock.now()
        with self._parts.stores.begin() as store:
            store.lock_period(workflow.name, entity, accounting_period)
            again = store.latest(workflow.name, entity, accounting_period)
            if again is not None and (latest is None or again.n != latest.n):
                return again
            store.remember_config(configuration.digest, configuration.content, actor, now)
            return self._add(
                store,
                Close(
                    id=CloseId(0),
                    workflow=workflow.name,
                    purpose=workflow.purpose,
                    legal_entity=entity,
                    accounting_period=accounting_period,
                    n=1 if latest is None else latest.n + 1,
                    basis=basis,
                    cutoff=cutoff,
                    masterdata_rev=revision,
                    config_digest=configuration.digest,
                    state=CloseState.OPEN,
                    requested_by=actor,
                    requested_at=now,
                    correlation_id=correlation_id,
                ),
            )

    @staticmethod
    def _add(store: CloseStore, close: Close) -> Close:
        added = store.add(close)
        store.record_audit(
            AuditEntry(
                close.requested_at,
                close.requested_by,
                "close.requested",
                "close",
                str(added.id),
                {
                    "workflow": close.workflow,
                    "legal_entity": close.legal_entity,
                    "accounting_period": close.accounting_period,
                    "n": close.n,
                    "basis": close.basis,
                    "cutoff": close.cutoff.to_plain(),
                    "masterdata_rev": close.masterdata_rev,
                    "config_digest": close.config_digest,
                },
                close.correlation_id,
            )
        )
        return added

    def recompute(self, close: CloseId) -> Sequence[UsageDraft]:
        """All usage of a close, from measurements alone and without its records.

        Raises: NotFound.
        """
        with self._parts.stores.begin() as store:
            found = store.get(close)
        calculation = self.calculation(found, lambda what, done, total: None, exact=True)
        if found.legal_entity == UNASSIGNED:
            return calculation.unassigned()
        return [line.draft for line in calculation.billed_lines()]

    def calculation(
        self, close: Close, on_progress: OnProgress, *, exact: bool = False
    ) -> Calculation:
        """What the close's frame says, computed anew; nothing is stored."""
        parts = self._parts
        with parts.stores.begin() as store:
            content = store.config(close.config_digest)
        configuration = parts.configuration(close.config_digest, content, close.workflow)
        return Calculation(
            configuration.workflow,
            configuration.meters,
            self._snapshot(close.masterdata_rev),
            parts.events,
            close,
            on_progress,
            exact=exact,
        )

    def _finish(self, close: Close, on_progress: OnProgress, *, again: bool) -> CloseReport:
        """Run what is left; ``again`` also stages a finished close once more, because what holds
        in the ERP may have changed without any usage or master data (an answer, a credit).
        """
        unassigned = self._unassigned(close)
        finished = close.state is CloseState.STAGED and (
            unassigned is None or unassigned.state is CloseState.STAGED
        )
        if finished and not again:
            return CloseReport(close, ran=False)
        calculation = self.calculation(close, on_progress)
        report = self._record_and_stage(close, calculation, on_progress, finished=finished)
        if unassigned is not None and unassigned.state is not CloseState.STAGED:
            theirs = self._record_unassigned(unassigned, calculation)
            report = replace(report, unassigned=theirs)
        return report

    def _record_and_stage(
        self,
        close: Close,
        calculation: Calculation,
        on_progress: OnProgress,
        *,
        finished: bool,
    ) -> CloseReport:
        parts = self._parts
        lines = calculation.billed_lines()
        drafts = [line.draft for line in lines]
        problems = {line.draft.key[1]: line.problem for line in lines if line.problem}
        found = list(
            findings(
                close.legal_entity,
                close.accounting_period,
                drafts,
                calculation.average_prices(),
                problems,
            )
        )
        written, ids = self._write(close, drafts, found)
        reach("close.records.after_commit")
        staging = parts.staging.stage(
            self._staging_frame(close, calculation),
            proposals(
                calculation.workflow,
                close.id,
                close.legal_entity,
                close.accounting_period,
                lines,
                ids,
            ),
            lambda done: on_progress("transactions", done, None),
        )
        if finished and not (staging.staged or staging.superseded or staging.waiting):
            return CloseReport(close, ran=False)
        counts: dict[str, object] = {
            "lines": len(lines),
            "staged": dict(staging.staged or {}),
            "kept": staging.kept,
            "superseded": staging.superseded,
            "waiting": staging.waiting,
        }
        state = CloseState.COMPUTED if staging.waiting else CloseState.STAGED
        with parts.stores.begin() as store:
            store.advance(close.id, state, counts, parts.clock.now())
            done = store.get(close.id)
        reach("close.staged.after_commit")
        return CloseReport(done, True, len(lines), written, _count(found), staging)

    def _record_unassigned(self, close: Close, calculation: Calculation) -> CloseReport:
        drafts = calculation.unassigned()
        found = list(
            findings(UNASSIGNED, close.accounting_period, drafts, calculation.average_prices(), {})
        )
        written, _ = self._write(close, drafts, found)
        with self._parts.stores.begin() as store:
            store.advance(
                close.id,
                CloseState.STAGED,
                {"subjects": len({draft.key[2:4] for draft in drafts}), "records": written},
                self._parts.clock.now(),
            )
            done = store.get(close.id)
        return CloseReport(done, True, 0, written, _count(found))

    def _write(
        self, close: Close, drafts: Sequence[UsageDraft], found: Sequence[Finding]
    ) -> tuple[int, dict[object, UsageRecordId]]:
        """Store new revisions and findings in one transaction; ids of all records by key."""
        parts = self._parts
        with parts.stores.begin() as store:
            store.lock_period(close.workflow, close.legal_entity, close.accounting_period)
            known = store.known_records(close)
            written = 0
            if store.get(close.id).state is CloseState.OPEN:
                new = list(changed(drafts, known))
                written = len(store.add_records(close, new))
                now = parts.clock.now()
                for reason in REASONS:
                    store.settle_exceptions(
                        reason,
                        close.legal_entity,
                        close.accounting_period,
                        [finding.fact for finding in found if finding.reason == reason],
                        now,
                        why=f"close {close.n} no longer finds it",
                    )
                store.open_exceptions(found, now)
                store.advance(close.id, CloseState.COMPUTED, {"records": written}, now)
                known = store.known_records(close)
            reach("close.records.before_commit")
        return written, {key: record.id for key, record in known.items()}

    def _unassigned(self, close: Close) -> Close | None:
        """The close of what nobody owns with the same frame, made where there is none."""
        with self._parts.stores.begin() as store:
            store.lock_period(close.workflow, UNASSIGNED, close.accounting_period)
            latest = store.latest(close.workflow, UNASSIGNED, close.accounting_period)
            if latest is not None and (
                _frame_of(latest) == _frame_of(close)
                or latest.state is not CloseState.STAGED
                or latest.requested_at > close.requested_at
            ):
                return latest
            return self._add(
                store,
                replace(
                    close,
                    id=CloseId(0),
                    legal_entity=UNASSIGNED,
                    n=1 if latest is None else latest.n + 1,
                    state=CloseState.OPEN,
                    counts={},
                ),
            )

    def _staging_frame(self, close: Close, calculation: Calculation) -> StagingFrame:
        workflow = calculation.workflow
        return StagingFrame(
            installation=self._parts.installation,
            environment=self._parts.environment,
            close=close.id,
            purpose=close.purpose,
            legal_entity=close.legal_entity,
            accounting_period=close.accounting_period,
            config_digest=close.config_digest,
            requested_by=close.requested_by,
            correlation_id=close.correlation_id,
            policy=workflow.approval,
            names=self._names(calculation.snapshot, workflow, close),
        )

    def _names(self, snapshot: MasterdataSnapshot, workflow: Workflow, close: Close) -> TargetNames:
        precision = self._parts.precision(workflow.target)
        return target_names(snapshot, workflow.target, precision, close.requested_at)


def target_names(
    snapshot: MasterdataSnapshot, target: TargetId, precision: Precision, at: datetime
) -> TargetNames:
    """The target's ids that were in force at a moment, as the snapshot's revision knows them."""
    names: dict[str, dict[str, str]] = {kind: {} for kind in TARGET_KINDS}
    table = snapshot.tables["crosswalk"]
    table = table.filter(pc.equal(table["system"], target))
    us = to_us(at)
    columns = ("kind", "canonical_id", "external_id", "valid_from", "valid_to")
    for kind, ours, theirs, start, end in zip(
        *(table[name].to_pylist() for name in columns), strict=True
    ):
        if kind in names and start <= us < end:
            names[kind][ours] = theirs
    return TargetNames(
        target=target,
        precision=precision,
        customers=names["customer"],
        items=names["item"],
        tax_categories=names["tax_category"],
        revenue_accounts=names["revenue_account"],
        payment_terms=names["payment_term"],
    )


def _frame_of(close: Close) -> tuple[Cutoff, int, str]:
    return close.cutoff, close.masterdata_rev, close.config_digest


def _count(found: Sequence[Finding]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for finding in found:
        counts[finding.reason] = counts.get(finding.reason, 0) + 1
    return counts
