"""Closes over the real stores: golden cases and what repeating them changes."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from meterpost.core.errors import Conflict, NotAllowed
from meterpost.staging.model import ApprovalPolicy, State
from meterpost.workflows.close import Ask
from meterpost.workflows.model import Basis, CloseState

from .conftest import APPROVER, MASTERDATA, Bench, Someone, usage

pytestmark = pytest.mark.integration


def test_usage_becomes_one_staged_transaction(bench: Bench) -> None:
    """A contract's usage is metered, rated and staged for review with its working."""
    bench.send(usage("1", 800), usage("2", 700, day=9))
    report = bench.close()
    assert report.close.state is CloseState.STAGED
    transaction = bench.latest()
    assert transaction.state is State.IN_REVIEW
    assert transaction.amount == Decimal("12.50")
    assert transaction.lines[0].quantity == 1500
    assert transaction.document is not None
    assert transaction.document.customer == "E-1"


def test_the_same_close_again_changes_nothing(bench: Bench) -> None:
    """Asking for the latest close again runs nothing and stages nothing."""
    bench.send(usage("1", 800))
    first = bench.close()
    before = bench.transactions()
    bench.send(usage("2", 100))
    again = bench.close()
    assert not again.ran
    assert again.close == first.close
    assert bench.transactions() == before


def test_late_usage_is_posted_as_the_difference(bench: Bench) -> None:
    """A late event restates the absolute amount; only the marginal tier's difference is due."""
    bench.send(usage("1", 900))
    assert bench.bill().state is State.POSTED
    bench.send(usage("2", 300))
    report = bench.close(Ask.LATE)
    assert report.close.basis is Basis.LATE
    second = bench.latest()
    assert (second.revision, second.amount, second.due) == (2, Decimal("11.00"), Decimal("2.00"))
    bench.approve()
    bench.post()
    assert [document.net for document in bench.erp.committed()] == [
        Decimal("9.00"),
        Decimal("2.00"),
    ]


def test_resolving_an_exception_lets_exactly_the_held_usage_flow(bench: Bench) -> None:
    """An unknown subject waits with its events and an estimate; linking it bills only that."""
    bench.send(usage("1", 900), usage("2", 50, subject="beta"))
    bench.bill()
    [waiting] = bench.exceptions("unmatched_subject")
    assert waiting["records"] == 1
    assert waiting["estimate"] == Decimal("0.50")
    bench.load(
        "crosswalk: [{system: //api.test, kind: subject, external_id: beta, canonical_id: S-1}]"
    )
    bench.send(usage("3", 5000))
    report = bench.close(Ask.RESOLVED)
    assert report.close.basis is Basis.MASTERDATA
    assert bench.exceptions("unmatched_subject") == []
    second = bench.latest()
    assert second.lines[0].quantity == 950
    assert second.due == Decimal("0.50")


def test_a_hand_over_in_mid_month_splits_to_the_hour(bench: Bench) -> None:
    """Usage before the hour belongs to the old customer, from it on to the new one; a late
    event from before the hand-over revises the old one only.
    """
    bench.load(
        """
        customers: [{id: globex, name: Globex, tax_category: domestic}]
        contracts:
          - id: C-2
            customer: globex
            legal_entity: acme
            lines:
              - {id: L2-tokens, meter: tokens, item: tokens,
                 price: {model: per_unit, unit_price: "0.02"}}
        subscriptions: [{id: S-2, contract: C-2}]
        crosswalk:
          - {system: //api.test, kind: subject, external_id: alpha, canonical_id: S-2,
             valid_from: 2026-10-15T14:00:00Z}
          - {system: erp, kind: customer, external_id: E-2, canonical_id: globex}
        """
    )
    bench.send(
        usage("1", 100, day=15, hour=13),
        usage("2", 200, day=15, hour=14),
        usage("3", 300, day=20),
    )
    bench.bill()
    assert bench.latest("C-1").amount == Decimal("1.00")
    assert bench.latest("C-2").amount == Decimal("10.00")
    bench.send(usage("4", 40, day=15, hour=13))
    bench.close(Ask.LATE)
    assert (bench.latest("C-1").revision, bench.latest("C-1").due) == (2, Decimal("0.40"))
    assert bench.latest("C-2").revision == 1


