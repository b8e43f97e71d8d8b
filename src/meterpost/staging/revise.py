"""The next revision of a business period, or none: pure decisions over values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from meterpost.core.ids import ContractLineId
from meterpost.core.problem import Problem
from meterpost.posting.model import Document
from meterpost.staging.model import (
    OPEN,
    ApprovalPolicy,
    Holding,
    PriorRevision,
    Proposal,
    State,
    TransactionLine,
)

#: A revision in these states may be on its way into the ERP: the next one waits for it.
IN_FLIGHT = frozenset({State.SENDING, State.IN_DOUBT})

#: How the reason of a revision begins that is held until somebody answers for a document.
AWAITS_ANSWER = "waits for an answer about"


@dataclass(frozen=True, slots=True)
class Wait:
    """The prior revision is in flight; ask again when it has landed."""

    prior: PriorRevision


@dataclass(frozen=True, slots=True)
class Keep:
    """The prior revision says the same."""

    prior: PriorRevision


@dataclass(frozen=True, slots=True)
class Revise:
    """A new revision is needed; ``supersedes`` is the open one it takes the place of."""

    revision: int
    lines: tuple[TransactionLine, ...]
    supersedes: PriorRevision | None


def next_revision(
    proposal: Proposal,
    prior: PriorRevision | None,
    holding: Holding,
    render: Callable[[tuple[TransactionLine, ...]], Document | None],
) -> Wait | Keep | Revise:
    """What to do with a proposal, given the latest revision and what the target holds.

    ``render`` writes the document of the lines, or None while something is missing for it.

    Due per line = absolute amount − what holds. Lines that hold something but are no longer
    proposed come with amount 0, so that what was billed for them is credited.
    """
    if prior is not None and prior.state in IN_FLIGHT:
        return Wait(prior)
    lines = with_dues(proposal, prior, holding)
    if prior is None:
        return Revise(1, lines, None)
    if (
        _same(lines, prior)
        and (prior.state not in OPEN or _same_document(prior, render(lines)))
        and not _to_judge_again(prior, holding)
    ):
        return Keep(prior)
    supersedes = prior if prior.state in OPEN else None
    return Revise(prior.revision + 1, lines, supersedes)


def with_dues(
    proposal: Proposal, prior: PriorRevision | None, holding: Holding
) -> tuple[TransactionLine, ...]:
    """The proposal's lines, and a zero line for each that holds money but is gone."""
    lines: list[TransactionLine] = []
    for line in proposal.lines:
        held = holding.lines.get(line.line, Decimal(0))
        lines.append(
            TransactionLine(
                ordinal=len(lines) + 1,
                line=line.line,
                meter=line.meter,
                usage_record=line.usage_record,
                item=line.item,
                description=line.description,
                unit=line.unit,
                quantity=line.quantity,
                included=line.included,
                charged=line.charged,
                price=line.price,
                amount=line.amount,
                held=held,
                due=line.amount - held,
                working=line.working,
                tax_category=line.tax_category,
                revenue_account=line.revenue_account,
                service=line.service,
            )
        )
    present = {line.line for line in proposal.lines}
    gone = {line: held for line, held in holding.lines.items() if held and line not in present}
    before = {line.line: line for line in prior.lines} if prior else {}
    for line_id, held in sorted(gone.items()):
        lines.append(_gone(before[line_id], len(lines) + 1, line_id, held))
    return tuple(lines)


def _gone(
    before: TransactionLine, ordinal: int, line: ContractLineId, held: Decimal
) -> TransactionLine:
    zero = Decimal(0)
    return TransactionLine(
        ordinal=ordinal,
        line=line,
        meter=None,
        usage_record=None,
        item=before.item,
        description=before.description,
        unit=before.unit,
        quantity=zero,
        included=zero,
        charged=zero,
        price=before.price,
        amount=zero,
        held=held,
        due=-held,
        working={"steps": [], "why": "the line no longer has this period"},
        tax_category=before.tax_category,
        revenue_account=before.revenue_account,
        service=before.service,
    )


def _same(lines: Sequence[TransactionLine], prior: PriorRevision) -> bool:
    """Whether the prior revision already states these lines, and nothing more is due.

    An open prior must have the same dues; a settled one has been posted, so nothing may be due.
    Ended revisions say nothing any more.
    """
    told = {
        (line.line, line.usage_record, line.amount, line.price): line.due for line in prior.lines
    }
    ours = {(line.line, line.usage_record, line.amount, line.price): line.due for line in lines}
    # A line that was credited to zero in the prior revision need not be named again.
    told = {key: due for key, due in told.items() if key in ours or key[2] != 0 or key[1]}
    if told.keys() != ours.keys():
        return False
    if prior.state in OPEN:
        return told == ours
    return prior.state not in {State.SUPERSEDED, State.REVERSED} and not any(ours.values())


def _to_judge_again(prior: PriorRevision, holding: Holding) -> bool:
    """Whether the prior revision waits for nothing any more, but was never judged since.

    Sending gave it back because its due had changed, and the due changed back; or it was held
    for an answer that has come. What a person refused or withdrew stays with that person.
    """
    if prior.state is State.PROPOSED:
        return True
    return (
        prior.state is State.HELD
        and prior.held_for.startswith(AWAITS_ANSWER)
        and not holding.unanswered
    )


def _same_document(prior: PriorRevision, document: Document | None) -> bool:
    """Whether the ERP would be told the same; the range of posting days may move on."""
    if prior.document is None or document is None:
        return prior.document is document
    return prior.document == replace(
        document, date_from=prior.document.date_from, date_to=prior.document.date_to
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a new revision stands at once, and the steps that led there with their reasons."""

    state: State
    steps: tuple[tuple[State, str], ...]
    problems: tuple[Problem, ...] = ()
    by_rule: bool = False


def first_verdict(
    lines: Sequence[TransactionLine],
    document: Document | None,
    problems: tuple[Problem, ...],
    holding: Holding,
    policy: ApprovalPolicy,
    withdrawn: bool = False,
) -> Verdict:
    """Nothing due, held with a reason, approved by rule, or in review."""
    if not any(line.due for line in lines):
        return _verdict(State.NOTHING_DUE, "the target holds what is due")
    if withdrawn:
        return _verdict(State.HELD, "an earlier revision was withdrawn; release it to bill again")
    if holding.unanswered:
        return _verdict(
            State.HELD,
            f"{AWAITS_ANSWER} {', '.join(holding.unanswered)}",
        )
    if document is None:
        return Verdict(
            State.HELD,
            ((State.HELD, "; ".join(problem.sentence for problem in problems)),),
            problems,
        )
    due = sum((line.due for line in lines), Decimal(0))
    gross_due = sum((abs(line.due) for line in lines), Decimal(0))
    if policy.automatic(max(abs(due), gross_due), holding.cumulated):
        return Verdict(
            State.APPROVED,
            ((State.APPROVED, f"cumulated amount within {policy.automatic_up_to}"),),
            by_rule=True,
        )
    return _verdict(State.IN_REVIEW, f"needs {policy.persons(due)} with role {policy.role}")


def _verdict(state: State, reason: str) -> Verdict:
    return Verdict(state, ((state, reason),))
