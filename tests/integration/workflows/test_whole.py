"""From events to the ledgers over the real stores: reconcile, trace, prove, balance."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from meterpost.core.ids import TargetId
from meterpost.staging.model import State
from meterpost.staging.review import Answer
from meterpost.workflows.close import Ask

from .conftest import APPROVER, Bench, usage

pytestmark = pytest.mark.integration


def reconcile(bench: Bench) -> None:
    bench.app.reconciler.run(TargetId("erp"), bench.app.connector("erp"))


def test_the_ledgers_balance_over_a_month_with_late_usage(bench: Bench) -> None:
    """Unknown subjects, duplicates, a posted document and its difference: unexplained is 0."""
    bench.send(usage("1", 900), usage("2", 50, subject="beta"))
    bench.send(usage("1", 900))
    bench.bill()
    bench.send(usage("3", 300))
    bench.bill(Ask.LATE)
    reconcile(bench)
    assert [each.state for each in bench.transactions()] == [State.RECONCILED, State.RECONCILED]
    balance = bench.app.ledgers.balance("2026-10")
    assert balance.unexplained == 0, balance.to_plain()


def test_every_line_is_proved_from_its_events(bench: Bench) -> None:
    """Re-metering and re-rating exactly the traced events gives quantity and amount."""
    bench.send(usage("1", 900), usage("2", 50, subject="beta"))
    bench.bill()
    report = bench.app.prover.prove_transaction(bench.latest().id)
    assert report.differences == ()
    assert report.events == 1
    close = bench.latest().close
    assert bench.app.prover.prove_close(close, replay=True).differences == ()
    assert bench.app.prover.prove_close(close + 1, replay=True).differences == ()


def test_a_reference_leads_both_ways(bench: Bench) -> None:
    """An event's id leads to its document, and the document's id to the event."""
    bench.send(usage("ev-1", 900))
    bench.bill()
    down = bench.app.tracer.trace("event:ev-1")
    [document] = bench.erp.committed()
    up = bench.app.tracer.trace(f"document:{document.id}")
    assert [each.id for each in down.transactions] == [each.id for each in up.transactions]
    assert "ev-1" in str(up.to_plain())


def test_a_clerks_edit_waits_for_an_answer(bench: Bench) -> None:
    """An edited draft holds later revisions; accepting it counts the ERP's amount from then on."""
    bench.send(usage("1", 900))
    first = bench.bill()
    [(at, document)] = bench.erp.documents.values()
    line = replace(document.lines[0], unit_price=Decimal("8.00"), net=Decimal("8.00"))
    bench.erp.documents[document.id] = (
        at,
        replace(document, net=Decimal("8.00"), lines=(line,)),
    )
    reconcile(bench)
    assert len(bench.exceptions("document_edited")) == 1
    bench.send(usage("2", 100))
    bench.close(Ask.LATE)
    assert bench.latest().state is State.HELD
    bench.app.review.answer_receipt(first.id, Answer.ACCEPT, APPROVER, "agreed with the customer")
    assert bench.exceptions("document_edited") == []
    bench.send(usage("3", 100))
    bench.close(Ask.LATE)
    # 10.50 in all; 9.00 count as billed although the ERP holds 8.00, by agreement.
    assert bench.latest().due == Decimal("1.50")
    assert bench.latest().state is State.IN_REVIEW


def test_what_waited_for_an_answer_is_judged_once_it_came(bench: Bench) -> None:
    """A deleted draft holds the next revision; restating lets it go without any new usage."""
    bench.send(usage("1", 900))
    first = bench.bill()
    bench.erp.documents.clear()
    bench.clock.advance(timedelta(minutes=5))
    reconcile(bench)
    assert len(bench.exceptions("document_missing")) == 1
    bench.send(usage("2", 100))
    bench.close(Ask.LATE)
    assert (bench.latest().state, bench.latest().due) == (State.HELD, Decimal("10.00"))
    bench.app.review.answer_receipt(first.id, Answer.RESTATE, APPROVER, "deleted by mistake")
    bench.close(Ask.LATE)
    assert (bench.latest().state, bench.latest().due) == (State.IN_REVIEW, Decimal("10.00"))


def test_what_a_person_refused_stays_refused(bench: Bench) -> None:
    """Running the close again does not bring a refused document back into review."""
    bench.send(usage("1", 900))
    bench.close()
    waiting = bench.latest()
    assert waiting.document_hash is not None
    policy = bench.app.workspace.workflows[0].approval
    bench.app.review.reject(waiting.id, waiting.document_hash, APPROVER, policy, "wrong price")
    bench.close(Ask.RESOLVED)
    assert bench.latest().id == waiting.id
    assert bench.latest().state is State.HELD