def test_flat_fees_and_minimums_bill_without_usage(bench: Bench) -> None:
    """Every line in force has a usage record, zero included."""
    bench.load(
        """
        items: [{id: fee, name: Platform fee, unit: month}]
        contract_lines:
          - {id: L-fee, contract: C-1, item: fee, price: fee}
          - {id: L-calls, contract: C-1, meter: calls, item: calls, price: calls}
        prices:
          - {id: fee, currency: EUR, model: flat, flat_amount: "49.00"}
          - {id: calls, currency: EUR, model: per_unit, unit_price: "0.10", minimum: "5.00"}
        crosswalk: [{system: erp, kind: item, external_id: E-FEE, canonical_id: fee}]
        """
    )
    report = bench.close()
    assert report.lines == 3
    assert {line.line: line.amount for line in bench.latest().lines} == {
        "L-tokens": 0,
        "L-fee": Decimal("49.00"),
        "L-calls": Decimal("5.00"),
    }


def test_a_line_without_price_waits_and_the_others_go(bench: Bench) -> None:
    """The priced line is billed; the unpriced one is an exception until a price comes."""
    bench.load("contract_lines: [{id: L-calls, contract: C-1, meter: calls, item: calls}]")
    bench.send(usage("1", 100))
    bench.bill()
    [waiting] = bench.exceptions("no_price")
    assert "L-calls" in str(waiting["fact"])
    assert bench.latest().amount == Decimal("1.00")
    bench.load(
        """
        prices: [{id: calls, currency: EUR, model: per_unit, unit_price: "2.00"}]
        contract_lines: [{id: L-calls, contract: C-1, meter: calls, item: calls, price: calls}]
        """
    )
    bench.close(Ask.RESOLVED)
    assert bench.exceptions("no_price") == []
    assert bench.latest().due == Decimal("2.00")


def test_an_unmapped_customer_holds_the_transaction_until_it_is_linked(
    make_bench: Callable[..., Bench],
) -> None:
    """Without the ERP's id no document can be written; the link makes the next revision whole."""
    bench = make_bench()
    bench.load(
        MASTERDATA.replace(
            "  - {system: erp, kind: customer, external_id: E-1, canonical_id: initech}\n", ""
        )
    )
    bench.send(usage("1", 100))
    bench.close()
    assert bench.latest().state is State.HELD
    assert len(bench.exceptions("unmapped_customer")) == 1
    bench.load(
        "crosswalk: [{system: erp, kind: customer, external_id: E-1, canonical_id: initech}]"
    )
    bench.close(Ask.RESOLVED)
    assert [each.state for each in bench.transactions()] == [State.SUPERSEDED, State.IN_REVIEW]
    assert bench.exceptions("unmapped_customer") == []


def test_usage_that_moves_away_is_credited(bench: Bench) -> None:
    """A corrected link makes a new revision for the line it leaves and the line it enters; the
    first is a credit below zero.
    """
    bench.load(
        """
        customers: [{id: globex, name: Globex, tax_category: domestic}]
        contracts:
          - id: C-2
            customer: globex
            legal_entity: acme
            lines:
              - {id: L2-tokens, meter: tokens, item: tokens,
                 price: {model: per_unit, unit_price: "0.02"}}
        subscriptions: [{id: S-2, contract: C-2}]
        crosswalk: [{system: erp, kind: customer, external_id: E-2, canonical_id: globex}]
        """
    )
    bench.send(usage("1", 100))
    bench.bill()
    bench.load(
        "crosswalk: [{system: //api.test, kind: subject, external_id: alpha, canonical_id: S-2}]"
    )
    bench.bill(Ask.RESOLVED)
    assert bench.latest("C-1").due == Decimal("-1.00")
    assert bench.latest("C-2").due == Decimal("2.00")
    assert sum(document.net for document in bench.erp.committed()) == Decimal("2.00")


