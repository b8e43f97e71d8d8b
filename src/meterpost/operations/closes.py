"""Closes: run one, and look at those there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meterpost.access.model import Scope
from meterpost.core.errors import InvalidInput
from meterpost.core.ids import LegalEntityId
from meterpost.operations.arguments import (
    AccountingPeriod,
    Cursor,
    Id,
    Limit,
    Name,
    number_after,
    page,
)
from meterpost.operations.registry import Context, operation
from meterpost.storage.postgres import listing
from meterpost.workflows.close import Ask, CloseReport


@dataclass(frozen=True)
class RunClose:
    """``ask``: latest (finish or show the last one), resolved (same events, today's master
    data), late (events that came since, too). Workflow and legal entity can be left out where
    there is one of each.
    """

    period: AccountingPeriod
    entity: Name | None = None
    workflow: Name | None = None
    ask: Ask = Ask.LATEST


@operation(
    "close.run",
    scope=Scope.CLOSES_RUN,
    summary="Close an accounting period of a legal entity: usage, amounts, staged transactions.",
    needs_events=True,
    creates=True,
)
def run_close(context: Context, asked: RunClose) -> object:
    """Running the same close again changes nothing; one that broke off is finished."""
    return run(context, asked.workflow, asked.entity, asked.period, asked.ask)


def run(
    context: Context, workflow: str | None, entity: str | None, period: str, ask: Ask
) -> dict[str, object]:
    """A close and what running it did, as plain JSON."""
    app = context.app
    report = app.closing.run(
        app.configuration(_workflow(context, workflow)),
        LegalEntityId(_entity(context, entity)),
        period,
        ask=ask,
        actor=context.principal.user,
        correlation_id=context.correlation_id,
        on_progress=context.progress,
    )
    return _report(report)


def _workflow(context: Context, given: str | None) -> str:
    if given is not None:
        return given
    names = [workflow.name for workflow in context.app.workspace.workflows]
    if len(names) != 1:
        raise InvalidInput(
            "Say which workflow to close by.", hint=f"Configured: {', '.join(names) or 'none'}."
        )
    return names[0]


def _entity(context: Context, given: str | None) -> str:
    if given is not None:
        return given
    with context.app.database.begin() as connection:
        names = listing.legal_entities(connection)
    if len(names) != 1:
        raise InvalidInput(
            "Say which legal entity to close.", hint=f"Known: {', '.join(names) or 'none'}."
        )
    return names[0]


def _report(report: CloseReport) -> dict[str, object]:
    close = report.close
    staging = report.staging
    return {
        "close": {
            "id": close.id,
            "n": close.n,
            "workflow": close.workflow,
            "purpose": close.purpose,
            "legal_entity": close.legal_entity,
            "accounting_period": close.accounting_period,
            "basis": close.basis,
            "state": close.state,
            "cutoff": close.cutoff.to_plain(),
            "masterdata_rev": close.masterdata_rev,
            "config_digest": close.config_digest,
            "requested_by": close.requested_by,
            "requested_at": close.requested_at,
            "counts": close.counts,
        },
        "ran": report.ran,
        "lines": report.lines,
        "records": report.records,
        "exceptions": report.exceptions,
        "staging": None
        if staging is None
        else {
            "staged": staging.staged or {},
            "kept": staging.kept,
            "superseded": staging.superseded,
            "waiting": staging.waiting,
        },
        "unassigned": None if report.unassigned is None else _report(report.unassigned),
    }


@dataclass(frozen=True)
class ListCloses:
    """Newest first; ``entity`` can be ``unassigned``, for usage that nobody owns."""

    entity: Name | None = None
    period: AccountingPeriod | None = None
    workflow: Name | None = None
    cursor: Cursor | None = None
    limit: Limit = 100


@operation("close.list", scope=Scope.TRANSACTIONS_READ, summary="Closes, newest first.")
def list_closes(context: Context, asked: ListCloses) -> object:
    """With what each counted."""
    with context.app.database.begin() as connection:
        rows = listing.closes(
            connection,
            asked.entity,
            asked.period,
            asked.workflow,
            number_after(asked.cursor),
            asked.limit + 1,
        )
    return page(rows, asked.limit, lambda row: row["id"])


@dataclass(frozen=True)
class ShowClose:
    """One close."""

    id: Id


@operation(
    "close.show",
    scope=Scope.TRANSACTIONS_READ,
    summary="A close with its transactions and open exceptions in numbers.",
)
def show_close(context: Context, asked: ShowClose) -> object:
    """The transactions are those it staged; the exceptions those of its entity and period."""
    with context.app.database.begin() as connection:
        row = listing.close(connection, asked.id)
        staged = listing.transaction_sums(connection, listing.TransactionFilter(close=asked.id))
        open_: list[Mapping[str, object]] = [
            *listing.exception_groups(
                connection,
                listing.ExceptionFilter(
                    legal_entity=row["legal_entity"], accounting_period=row["accounting_period"]
                ),
            )
        ]
    return {**row, "transactions": staged, "exceptions": open_}
