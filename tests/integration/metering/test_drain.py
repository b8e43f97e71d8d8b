"""Journal rows in: every event is stored once, or recorded as what it was."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from meterpost.core.errors import Conflict
from meterpost.metering.model import Position
from meterpost.storage.duckdb import DuckDbEventStore

pytestmark = pytest.mark.integration


def cells(report):
    return {
        name: getattr(report, name)
        for name in ("accepted", "duplicate", "conflicting", "quarantined", "no_meter", "processed")
        if getattr(report, name)
    }


def ledger(store):
    totals = {}
    for row in store.ledger_counts():
        for name, count in row.items():
            if isinstance(count, int) and count:
                totals[name] = totals.get(name, 0) + count
    return totals


def test_duplicates_are_found_in_a_batch_across_batches_and_late(store, feed, event, meter):
    """The first by sequence stays; the same content again is counted and dropped."""
    store.apply_meters([meter()])
    first = feed.drain([event("a"), event("b"), event("a")], [event("b")])
    assert cells(first) == {"accepted": 4, "duplicate": 2, "processed": 2}
    for n in range(3):
        feed.drain([event(f"x{n}", "2026-05-01T00:00:00Z")])
    late = feed.drain([event("a"), event("c", "2025-01-01T00:00:00Z")])
    assert cells(late) == {"accepted": 2, "duplicate": 1, "processed": 1}
    assert ledger(store) == {"duplicate": 3, "processed": 6}
    assert not store.outbox(10)


def test_the_same_id_from_another_source_is_another_event(store, feed, event):
    """Identity is (source, id); no concatenation of the two can collide."""
    report = feed.drain([event("bc", source="a"), event("c", source="ab"), event("bc", source="x")])
    assert cells(report) == {"accepted": 3, "no_meter": 3}


def test_another_content_under_a_known_id_is_a_conflict_and_the_first_stays(store, feed, event):
    """Time, subject, type and data are content; both events and their times are reported."""
    feed.drain([event("a"), event("b"), event("b", "2026-03-10T10:00:01Z")])
    report = feed.drain([event("a", data={"n": 2}), event("a", subject="other"), event("a", None)])
    assert cells(report) == {"accepted": 3, "conflicting": 3}
    items = store.outbox(10)
    assert [item.kind for item in items] == ["conflicting_duplicate"] * 4
    assert items[0].payload["time"] == "2026-03-10T10:00:01.000000Z"
    assert items[0].payload["first_time"] == "2026-03-10T10:00:00.000000Z"
    assert items[0].payload["first_sequence"] == (1 << 17) + 1
    found = store.find_events(id="a").to_pylist()
    assert [json.loads(row["data"]) for row in found] == [
        {"n": 1, "model": "m1"}, {"n": 2}, {"n": 1, "model": "m1"}, {"n": 1, "model": "m1"}
    ]  # fmt: skip
    store.forget_outbox(items)
    assert not store.outbox(10)


def test_another_spelling_of_the_same_json_is_a_duplicate(store, feed, event):
    """Key order, spaces, 1.0 for 1 and another offset for the same instant change nothing."""
    feed.drain([event("a", data={"n": 1, "x": {"k": [1, 2], "t": "é"}})])
    text = (
        b'[{"id":"a","source":"/s","type":"call","subject":"acme","specversion":"1.0",'
        b'"time":"2026-03-10T11:00:00.000+01:00",'
        b'"data": {"x": {"t":"\\u00e9", "k":[1.0, 2e0]}, "n": 1.00}}]'
    )
    assert cells(feed.drain(text, events=1)) == {"accepted": 1, "duplicate": 1}
    other = event("a", data={"n": "1", "x": {"k": [1, 2], "t": "é"}})
    assert cells(feed.drain([other])) == {"accepted": 1, "conflicting": 1}


def test_an_event_without_time_happened_when_it_was_recorded(store, feed, event):
    """Delivered again later it is a duplicate, not a conflict."""
    feed.drain([event("a", None)])
    assert cells(feed.drain([event("a", None)])) == {"accepted": 1, "duplicate": 1}
    [row, _] = store.find_events(id="a").to_pylist()
    assert row["time"] == row["recorded_at"]


def test_times_keep_their_instant_to_the_microsecond(store, feed, event):
    """Any offset counts, digits past the sixth are cut, lower-case t and z are read."""
    feed.drain([
        event("a", "2026-03-10T15:45:00.123456789+05:45"), event("b", "2026-03-10t10:00:00z"),
        event("c", "0001-01-01T00:00:00Z"), event("d", "9999-12-31T23:59:59Z"),
    ])  # fmt: skip
    times = [store.find_events(id=name).column("time")[0].as_py() for name in "abcd"]
    assert times[0] == datetime(2026, 3, 10, 10, 0, 0, 123456, UTC)
    assert times[1] == datetime(2026, 3, 10, 10, tzinfo=UTC)
    assert [moment.year for moment in times[2:]] == [1, 9999]


def test_what_cannot_be_read_is_quarantined_with_its_reason(store, feed, event, meter):
    """One bad event costs itself alone; a body nobody can read costs all it was accepted with."""
    store.apply_meters([meter()])
    report = feed.drain(
        [event("ok"), event("t1", "2026-03-10T10:00:00"), event("t2", "yesterday"),
         event("t3", "0001-01-01T00:00:00+05:00"), event("")],
        [event("ok2"), {**event("n"), "id": 5}, {**event("s"), "source": None}],
    )  # fmt: skip
    assert cells(report) == {"accepted": 8, "quarantined": 6, "processed": 2}
    for body in (b'[{"id": "x"', b"\xff\xfe", b"[]"):
        assert cells(feed.drain(body, events=3)) == {"accepted": 3, "quarantined": 3}
    surrogate = json.dumps(event("u")).replace('"m1"', '"\\ud800"').encode()
    assert feed.drain(surrogate, events=1).quarantined == 1
    reasons = {item.payload["id"]: item.payload["reason"] for item in store.outbox(100)}
    assert reasons["t1"] == "time is not a moment with a zone (RFC 3339)"
    assert "not valid JSON" in reasons[None]

    assert ledger(store) == {"quarantined": 16, "processed": 2}


def test_all_shapes_of_bodies_are_read(store, feed, event):
    """An array, one object, and NDJSON; extension attributes and binary data are kept."""
    lines = b"\n".join(json.dumps(event(f"l{n}")).encode() for n in range(3))
    feed.drain(lines, events=3)
    feed.drain(json.dumps(event("one")).encode(), events=1)
    odd = event("odd", tenant="t1", traceparent="00-own-1-01", datacontenttype="text/csv")
    binary = event("bin", data_base64="AAEC")
    del binary["data"]
    feed.drain([odd, binary])
    assert [store.find_events(id=f"l{n}").num_rows for n in range(3)] == [1, 1, 1]
    [row] = store.find_events(id="odd").to_pylist()
    assert json.loads(row["extensions"]) == {"tenant": "t1", "datacontenttype": "text/csv"}
    assert (row["traceparent"], row["correlation_id"]) == ("00-own-1-01", "c3")
    [row] = store.find_events(id="bin").to_pylist()
    assert (row["data"], json.loads(row["extensions"])) == (None, {"data_base64": "AAEC"})
    assert row["traceparent"] == "00-aa-bb-01"


def test_a_hundred_thousand_events_in_one_row(store, feed, event, meter):
    """One request may hold as many events as its ordinals can number."""
    store.apply_meters([meter()])
    report = feed.drain([event(str(n)) for n in range(100_000)])
    assert cells(report) == {"accepted": 100_000, "processed": 100_000}


def test_rows_at_or_before_the_position_are_skipped_and_gaps_refused(store, feed, event):
    """Draining the same rows again changes nothing; missing rows stop the drain."""
    rows = [feed.row([event(str(n))]) for n in range(4)]
    store.drain(rows[:2])
    assert store.drain(rows[:2]).accepted == 0
    assert store.drain(rows[1:3]).accepted == 1
    feed.row([])
    with pytest.raises(Conflict, match="missing"):
        store.drain([feed.row([event("z")])])
    assert store.position() == Position("j1", 3)


def test_a_store_belongs_to_one_journal(store, feed, event, tmp_path):
    """Another incarnation is refused once events are stored; a second process is refused too."""
    store.bind("j2")
    feed.drain([event("a")])
    with pytest.raises(Conflict, match="follows journal j2"):
        store.bind("j1")
    with DuckDbEventStore(tmp_path / "fresh") as unbound, pytest.raises(Conflict, match="Bind"):
        unbound.drain([feed.row([event("b")])])


def test_everything_is_there_after_reopening(store, feed, event, meter, tmp_path):
    """Position, events, meters and measurements outlive the process."""
    store.apply_meters([meter()])
    feed.drain([event("a")])
    store.close()
    with DuckDbEventStore(tmp_path) as again:
        assert again.position() == Position("j1", 1)
        feed.store = again
        assert cells(feed.drain([event("a"), event("b")])) == {
            "accepted": 2, "duplicate": 1, "processed": 1
        }  # fmt: skip