def test_small_amounts_are_approved_by_rule_until_they_add_up(
    make_bench: Callable[..., Bench],
) -> None:
    """The automatic limit counts everything it let through for the same contract and period."""
    bench = make_bench(ApprovalPolicy(automatic_up_to=Decimal("5.00")))
    bench.load(MASTERDATA)
    bench.send(usage("1", 300))
    bench.close()
    assert bench.latest().state is State.APPROVED
    bench.post()
    bench.send(usage("2", 150))
    bench.close(Ask.LATE)
    assert bench.latest().state is State.APPROVED
    bench.post()
    bench.send(usage("3", 100))
    bench.close(Ask.LATE)
    assert bench.latest().state is State.IN_REVIEW


def test_four_eyes(make_bench: Callable[..., Bench]) -> None:
    """Who closed, who configured and who lacks the role may not approve; large amounts take two."""
    bench = make_bench(ApprovalPolicy(four_eyes_from=Decimal("1.00")))
    bench.load(MASTERDATA)
    bench.send(usage("1", 900))
    bench.close()
    waiting = bench.latest()
    assert waiting.document_hash is not None
    policy = bench.app.workspace.workflows[0].approval
    for user, roles in (("carol", {"approver"}), ("ed", {"approver"}), ("vic", {"viewer"})):
        with pytest.raises(NotAllowed):
            bench.app.review.approve(
                waiting.id, waiting.document_hash, Someone(user, frozenset(roles)), policy
            )
    with pytest.raises(Conflict):
        bench.app.review.approve(waiting.id, "another", APPROVER, policy)
    first = bench.app.review.approve(waiting.id, waiting.document_hash, APPROVER, policy)
    assert first.state is State.IN_REVIEW
    with pytest.raises(Conflict):
        bench.app.review.approve(waiting.id, waiting.document_hash, APPROVER, policy)
    second = Someone("bob", frozenset({"approver"}))
    assert (
        bench.app.review.approve(waiting.id, waiting.document_hash, second, policy).state
        is State.APPROVED
    )


def test_an_open_revision_is_superseded_by_the_next(bench: Bench) -> None:
    """A document nobody posted gives way to the one that includes the late usage."""
    bench.send(usage("1", 100))
    bench.close()
    bench.send(usage("2", 100))
    bench.close(Ask.LATE)
    assert [each.state for each in bench.transactions()] == [State.SUPERSEDED, State.IN_REVIEW]
    assert bench.latest().due == Decimal("2.00")


def test_a_negative_quantity_is_an_exception_not_a_charge(bench: Bench) -> None:
    """A line whose usage is below zero is not billed and says why."""
    bench.send(usage("1", -100))
    bench.close()
    [waiting] = bench.exceptions("no_price")
    assert "negative" in str(waiting["sentence"]).lower() or "below zero" in str(
        waiting["sentence"]
    )
    assert bench.transactions() == []


def test_a_period_that_has_not_ended_is_not_closed(bench: Bench) -> None:
    """The answer says when it ends."""
    bench.load("accounting_periods: [{legal_entity: acme, id: 2026-11}]")
    with pytest.raises(Conflict, match="ends 2026-12-01"):
        bench.close(period="2026-11")


def test_the_calculation_repeats_bit_for_bit(bench: Bench) -> None:
    """The frame of an old close gives the old result after later events and master data."""
    bench.send(usage("1", 900), usage("2", 7, subject="beta"))
    first = bench.close().close
    before = bench.app.closing.calculation(first, lambda *_: None)
    lines, loose = before.billed_lines(), before.unassigned()
    bench.send(usage("3", 300))
    bench.load(
        "crosswalk: [{system: //api.test, kind: subject, external_id: beta, canonical_id: S-1}]"
    )
    bench.close(Ask.LATE)
    again = bench.app.closing.calculation(first, lambda *_: None)
    assert again.billed_lines() == lines
    assert again.unassigned() == loose
