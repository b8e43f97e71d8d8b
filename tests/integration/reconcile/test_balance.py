"""The four ledgers balance, and see every row that is deleted, copied or altered."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from meterpost.workflows.close import Ask

pytestmark = pytest.mark.integration


def test_everything_is_accounted_for(shared: Any) -> None:
    """After duplicates, conflicts, refusals, unknown subjects and posting, all is explained."""
    balance = shared.balance()
    assert balance.unexplained == 0, list(balance.table_rows())
    events, measurements, quantity, transactions, *_ = balance.ledgers
    assert {name: n for name, n in events.cells().items() if n} == {
        "invalid": 2,
        "duplicate": 1,
        "conflicting": 1,
        "processed": 4,
    }
    assert measurements.cells()["filtered"] == 1
    cells = quantity.cells()
    assert cells["included"] == 100
    assert cells["charged_settled"] == 1400 + 3
    assert cells["unmatched"] == Decimal("12345678901234.123456789") + 1
    assert transactions.cells()["reconciled"] == 1
    assert balance.to_plain()["unexplained"] == "0"


def test_events_that_are_not_drained_have_a_cell(billed: Any, usage: Any) -> None:
    """What the engine has not taken yet is counted from the journal's own bodies."""
    billed.send(usage("9", 5), usage("10", 5))
    balance = billed.balance()
    assert balance.ledgers[0].cells()["not_drained"] == 2
    assert balance.unexplained == 0


def test_late_usage_balances_at_every_step(billed: Any, usage: Any) -> None:
    """A second revision moves the claim; superseded figures appear nowhere twice."""
    billed.send(usage("6", 50))
    billed.bill(Ask.LATE)
    assert billed.balance().unexplained == 0
    billed.reconcile()
    balance = billed.balance()
    assert balance.unexplained == 0, list(balance.table_rows())
    assert balance.ledgers[3].cells()["reconciled"] == 2


TAMPERING = {
    "intake row altered": "UPDATE meterpost.intake_count SET accepted = accepted + 1",
    "intake row deleted": "DELETE FROM meterpost.intake_count",
    "intake row copied": "INSERT INTO meterpost.intake_count SELECT interval_start, "
    "source || 'x', received, invalid, accepted FROM meterpost.intake_count",
    "journal row deleted": "DELETE FROM meterpost.journal",
    "journal row altered": "UPDATE meterpost.journal SET events = events + 1",
    "quarantined row deleted": "DELETE FROM meterpost.quarantine",
    "usage record altered": "UPDATE meterpost.usage_record SET quantity = quantity + 1 "
    "WHERE line = 'L-tokens'",
    "unmatched record altered": "UPDATE meterpost.usage_record SET quantity = quantity - 1 "
    "WHERE fate = 'unmatched' AND meter = 'users'",
    "usage record copied": "INSERT INTO meterpost.usage_record (close_id, purpose, legal_entity, "
    "accounting_period, meter, line, subject, period_start, period_end, revision, fate, "
    "quantity, unit, events, digest) SELECT close_id, purpose, legal_entity, accounting_period, "
    "meter, 'L-copy', subject, period_start, period_end, revision, fate, quantity, unit, events, "
    "digest FROM meterpost.usage_record WHERE line = 'L-tokens'",
    "claim deleted": "DELETE FROM meterpost.claim WHERE line = 'L-tokens'",
    "line altered": "UPDATE meterpost.transaction_line SET due = due + 1 WHERE line = 'L-tokens'",
    "charged altered": "UPDATE meterpost.transaction_line SET charged = charged + 1, "
    "quantity = quantity + 1 WHERE line = 'L-tokens'",
    "line deleted": "DELETE FROM meterpost.transaction_line WHERE line = 'L-fee'",
    "line copied": "INSERT INTO meterpost.transaction_line SELECT transaction_id, ordinal + 10, "
    "line, meter, usage_record_id, item, description, unit, quantity, included, charged, price, "
    "amount, held, due, working, tax_category, revenue_account, service_from, service_to "
    "FROM meterpost.transaction_line WHERE line = 'L-tokens'",
    "transaction altered": "UPDATE meterpost.staged_transaction SET due = due + 1",
    "state altered": "UPDATE meterpost.staged_transaction SET state = 'withdrawn'",
    "transition deleted": "DELETE FROM meterpost.transition WHERE to_state = 'reconciled'",
    "receipt deleted": "WITH gone AS (DELETE FROM meterpost.receipt_line) "
    "DELETE FROM meterpost.receipt",
    "receipt altered": "UPDATE meterpost.receipt SET comparison = 'changed'",
    "receipt amount altered": "UPDATE meterpost.receipt SET net = net + 1",
    "receipt line altered": "UPDATE meterpost.receipt_line SET posted = posted + 1",
}


@pytest.mark.parametrize("statement", TAMPERING.values(), ids=TAMPERING.keys())
def test_a_touched_row_is_seen(shared: Any, statement: str) -> None:
    """Whatever single row is deleted, copied or altered, something is unexplained after."""
    assert shared.balance().unexplained == 0
    free = "ALTER TABLE meterpost.receipt_line DROP CONSTRAINT fk_receipt_line_receipt_id"
    assert shared.tampered(free, statement).unexplained != 0


def test_a_usage_record_cannot_vanish(shared: Any) -> None:
    """A deleted usage record leaves measured usage that no cell holds."""
    balance = shared.tampered(
        "DELETE FROM meterpost.usage_segment",
        "DELETE FROM meterpost.usage_record WHERE fate = 'unmatched'",
    )
    assert balance.unexplained == Decimal("12345678901234.123456789") + 1


def test_a_transaction_cannot_vanish(shared: Any) -> None:
    """A transaction deleted with all that hangs on it leaves usage that nobody charges."""
    links = shared.sql(
        "SELECT conname, conrelid::regclass::text FROM pg_constraint "
        "WHERE contype = 'f' AND confrelid = 'meterpost.staged_transaction'::regclass"
    )
    free = [f"ALTER TABLE {table} DROP CONSTRAINT {name}" for name, table in links]
    assert shared.tampered(*free, "DELETE FROM meterpost.staged_transaction").unexplained != 0


DUCK_TAMPERING = {
    "event deleted": "DELETE FROM events WHERE id = '1'",
    "event copied": "INSERT INTO events SELECT * REPLACE (seq + 100 AS seq) FROM events "
    "WHERE id = '4'",
    "duplicate deleted": "DELETE FROM duplicates",
    "conflict copied": "INSERT INTO conflicting SELECT * FROM conflicting",
    "measurement deleted": "DELETE FROM measurements_1 WHERE seq = (SELECT seq FROM events "
    "WHERE id = '2')",
    "measurement copied": "INSERT INTO measurements_1 SELECT * FROM measurements_1",
}


@pytest.mark.parametrize("statement", DUCK_TAMPERING.values(), ids=DUCK_TAMPERING.keys())
def test_a_touched_event_is_seen(billed: Any, statement: str) -> None:
    """The same in the event store: events, duplicates, conflicts and measurements."""
    billed.duck(statement)
    assert billed.balance().unexplained != 0


def test_an_altered_measurement_is_seen(billed: Any) -> None:
    """A measured value that changes no longer agrees with the usage record."""
    [(column,)] = billed.app.events._connection.execute(
        "SELECT name FROM measured_columns WHERE name LIKE 'v_%'"
    ).fetchall()
    billed.duck(f'UPDATE measurements_1 SET "{column}" = 1 WHERE "{column}" = 800')
    assert billed.balance().unexplained == 799
