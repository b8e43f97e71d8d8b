"""Reads our documents back from an ERP and writes down what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TypeVar

from meterpost.audit.model import AuditEntry
from meterpost.core.clock import Clock
from meterpost.core.errors import Transient
from meterpost.core.ids import ReceiptId, TargetId
from meterpost.posting.connector import ErpConnector
from meterpost.posting.model import DocumentState, ErpDocument
from meterpost.reconcile.model import (
    Comparison,
    DocumentReport,
    Judgement,
    ReceiptState,
    ReconcileReport,
    StoredReceipt,
    Verdict,
    judge,
    report_on,
)
from meterpost.reconcile.ports import ReconcileStore, ReconcileStores
from meterpost.staging.model import Finding, State

BATCH = 100
#: Times one request to the ERP is made before a run gives up.
ATTEMPTS_MAX = 5
#: Documents are looked for this many days before the first receipt and after now.
MARGIN_DAYS = 62

EDITED, MISSING, CANCELLED = "document_edited", "document_missing", "document_cancelled"
WITHOUT_RECEIPT = "document_without_receipt"
_STORED_DIFFERENTLY = "stored_differently"
_REASONS = {
    ReceiptState.EDITED: EDITED,
    ReceiptState.MISSING: MISSING,
    ReceiptState.CANCELLED: CANCELLED,
}
_ANSWERS = (
    "Answer `accept` (the ERP's amounts stand, later usage is billed on top), `restate` (the next "
    "close posts the difference) or `withdraw` (later revisions wait)."
)
#: A document that turns up while its transaction is in one of these states is on its way.
_IN_FLIGHT = frozenset({State.SENDING, State.IN_DOUBT})

OnProgress = Callable[[int, int], None]
_T = TypeVar("_T")


class Reconciler:
    """Compares receipts with what an ERP holds."""

    def __init__(self, stores: ReconcileStores, clock: Clock, *, actor: str = "reconcile") -> None:
        self._stores = stores
        self._clock = clock
        self._actor = actor

    def run(
        self,
        connection: TargetId,
        connector: ErpConnector,
        now: datetime | None = None,
        on_progress: OnProgress | None = None,
    ) -> ReconcileReport:
        """Every receipt of the connection compared, and documents of ours without a receipt.

        Each batch is written on its own: a run that breaks off leaves what it saw, and the next
        run sees the rest. ``on_progress`` gets (documents done, receipts in all).

        Raises: Transient when the ERP stays away; NotAuthenticated, NotAllowed, Permanent.
        """
        now = now or self._clock.now()
        reports: list[DocumentReport] = []
        steps: Counter[str] = Counter()
        with self._stores.begin() as store:
            total = store.count(connection)
        for page in self._pages(connection):
            documents = self._ask(connector.read, [receipt.document_id for receipt in page])
            reports += self._write(page, documents, connector, now, steps)
            if on_progress is not None:
                on_progress(len(reports), max(total, len(reports)))
        reports += self._strangers(connection, connector, now)
        report = ReconcileReport(connection, tuple(reports), dict(steps))
        with self._stores.begin() as store:
            store.record_audit(
                AuditEntry(
                    now,
                    self._actor,
                    "connection.reconciled",
                    "connection",
                    connection,
                    {"documents": report.counts(), "steps": dict(steps)},
                )
            )
        return report

    def _pages(self, connection: TargetId) -> Iterator[Sequence[StoredReceipt]]:
        after = ReceiptId(0)
        while True:
            with self._stores.begin() as store:
                page = store.page(connection, after, BATCH)
            if not page:
                return
            yield page
            after = page[-1].id

    def _write(
        self,
        page: Sequence[StoredReceipt],
        documents: Mapping[str, ErpDocument],
        connector: ErpConnector,
        now: datetime,
        steps: Counter[str],
    ) -> list[DocumentReport]:
        reports = []
        hidden_s = timedelta(seconds=connector.capabilities.certain_absence_s)
        with self._stores.begin() as store:
            for stored in store.lock([receipt.id for receipt in page]):
                theirs = documents.get(stored.document_id)
                if theirs is None and now < stored.created_at + hidden_s:
                    reports.append(_hidden(stored))
                    continue
                judgement = judge(stored, theirs)
                store.write(stored, judgement, now)
                self._move(store, stored, judgement, now, steps)
                self._settle(store, stored, judgement, now)
                reports.append(report_on(stored, judgement))
        return reports

    def _move(
        self,
        store: ReconcileStore,
        stored: StoredReceipt,
        judgement: Judgement,
        now: datetime,
        steps: Counter[str],
    ) -> None:
        """Posted ⇄ reconciled by the comparison alone; reversed is left to corrections of ours."""
        equal = judgement.comparison is Comparison.EQUAL
        wanted = State.RECONCILED if equal else State.POSTED
        if stored.transaction_state is not wanted and stored.transaction_state in {
            State.POSTED,
            State.RECONCILED,
        }:
            why = (
                f"document {stored.document_id} is in the ERP as sent"
                if equal
                else f"document {stored.document_id} is {judgement.state} in the ERP"
            )
            store.step(stored, wanted, why, self._actor, now)
            steps[wanted] += 1

    def _settle(
        self, store: ReconcileStore, stored: StoredReceipt, judgement: Judgement, now: datetime
    ) -> None:
        open_reason = None
        if judgement.state.needs_answer and judgement.answer is None:
            open_reason = _REASONS[judgement.state]
            store.open_exceptions([_finding(open_reason, stored, judgement)], now)
        over = [reason for reason in _REASONS.values() if reason != open_reason]
        # One fact, one exception: the worklist's answer replaces what posting saw on the way.
        if open_reason is not None or not judgement.state.needs_answer:
            over.append(_STORED_DIFFERENTLY)
        for reason in over:
            why = (
                "the ERP shows it as sent"
                if not judgement.state.needs_answer
                else f"it is {judgement.state} now"
            )
            store.close_exceptions(reason, [stored.key], now, by=self._actor, why=why)
        if not judgement.says(stored):
            store.record_audit(
                AuditEntry(
                    now,
                    self._actor,
                    f"receipt.{judgement.state}",
                    "transaction",
                    str(stored.transaction),
                    {
                        "posting_key": stored.key,
                        "document": stored.document_id,
                        "was": stored.state,
                        "held": judgement.held_net,
                        "differences": [str(each) for each in judgement.differences],
                        "answer_reset": stored.answer if judgement.answer is None else None,
                    },
                    stored.correlation_id,
                )
            )

    def _strangers(
        self, connection: TargetId, connector: ErpConnector, now: datetime
    ) -> list[DocumentReport]:
        """Documents with a posting key of ours that no receipt knows, unless cancelled."""
        with self._stores.begin() as store:
            first = store.first_day(connection)
        margin = timedelta(days=MARGIN_DAYS)
        window = (first or now.date()) - margin, now.date() + margin
        found = self._ask(_listed, (connector, *window))
        alive = {doc.id: doc for doc in found if doc.state is not DocumentState.CANCELLED}
        prefix = f"{connection}/"
        with self._stores.begin() as store:
            known = store.known_documents(connection, alive.keys())
            strange = [doc for number, doc in alive.items() if number not in known]
            states = store.transaction_states([str(doc.reference) for doc in strange])
            strange = [d for d in strange if states.get(str(d.reference)) not in _IN_FLIGHT]
            store.open_exceptions(
                [_stranger_finding(prefix, doc, states.get(str(doc.reference))) for doc in strange],
                now,
            )
            still = {prefix + doc.id for doc in strange}
            gone = store.open_facts(WITHOUT_RECEIPT, prefix) - still
            store.close_exceptions(
                WITHOUT_RECEIPT, gone, now, by=self._actor, why="the ERP holds it no longer"
            )
        return [
            DocumentReport(
                doc.id,
                doc.number,
                str(doc.reference),
                None,
                "",
                None,
                Verdict.UNKNOWN,
                doc.currency,
                doc.net,
                (),
                (),
                ("no receipt of ours names this document",),
            )
            for doc in strange
        ]

    def _ask(self, question: Callable[..., _T], argument: object) -> _T:
        """The answer, asked again while the ERP is busy or away, a limited number of times."""
        for attempt in range(1, ATTEMPTS_MAX):
            try:
                return question(argument)
            except Transient as exc:
                self._clock.sleep(exc.after_s or float(2**attempt))
        return question(argument)


def _listed(asked: tuple[ErpConnector, date, date]) -> list[ErpDocument]:
    connector, first, last = asked
    return list(connector.records(first, last))


def _hidden(stored: StoredReceipt) -> DocumentReport:
    return DocumentReport(
        stored.document_id,
        stored.number,
        stored.key,
        stored.transaction,
        stored.business_key,
        stored.state,
        Verdict.HIDDEN,
        stored.ours.currency,
        stored.held_net,
    )


def _finding(reason: str, stored: StoredReceipt, judgement: Judgement) -> Finding:
    name = f"Document {stored.document_id}" + (f" ({stored.number})" if stored.number else "")
    sent = f"sent {stored.ours.net} {stored.ours.currency}"
    theirs = judgement.document
    match judgement.state:
        case ReceiptState.MISSING:
            sentence = f"{name} of {stored.business_key} is no longer in the ERP: {sent}."
        case ReceiptState.CANCELLED:
            sentence = f"{name} of {stored.business_key} was cancelled in the ERP: {sent}."
        case _:
            listed = "; ".join(map(str, judgement.differences))
            sentence = f"{name} of {stored.business_key} was changed in the ERP: {listed}."
    return Finding(
        reason=reason,
        fact_kind="transaction",
        fact=stored.key,
        sentence=sentence,
        suggestion=_ANSWERS,
        owner="finance",
        legal_entity=stored.legal_entity,
        accounting_period=stored.accounting_period,
        estimate=judgement.held_net - sum((e.posted for e in stored.lines.values()), Decimal(0)),
        currency=stored.ours.currency,
        detail={
            "transaction": stored.transaction,
            "document": stored.document_id,
            "number": theirs.number if theirs else stored.number,
            "answers": ["accept", "restate", "withdraw"],
            "net": {"ours": stored.ours.net, "theirs": theirs.net if theirs else None},
            "lines": {
                line: {"ours": each.posted, "theirs": judgement.held[line]}
                for line, each in stored.lines.items()
            },
            "differences": [str(each) for each in judgement.differences],
        },
    )


def _stranger_finding(prefix: str, document: ErpDocument, state: State | None) -> Finding:
    whose = f"its transaction is {state}" if state is not None else "no transaction has that key"
    return Finding(
        reason=WITHOUT_RECEIPT,
        fact_kind="document",
        fact=prefix + document.id,
        sentence=(
            f"The ERP holds document {document.id} with our reference {document.reference} over "
            f"{document.net} {document.currency}, and no receipt knows it: {whose}."
        ),
        suggestion="Cancel it in the ERP, or find out who created it under our reference.",
        owner="finance",
        estimate=document.net,
        currency=document.currency,
        detail={"document": document.id, "reference": document.reference, "net": document.net},
    )
