"""Proposals become staged transactions: the next revision of each, judged once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import islice

from meterpost.audit.model import AuditEntry
from meterpost.core.clock import Clock
from meterpost.core.crashpoints import reach
from meterpost.core.ids import CloseId, PostingKeyParts, TransactionId
from meterpost.core.period import zone_info
from meterpost.core.problem import Problem
from meterpost.posting.model import Document
from meterpost.staging.model import (
    ApprovalPolicy,
    BusinessPeriod,
    Finding,
    Holding,
    Proposal,
    StagedTransaction,
    State,
    TransactionLine,
)
from meterpost.staging.ports import RuleApproval, StagingStore, StagingStores
from meterpost.staging.render import TargetNames, render
from meterpost.staging.revise import Keep, Revise, Verdict, Wait, first_verdict, next_revision

#: Proposals staged per database transaction: few enough for the lock table, many enough for COPY.
BATCH = 1000

_NO_HOLDING = Holding()


@dataclass(frozen=True, slots=True)
class StagingFrame:
    """What all proposals of one close share."""

    installation: str
    environment: str
    close: CloseId
    purpose: str
    legal_entity: str
    accounting_period: str
    config_digest: str
    requested_by: str
    correlation_id: str
    policy: ApprovalPolicy
    names: TargetNames


@dataclass(frozen=True, slots=True)
class StagingReport:
    """What became of a close's proposals; ``waiting`` keeps the close from being over."""

    kept: int = 0
    staged: Mapping[str, int] | None = None
    superseded: int = 0
    waiting: int = 0

    def plus(
        self, kept: int, states: Sequence[State], superseded: int, waiting: int
    ) -> StagingReport:
        """This report and one more batch."""
        staged = dict(self.staged or {})
        for state in states:
            staged[state] = staged.get(state, 0) + 1
        return StagingReport(
            self.kept + kept, staged, self.superseded + superseded, self.waiting + waiting
        )


class Staging:
    """Stages what closes propose."""

    def __init__(self, stores: StagingStores, clock: Clock) -> None:
        self._stores = stores
        self._clock = clock

    def stage(
        self,
        frame: StagingFrame,
        proposals: Iterable[Proposal],
        on_progress: Callable[[int], None] | None = None,
    ) -> StagingReport:
        """Stage each proposal once; repeating it with the same proposals changes nothing.

        Proposals are taken batch by batch, so that not all need to be in memory at once; the
        progress is how many have been. Business periods that an earlier close staged and this
        one no longer proposes are proposed empty, so that what was billed for them is credited.
        """
        report = StagingReport(staged={})
        done = 0
        for batch in _batches(self._with_vanished(frame, proposals)):
            report = self._stage_batch(frame, batch, report)
            done += len(batch)
            if on_progress is not None:
                on_progress(done)
        return report

    def _with_vanished(
        self, frame: StagingFrame, proposals: Iterable[Proposal]
    ) -> Iterator[Proposal]:
        proposed: set[BusinessPeriod] = set()
        for proposal in proposals:
            proposed.add(proposal.key)
            yield proposal
        yield from self._vanished(frame, proposed)

    def _vanished(self, frame: StagingFrame, proposed: Set[BusinessPeriod]) -> list[Proposal]:
        with self._stores.begin() as store:
            before = store.periods_staged_before(
                frame.purpose, frame.legal_entity, frame.accounting_period, frame.close
            )
            gone = [key for key in before if key not in proposed]
            priors = store.latest_revisions(frame.purpose, gone)
            staged = {key: store.get(priors[key].transaction) for key in gone}
        return [_empty(transaction, frame) for transaction in staged.values()]

    def _stage_batch(
        self, frame: StagingFrame, proposals: Sequence[Proposal], report: StagingReport
    ) -> StagingReport:
        now = self._clock.now()
        keys = [proposal.key for proposal in proposals]
        with self._stores.begin() as store:
            before = store.periods_staged(frame.purpose, keys)
            if before:
                store.lock_business_periods(frame.purpose, before)
            known = store.latest_revisions(frame.purpose, before)
            holdings = store.holdings(frame.purpose, before)
            revisions: list[tuple[Proposal, Revise, Holding, bool]] = []
            kept = waiting = 0
            for proposal in proposals:
                prior = known.get(proposal.key)
                holding = holdings.get(proposal.key, _NO_HOLDING)
                match next_revision(proposal, prior, holding, _renderer(frame, proposal, now)):
                    case Wait():
                        waiting += 1
                    case Keep():
                        kept += 1
                    case Revise() as revise:
                        withdrawn = prior is not None and prior.state is State.WITHDRAWN
                        revisions.append((proposal, revise, holding, withdrawn))
            superseded = [
                revise.supersedes.transaction
                for _, revise, _, _ in revisions
                if revise.supersedes is not None
            ]
            store.step_many(
                superseded,
                State.SUPERSEDED,
                f"close {frame.close} proposes otherwise",
                frame.requested_by,
                now,
            )
            states = self._add(store, frame, revisions, now)
            reach("close.batch.before_commit")
        return report.plus(kept, states, len(superseded), waiting)

    def _add(
        self,
        store: StagingStore,
        frame: StagingFrame,
        revisions: Sequence[tuple[Proposal, Revise, Holding, bool]],
        now: datetime,
    ) -> list[State]:
        if not revisions:
            return []
        ids = store.next_ids(len(revisions))
        transactions: list[StagedTransaction] = []
        steps: dict[TransactionId, Sequence[tuple[State, str]]] = {}
        approvals: list[RuleApproval] = []
        findings: list[Finding] = []
        for (proposal, revise, holding, withdrawn), id_ in zip(revisions, ids, strict=True):
            transaction, verdict = staged_from(
                frame, proposal, revise, holding, withdrawn, id_, now
            )
            transactions.append(transaction)
            steps[id_] = ((State.PROPOSED, f"close {frame.close}"), *verdict.steps)
            findings.extend(findings_of(transaction, verdict))
            if verdict.by_rule and transaction.document_hash is not None:
                approvals.append(
                    RuleApproval(
                        id_,
                        transaction.document_hash,
                        holding.cumulated + abs(transaction.due),
                        f"up to {frame.policy.automatic_up_to} {transaction.currency}",
                    )
                )
        store.add(transactions, steps, approvals)
        store.move_claims(transactions, now)
        superseded = [
            revise.supersedes.transaction
            for _, revise, _, _ in revisions
            if revise.supersedes is not None
        ]
        store.settle_exceptions_of(
            superseded,
            [finding.fact for finding in findings],
            now,
            why=f"close {frame.close} no longer finds it",
        )
        store.open_exceptions(findings, now)
        store.record_audit(
            AuditEntry(
                at=now,
                actor=frame.requested_by,
                action="transactions.staged",
                object_kind="close",
                object_id=str(frame.close),
                detail={
                    "first": transactions[0].id,
                    "last": transactions[-1].id,
                    "count": len(transactions),
                    "approved_by_rule": len(approvals),
                    "due": {
                        currency: sum(
                            (t.due for t in transactions if t.currency == currency), Decimal(0)
                        )
                        for currency in sorted({t.currency for t in transactions})
                    },
                },
                correlation_id=frame.correlation_id,
            )
        )
        return [transaction.state for transaction in transactions]


