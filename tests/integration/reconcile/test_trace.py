"""Traces both ways and proofs, over real PostgreSQL and DuckDB."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from meterpost.core.errors import InvalidInput, NotFound
from meterpost.reconcile.trace_text import trace_lines

pytestmark = pytest.mark.integration


def test_a_document_leads_down_to_its_events(shared: Any) -> None:
    """Document → transaction → lines → usage record → segments → events, with the working."""
    trace = shared.tracer.trace("document:1")
    [transaction] = trace.transactions
    assert transaction.focus
    assert [step.to_state for step in transaction.history][-2:] == ["posted", "reconciled"]
    assert transaction.approvals[0].person == "ada"
    assert transaction.calls[0].outcome == "posted"
    assert transaction.receipt is not None
    by_meter = {record.meter: record for record in trace.records}
    listed = [event for s in by_meter["tokens"].segments for event in s.listed]
    assert {event.id: event.value for event in listed} == {"1": Decimal(800), "2": Decimal(700)}
    text = "\n".join(trace_lines(trace))
    assert "working: tier 2" in text
    assert "usage record" in text
    assert json.dumps(trace.to_plain())


def test_an_event_leads_up_to_its_document(shared: Any) -> None:
    """Event → what became of each copy per meter → segment → record → line → document."""
    trace = shared.tracer.trace("2", source="//api.test")
    assert trace.kind == "event"
    fates = [event.fates for event in trace.events]
    assert {"calls": "measured", "tokens": "measured", "users": "measured"} in fates
    assert any("conflicting_with" in fate for fate in fates)
    assert {record.meter for record in trace.records} == {"tokens", "users"}
    [segment] = next(r.segments for r in trace.records if r.meter == "tokens")
    assert segment.dimensions == {"model": "m2"}
    assert [t.receipt and t.receipt.document_id for t in trace.transactions] == ["1"]


def test_a_filtered_event_leads_to_no_line_of_that_meter(shared: Any) -> None:
    """An event that the filter left out is in no record of that meter."""
    trace = shared.tracer.trace("event:4")
    assert trace.events[0].fates["tokens"] == "filtered"
    assert {record.meter for record in trace.records} == {"users"}


@pytest.mark.parametrize("way", ["key", "transaction", "correlation"])
def test_other_names_lead_to_the_same_transaction(shared: Any, way: str) -> None:
    """Posting key, id and correlation id name one transaction."""
    [transaction] = shared.transactions()
    name = {
        "key": transaction.posting_key,
        "transaction": f"transaction:{transaction.id}",
        "correlation": transaction.correlation_id,
    }[way]
    trace = shared.tracer.trace(name)
    assert trace.kind == way
    assert [each.id for each in trace.transactions if each.focus] == [transaction.id]


def test_the_correlation_of_a_request_leads_to_its_events(shared: Any) -> None:
    """What the sender was given for a request finds the events that came with it."""
    [row] = shared.sql("SELECT correlation_id FROM meterpost.journal")
    trace = shared.tracer.trace(f"correlation:{row.correlation_id}")
    assert {"1", "2", "3", "4"} <= {event.id for event in trace.events}


def test_a_subject_in_clear_is_found_by_its_token(shared: Any) -> None:
    """A personal subject is looked up in the vault; only on request it is shown in clear."""
    assert shared.tracer.trace("subject:alpha").transactions
    token = shared.app.vault.tokens("subject", ["Jane"])["Jane"]
    with pytest.raises(NotFound):
        shared.tracer.trace("subject:Jane")
    shared.send(
        {
            "specversion": "1.0",
            "id": "jane-1",
            "source": "//api.test",
            "type": "api.call",
            "subject": token,
            "time": "2026-10-03T10:00:00Z",
            "data": {"tokens": 1, "user": "j", "model": "m1"},
        }
    )
    shared.app.metering.drain()
    assert shared.tracer.trace("subject:Jane").names == {}
    revealed = shared.tracer.trace("subject:Jane", reveal=True)
    assert revealed.names == {token: "Jane"}
    assert f"Jane ({token})" in "\n".join(trace_lines(revealed))


def test_events_of_a_segment_come_in_pages(shared: Any) -> None:
    """A page says where the next one starts, until there is none."""
    trace = shared.tracer.trace("document:1", events_max=1)
    record = next(r for r in trace.records if r.meter == "users")
    [segment] = record.segments
    assert segment.next_after is not None
    found, after = [event.id for event in segment.listed], segment.next_after
    while after is not None:
        page = shared.tracer.events(record.id, segment.ordinal, after=after, events_max=1)
        found += [event.id for event in page.events]
        after = page.next_after
    assert found == ["1", "2", "4"]


@pytest.mark.parametrize("ref", ["", "x" * 2000])
def test_bad_references_are_refused(shared: Any, ref: str) -> None:
    """Empty and oversized references get a sentence."""
    with pytest.raises(InvalidInput):
        shared.tracer.trace(ref)


def test_nothing_known_is_said(shared: Any) -> None:
    """An unknown reference names the kinds there are."""
    with pytest.raises(NotFound, match="posting key"):
        shared.tracer.trace("no-such-thing")


def test_a_transaction_is_proved_from_its_events(shared: Any) -> None:
    """Meter and price run again over the listed events give each line's quantity and amount."""
    [transaction] = shared.transactions()
    report = shared.prover.prove_transaction(transaction.id)
    assert report.proved, report.differences
    assert (report.lines, report.events) == (3, 5)


def test_the_close_and_its_unassigned_usage_are_proved(shared: Any) -> None:
    """All records of a close, of both entities, come out as stored, event by event too."""
    for (close,) in shared.sql("SELECT id FROM meterpost.close ORDER BY id"):
        report = shared.prover.prove_close(close, replay=True)
        assert report.records
        assert report.proved, report.differences


@pytest.mark.parametrize(
    ("statement", "field"),
    [
        ("UPDATE meterpost.usage_record SET quantity = quantity + 1", "quantity"),
        ("UPDATE meterpost.usage_record SET digest = repeat('0', 48)", "digest"),
        ("UPDATE meterpost.transaction_line SET amount = amount + 1", "amount"),
        ("UPDATE meterpost.transaction_line SET working = working || '{\"exact\": \"1\"}'",
         "working"),
        ("UPDATE meterpost.staged_transaction SET due = due + 1", "due"),
        ("UPDATE meterpost.transaction_line SET price = 'other'", "price"),
    ],
)  # fmt: skip
def test_every_difference_is_listed(billed: Any, statement: str, field: str) -> None:
    """A stored value that does not follow from the events is named, with both values."""
    [transaction] = billed.transactions()
    billed.sql(statement)
    report = billed.prover.prove_transaction(transaction.id)
    assert not report.proved
    assert field in {difference.field for difference in report.differences}


def test_a_stored_event_that_was_altered_is_seen_by_the_replay(billed: Any) -> None:
    """Measurements still agree; the raw event no longer does."""
    [transaction] = billed.transactions()
    billed.duck("UPDATE events SET data = replace(data, '800', '801') WHERE id = '1'")
    report = billed.prover.prove_transaction(transaction.id)
    assert {(d.field, d.way) for d in report.differences} >= {
        ("quantity", "events"),
        ("digest", "events"),
    }
    assert not [d for d in report.differences if d.way == "measurements"]
