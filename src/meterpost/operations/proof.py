"""Proof: compare with the ERP, follow a reference both ways, run it again, balance the ledgers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from meterpost.access.model import Scope, require
from meterpost.core.errors import InvalidInput, NotFound
from meterpost.operations.arguments import AccountingPeriod, ExternalId, Name
from meterpost.operations.connections import connection_names
from meterpost.operations.registry import Context, operation
from meterpost.reconcile.model import DocumentReport, ReconcileReport
from meterpost.reconcile.trace_text import trace_lines

#: Transactions proved by one request.
PROVED_MAX = 200


@dataclass(frozen=True)
class RunReconcile:
    """One connection or all."""

    connection: Name | None = None


@operation(
    "reconcile.run",
    scope=Scope.RECONCILE_RUN,
    summary="Compare every receipt with what the ERP holds, and look for documents without one.",
)
def run_reconcile(context: Context, asked: RunReconcile) -> object:
    """``clean``: everything of ours is in the ERP as sent, and nothing else of ours is."""
    return reconcile_all(context, asked.connection)


def reconcile_all(context: Context, connection: str | None) -> dict[str, object]:
    """The report of each connection, as plain JSON."""
    app = context.app
    reports = []
    for name in connection_names(context, connection):
        config = app.connection(name)
        reports.append(
            app.reconciler.run(
                config.name,
                app.connector(name),
                on_progress=lambda done, total: context.progress("documents", done, total),
            )
        )
    return {
        "clean": all(report.clean for report in reports),
        "connections": [_reconciled(report) for report in reports],
    }


def _reconciled(report: ReconcileReport) -> dict[str, object]:
    return {
        "connection": report.connection,
        "clean": report.clean,
        "counts": report.counts(),
        "steps": report.steps,
        "documents": [_document(document) for document in report.documents],
    }


def _document(report: DocumentReport) -> dict[str, object]:
    return {
        "document": report.document_id,
        "number": report.number,
        "posting_key": report.key,
        "transaction": report.transaction,
        "contract": report.business_key,
        "state": report.state,
        "verdict": report.verdict,
        "currency": report.currency,
        "ours": report.ours,
        "theirs": report.theirs,
        "held": report.held,
        "amounts": report.amounts,
        "lines": report.lines,
        "differences": report.differences,
        "answer": report.answer,
    }


@dataclass(frozen=True)
class TraceReference:
    """``ref``: an event id, a subject, a posting key, a document number or a transaction id;
    ``event:``, ``subject:``, ``key:``, ``document:``, ``transaction:`` or ``correlation:``
    before it says which. ``reveal`` shows personal subjects in clear.
    """

    ref: ExternalId
    source: ExternalId | None = None
    events: Annotated[int, Field(ge=0, le=1_000)] = 20
    reveal: bool = False


@operation(
    "trace",
    scope=Scope.TRANSACTIONS_READ,
    summary="Everything a reference leads to: down to the events, up to the ERP document.",
    needs_events=True,
)
def trace(context: Context, asked: TraceReference) -> object:
    """``text`` is the same as a tree for people."""
    if asked.reveal:
        require(context.principal, Scope.MASTERDATA_WRITE)
    found = context.app.tracer.trace(
        asked.ref, source=asked.source, events_max=asked.events, reveal=asked.reveal
    )
    return {**found.to_plain(), "text": trace_lines(found)}


@dataclass(frozen=True)
class ProveReference:
    """As for `trace`, or ``record:ID``, ``close:ID``. ``replay`` reads the events of a close
    one by one, too.
    """

    ref: ExternalId
    replay: bool = False


@operation(
    "prove",
    scope=Scope.TRANSACTIONS_READ,
    summary="Run meter and price again over exactly the events listed, and compare.",
    needs_events=True,
)
def prove(context: Context, asked: ProveReference) -> object:
    """``proved`` is false with any difference; each names what is stored and what came out."""
    witness = context.app
    kind, _, name = asked.ref.partition(":")
    if kind in {"record", "close"} and not name.isdigit():
        raise InvalidInput(f"{asked.ref!r} names no {kind}.", hint=f"Write {kind}:4711.")

    def progress(done: int, total: int) -> None:
        context.progress("records", done, total)

    prover = witness.prover
    if kind == "record":
        reports = [prover.prove_record(int(name), progress)]
    elif kind == "close":
        reports = [prover.prove_close(int(name), replay=asked.replay, on_progress=progress)]
    else:
        found = witness.tracer.trace(asked.ref, events_max=0)
        focused = [each.id for each in found.transactions if each.focus]
        records = [] if focused else [record.id for record in found.records]
        if not focused and not records:
            raise NotFound(f"{asked.ref} has led to nothing yet that could be proved.")
        reports = [prover.prove_transaction(id_, progress) for id_ in focused[:PROVED_MAX]]
        reports += [prover.prove_record(id_, progress) for id_ in records[:PROVED_MAX]]
    return {
        "proved": all(report.proved for report in reports),
        "reports": [report.to_plain() for report in reports],
    }


@dataclass(frozen=True)
class BalancePeriod:
    """All legal entities of the period, or some."""

    period: AccountingPeriod
    entities: Annotated[tuple[Name, ...], Field(max_length=1_000)] = ()


@operation(
    "balance",
    scope=Scope.TRANSACTIONS_READ,
    summary="The four ledgers of an accounting period and the bridges between them.",
    needs_events=True,
)
def balance(context: Context, asked: BalancePeriod) -> object:
    """``unexplained`` is 0 where everything is accounted for."""
    return context.app.ledgers.balance(asked.period, asked.entities).to_plain()