def _renderer(
    frame: StagingFrame, proposal: Proposal, now: datetime
) -> Callable[[tuple[TransactionLine, ...]], Document | None]:
    return lambda lines: _rendered(frame, proposal, lines, now)[0]


def _rendered(
    frame: StagingFrame, proposal: Proposal, lines: tuple[TransactionLine, ...], now: datetime
) -> tuple[Document | None, tuple[Problem, ...]]:
    today = now.astimezone(zone_info(proposal.zone)).date()
    prices: dict[str, Decimal | None] = {line.line: line.unit_price for line in proposal.lines}
    return render(proposal, lines, prices, frame.names, frame.config_digest, today)


def staged_from(
    frame: StagingFrame,
    proposal: Proposal,
    revise: Revise,
    holding: Holding,
    withdrawn: bool,
    id_: TransactionId,
    now: datetime,
) -> tuple[StagedTransaction, Verdict]:
    """The new revision, rendered and judged."""
    document, problems = _rendered(frame, proposal, revise.lines, now)
    verdict = first_verdict(revise.lines, document, problems, holding, frame.policy, withdrawn)
    key = PostingKeyParts(
        frame.installation,
        frame.environment,
        proposal.target,
        proposal.purpose,
        proposal.business_key,
        proposal.period.start,
        proposal.period.end,
        revise.revision,
    ).key()
    transaction = StagedTransaction(
        id=id_,
        posting_key=key,
        purpose=proposal.purpose,
        kind=proposal.kind,
        workflow=proposal.workflow,
        target=proposal.target,
        legal_entity=proposal.legal_entity,
        accounting_period=proposal.accounting_period,
        business_key=proposal.business_key,
        customer=proposal.customer,
        period=proposal.period,
        revision=revise.revision,
        close=proposal.close,
        state=verdict.state,
        currency=proposal.currency,
        amount=sum((line.amount for line in revise.lines), Decimal(0)),
        due=sum((line.due for line in revise.lines), Decimal(0)),
        document=document if verdict.state is not State.NOTHING_DUE else None,
        document_hash=document.hash
        if document is not None and verdict.state is not State.NOTHING_DUE
        else None,
        attempts=0,
        not_before=None,
        version=1,
        created_by=frame.requested_by,
        created_at=now,
        updated_at=now,
        correlation_id=frame.correlation_id,
        lines=revise.lines,
    )
    return transaction, verdict


def findings_of(transaction: StagedTransaction, verdict: Verdict) -> Iterator[Finding]:
    """One exception per thing that is missing, worth what the transaction would bill."""
    for problem in verdict.problems:
        yield Finding(
            reason=problem.code.replace("-", "_"),
            fact_kind="transaction",
            fact=f"{transaction.business_key}/{transaction.period.start:%Y-%m-%d}/{problem.where}",
            sentence=problem.sentence,
            suggestion=problem.hint,
            owner="engineer",
            legal_entity=transaction.legal_entity,
            accounting_period=transaction.accounting_period,
            estimate=abs(transaction.due),
            currency=transaction.currency,
            detail={"transaction": transaction.id, "where": problem.where},
        )


def _empty(transaction: StagedTransaction, frame: StagingFrame) -> Proposal:
    return Proposal(
        purpose=transaction.purpose,
        kind=transaction.kind,
        workflow=transaction.workflow,
        target=transaction.target,
        legal_entity=transaction.legal_entity,
        accounting_period=transaction.accounting_period,
        business_key=transaction.business_key,
        customer=transaction.customer,
        period=transaction.period,
        zone="UTC",
        currency=transaction.currency,
        payment_term=None,
        close=frame.close,
        lines=(),
    )


def _batches(proposals: Iterable[Proposal]) -> Iterator[Sequence[Proposal]]:
    rest = iter(proposals)
    while batch := list(islice(rest, BATCH)):
        yield batch
