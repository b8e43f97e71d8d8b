"""Usage: exact, the same by every path, and the same as counting by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meterpost.core.errors import Conflict, InvalidInput
from meterpost.core.period import Period
from meterpost.metering.model import Aggregation, Cutoff, Position, UsageQuery
from meterpost.metering.quantity import components_of, quantity_of
from meterpost.metering.usage_digest import combine, fingerprint_of, render
from meterpost.storage.duckdb import DuckDbEventStore

pytestmark = pytest.mark.integration

UTC_MONTH = Period.month("2026-03")


def at(day, hour=0, minute=0, month=3):
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


def only(store, meter, **changes):
    query = UsageQuery(meter, changes.pop("period", UTC_MONTH), **changes)
    [row] = store.usage(query).to_pylist()
    return row


def test_numbers_are_exact_or_failed(store, feed, event, meter):
    """A number that does not fit fails its measurement, never the batch, never by rounding."""
    good = {
        "1": "1", "0.123456789": "0.123456789", "1e5": "100000", "1e-7": "0.0000001",
        '"12.50"': "12.5", '"999999999999999999.999999999"': "999999999999999999.999999999",
        "17000000001234.56789": "17000000001234.56789", "-0": "0", '"1.5000000000000"': "1.5",
        "1700000000123456": "1700000000123456", '"007"': "7", "12.5E-1": "1.25",
    }  # fmt: skip
    bad = [
        "0.12345678901", "1234567890123456789", '"NaN"', '"abc"', "null", "true", "[1]", '{"a":1}',
        '""', '" 1"', '"1_000"', '"Infinity"', "1e400", "0.1000000000000000055", '"١"', "1e-12",
        '"100000000000000000.000000001e-18"', "123456789012345678e-18", "1e18",
    ]  # fmt: skip
    store.apply_meters([meter()])
    texts = [*good, *bad, "{}"]
    bodies = []
    for n, text in enumerate(texts):
        made = json.dumps(event(str(n), subject=str(n), data={"n": "?"}))
        bodies.append(made.replace('"?"', text) if text != "{}" else made.replace('"n": "?"', ""))
    report = feed.drain(("[" + ",".join(bodies) + "]").encode(), events=len(texts))
    assert report.processed == len(texts)
    rows = store.usage(UsageQuery(meter(), UTC_MONTH, by=("subject",))).to_pylist()
    assert {texts[int(row["subject"])]: row["total"] for row in rows} == {
        text: Decimal(value) for text, value in good.items()
    }
    [counts] = store.measurement_counts([meter()], at(1), at(1, month=4), store.cutoff())
    assert counts["failed"] == len(bad) + 1
    assert counts["measured"] == len(good)
    items = store.outbox(100)
    assert {item.kind for item in items} == {"failed_measurement"}
    assert len(items) == len(bad) + 1
    reasons = [item.payload["reason"] for item in items]
    assert "data.n is not an exact number: 0.12345678901" in reasons
    assert reasons.count("data.n is missing") == 2


@pytest.mark.parametrize(
    ("value", "data", "expected"),
    [
        ("div(data.n, 3, 2)", {"n": 1}, "0.33"),
        ("div(data.n, 2, 0)", {"n": 1}, "1"),
        ("div(data.n, 2, 0)", {"n": -1}, "-1"),
        ("div(data.n, -8, 2)", {"n": "0.12"}, "-0.02"),
        ("div(data.n, data.m, 9)", {"n": "999999999999999999", "m": 7}, "142857142857142857"),
        ("div(data.n * 2, data.m + 1, 3)", {"n": 5, "m": 2}, "3.333"),
        ("div(data.n, data.m, 2)", {"n": 5, "m": 0}, None),
        ("data.n * data.m", {"n": "0.00001", "m": "0.0001"}, "0.000000001"),
        ("data.n * data.m", {"n": "0.00001", "m": "0.00001"}, None),
        ("data.n * data.m", {"n": 10**17, "m": 10**17}, None),
        ("data.n + data.m", {"n": 999999999999999999, "m": 1}, None),
        ("data.n * 0.000001", {"n": 22361870}, "22.36187"),
        ("CASE WHEN data.k = 'a' THEN data.n ELSE 0 END", {"n": "abc", "k": "b"}, "0"),
        ("CASE WHEN data.k = 'a' THEN data.n ELSE 0 END", {"n": "abc", "k": "a"}, None),
        ("coalesce(data.n, 7)", {}, "7"),
        ("CAST(trim(data.n) AS decimal(10,2))", {"n": " 1.255 "}, "1.26"),
        ("CAST(trim(data.n) AS decimal(10,2))", {"n": " 1_0 "}, None),
        ("length(data.t) + extract(hour FROM time)", {"t": "äöü"}, "13"),
        ("greatest(data.n, data.m, 2)", {"n": 1, "m": "2.5"}, "2.5"),
        ("CASE WHEN data.f THEN 1 ELSE 2 END", {"f": False}, "2"),
        ("CASE WHEN data.f THEN 1 ELSE 2 END", {"f": "perhaps"}, None),
    ],
)
def test_expressions_compute_exactly_or_fail(store, feed, event, meter, value, data, expected):
    """Division rounds half away from zero, products keep every decimal, overflow fails."""
    one = meter(value=value)
    store.apply_meters([one])
    feed.drain([event("a", data=data), event("b", data={"n": 1, "m": 1, "k": "z", "t": ""})])
    row = only(store, one, where={"subject": "acme"}, period=UTC_MONTH)
    [counts] = store.measurement_counts([one], at(1), at(2, month=4), store.cutoff())
    assert counts["failed"] + counts["filtered"] + counts["measured"] == 2
    events = store.events_of(one, "/s", "acme", at(1), at(1, month=4), store.cutoff()).to_pylist()
    assert [e["value"] for e in events if e["id"] == "a"] == (
        [] if expected is None else [Decimal(expected)]
    )
    assert row["events"] == counts["measured"]


def test_a_filter_holds_fails_or_leaves_out(store, feed, event, meter):
    """Missing is left out, a bad number in a comparison fails, a failed value counts only where
    the filter holds.
    """
    one = meter(filter="data.size > 10")
    store.apply_meters([one])
    for n, data in enumerate([
        {"n": 1, "size": 11}, {"n": 1, "size": 10}, {"n": 1}, {"n": 1, "size": "big"},
        {"size": 11}, {"n": "x", "size": 5},
    ]):  # fmt: skip
        feed.drain([event(str(n), data=data)])
    [counts] = store.measurement_counts([one], at(1), at(1, month=4), store.cutoff())
    assert counts == {
        "meter": "m", "selected": 6, "after_cutoff": 0, "failed": 2, "filtered": 3, "measured": 1
    }  # fmt: skip
    fates = [json.loads(row["fate"])["m"] for row in store.find_events(subject="acme").to_pylist()]
    assert fates == ["measured", "filtered", "filtered", "failed", "failed", "filtered"]


SUBJECTS = ("acme", "globex", "")
ZONES = ("UTC", "Europe/Vienna", "Asia/Kathmandu", "Australia/Adelaide")

plain_events = st.lists(
    st.fixed_dictionaries({
        "id": st.integers(0, 40),
        # Both Vienna DST days: 2026-03-29 (23 h) and 2026-10-25 (25 h).
        "time": st.one_of(
            st.integers(0, 72 * 4).map(lambda n: at(28) + timedelta(minutes=15 * n, seconds=n)),
            st.integers(0, 72 * 4).map(lambda n: at(24, month=10) + timedelta(minutes=15 * n)),
        ),
        "subject": st.sampled_from(SUBJECTS),
        "n": st.one_of(
            st.integers(-50, 10**12), st.sampled_from(["0.1", "2.000000001", "bad", None])
        ),
        "model": st.sampled_from(["a", "b", None]),
        "ok": st.booleans(),
    }),
    max_size=40,
)  # fmt: skip


def to_event(parts):
    data = {k: parts[k] for k in ("n", "model", "ok") if parts[k] is not None}
    made = {
        "specversion": "1.0", "id": str(parts["id"]), "source": "/s", "type": "call",
        "time": parts["time"].isoformat(), "data": data,
    }  # fmt: skip
    return {**made, "subject": parts["subject"]} if parts["subject"] else made


def oracle(meter, accepted, keep):
    """Components by hand over the first event of each id, in sequence order."""
    rows = []
    for seq, parts in enumerate(accepted):
        if not keep(parts) or (meter.filter and not parts["ok"]):
            continue
        if meter.aggregation is Aggregation.COUNT:
            number = Decimal(0)
        elif meter.aggregation is Aggregation.UNIQUE:
            number = None if parts["model"] is None else parts["model"]
        else:
            number = None if parts["n"] in (None, "bad") else Decimal(str(parts["n"]))
        if number is not None:
            rows.append((parts["time"], seq, number))
    if not rows:
        return Decimal(0)
    values = [value for _, _, value in rows]
    match meter.aggregation:
        case Aggregation.COUNT:
            return Decimal(len(rows))
        case Aggregation.UNIQUE:
            return Decimal(len(set(values)))
        case Aggregation.SUM:
            return sum(values, Decimal(0))
        case Aggregation.MIN:
            return min(values)
        case Aggregation.MAX:
            return max(values)
        case Aggregation.LATEST:
            return max(rows)[2]
        case Aggregation.AVERAGE:
            return (sum(values, Decimal(0)) / len(values)).quantize(Decimal("1e-9"))


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), parts=plain_events)
def test_every_path_gives_what_counting_by_hand_gives(
    data, parts, tmp_path_factory, meter, assign, new_feed
):
    """All aggregations × filter × dimensions × zones × windows, from rollups and measurements,
    for any split into requests, drains and epochs; digests agree with the events.
    """
    sizes = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=12))
    seals = data.draw(st.sets(st.integers(0, 11)))
    zone = data.draw(st.sampled_from(ZONES))
    filtered = data.draw(st.booleans())
    meters = [
        meter(
            kind.value,
            "data.model" if kind is Aggregation.UNIQUE else "data.n",
            id=kind.value,
            filter="data.ok" if filtered else None,
            dimensions={"model": "data.model"} if data.draw(st.booleans()) else {},
        )
        for kind in Aggregation
    ]
    accepted, seen = [], set()
    for one in parts:
        if one["id"] not in seen:
            seen.add(one["id"])
            accepted.append(one)
    with DuckDbEventStore(tmp_path_factory.mktemp("s"), memory_limit_mb=300) as store:
        store.bind("j")
        store.apply_meters(meters)
        feed = new_feed(store)
        rest = list(parts)
        for n in range(200):
            if not rest:
                break
            size = sizes[n % len(sizes)]
            batch, rest = rest[:size], rest[size:]
            feed.drain([to_event(one) for one in batch[:2]], [to_event(one) for one in batch[2:]])
            if n in seals:
                store.cutoff()
        cutoff = store.cutoff()
        span = Period(at(28, 3), at(27, 5, month=10))
        for one in meters:
            table = store.usage(UsageQuery(one, span, "day", zone, cutoff=cutoff))
            for row, components in zip(table.to_pylist(), components_of(table), strict=True):
                start, end = row["window_start"], row["window_end"]
                expected = oracle(one, accepted, lambda p, s=start, e=end: s <= p["time"] < e)
                assert quantity_of(one, components) == expected
            if one.dimensions:
                table = store.usage(UsageQuery(one, span, by=("subject", "model"), cutoff=cutoff))
                for row, components in zip(table.to_pylist(), components_of(table), strict=True):
                    expected = oracle(
                        one,
                        accepted,
                        lambda p, r=row: (
                            p["time"] in span
                            and (p["subject"], p["model"] or "") == (r["subject"], r["model"])
                        ),
                    )
                    assert quantity_of(one, components) == expected
        middle = data.draw(st.sampled_from([at(29, 5), at(29, 5, 20)]))
        assigned = assign([
            ("L1", one.id, "/s", subject, low, high)
            for one in meters
            for subject, low, high in (
                ("acme", span.start, middle), ("globex", middle, span.end)
            )
        ])  # fmt: skip
        totals, segments = store.usage_of_lines(meters, assigned, cutoff)
        assert (totals, segments) == store.usage_of_lines(meters, assigned, cutoff, exact=True)
        found = {row["meter"]: n for n, row in enumerate(totals.to_pylist())}
        for one in meters:
            expected = oracle(
                one,
                accepted,
                lambda p: (
                    (p["subject"] == "acme" and span.start <= p["time"] < middle)
                    or (p["subject"] == "globex" and middle <= p["time"] < span.end)
                ),
            )
            if one.id in found:
                assert quantity_of(one, components_of(totals)[found[one.id]]) == expected
            else:
                assert expected == 0
        for total in totals.to_pylist():
            own = [s["digest"] for s in segments.to_pylist() if s["meter"] == total["meter"]]
            assert combine(own) == total["digest"]
        args = (meters, assigned, span.start, span.end, cutoff)
        open_usage = store.usage_unassigned(*args)
        assert open_usage == store.usage_unassigned(*args, exact=True)
        by_meter = {one.id: 0 for one in meters}
        for row in [*open_usage.to_pylist(), *totals.to_pylist()]:
            by_meter[row["meter"]] += row["events"]
        for one in meters:
            [whole] = store.usage(UsageQuery(one, span, cutoff=cutoff)).to_pylist()
            assert by_meter[one.id] == whole["events"]


def test_order_and_split_change_neither_usage_nor_digest(tmp_path, event, meter, assign, new_feed):
    """The same events in another order and other drains give equal components and digests."""
    rows = [
        event(str(n), f"2026-03-{n % 9 + 1:02d}T0{n % 7}:00:00Z", data={"n": n}) for n in range(60)
    ]
    results = []
    for name, order, size in (
        ("a", rows, 7),
        ("b", rows[::-1], 60),
        ("c", rows[30:] + rows[:30], 1),
    ):
        with DuckDbEventStore(tmp_path / name, epoch_events=20) as store:
            store.bind("j")
            store.apply_meters([meter()])
            feed = new_feed(store)
            for n in range(0, len(order), size):
                feed.drain(order[n : n + size])
            lines = assign([("L", "m", "/s", "acme", at(1), at(1, month=4))])
            results.append(store.usage_of_lines([meter()], lines, store.cutoff()))
    assert results[0] == results[1] == results[2]
    lanes = [
        fingerprint_of("/s", e["id"], "call", "acme",
                       int(datetime.fromisoformat(e["time"]).timestamp()) * 10**6,
                       json.dumps(e["data"]))
        for e in rows
    ]  # fmt: skip
    expected = render(sum(a for a, _ in lanes), sum(b for _, b in lanes), len(lanes))
    assert results[0][0].to_pylist()[0]["digest"] == expected


def test_an_older_cutoff_keeps_its_answer(store, feed, event, meter, assign):
    """What arrives later, late or not, changes nothing at an earlier cutoff."""
    one = meter()
    store.apply_meters([one])
    feed.drain([event("a")])
    early = store.cutoff()
    feed.drain([event("b"), event("late", "2026-03-01T00:00:00Z")])
    unsealed = Cutoff({"0": Position("j1", 2)})
    feed.drain([event("c")])
    late = store.cutoff()
    assert [only(store, one, cutoff=c)["events"] for c in (early, unsealed, late)] == [1, 3, 4]
    lines = assign([("L", "m", "/s", "acme", at(1), at(1, month=4))])
    for cutoff, count in ((early, 1), (unsealed, 3), (late, 4)):
        for exact in (False, True):
            totals, _ = store.usage_of_lines([one], lines, cutoff, exact=exact)
            assert totals.column("events").to_pylist() == [count]
    counts = store.measurement_counts([one], at(1), at(1, month=4), early)
    assert (counts[0]["measured"], counts[0]["after_cutoff"], counts[0]["selected"]) == (1, 3, 4)
    with pytest.raises(Conflict, match="beyond"):
        only(store, one, cutoff=Cutoff({"0": Position("j1", 99)}))
    with pytest.raises(Conflict, match="another journal"):
        only(store, one, cutoff=Cutoff({"0": Position("other", 1)}))


def test_a_new_meter_measures_stored_events_too(store, feed, event, meter):
    """Applied over old events it gives what it would have given; failures are owed once."""
    feed.drain([event("a"), event("b", data={"n": "x"})])
    assert store.ledger_counts()[0]["no_meter"] == 2
    before = store.cutoff()
    tried = only(store, meter())  # a meter can be tried before it is applied
    assert store.apply_meters([meter()]) == ["Meter m is new."]
    assert store.ledger_counts()[0]["processed"] == 2
    assert only(store, meter(), cutoff=before) == tried
    assert tried["total"] == 1
    assert [item.payload["id"] for item in store.outbox(10)] == ["b"]
    assert store.apply_meters([meter()]) == []
    assert len(store.outbox(10)) == 1


def test_a_changed_meter_keeps_old_cutoffs_readable(store, feed, event, meter):
    """The old definition gives the old answer, and goes on being measured."""
    old, new = meter(), meter(value="data.n * 2", filter="data.model = 'm1'")
    store.apply_meters([old])
    feed.drain([event("a")])
    cutoff = store.cutoff()
    assert store.apply_meters([new]) == ["Meter m has changed."]
    feed.drain([event("b"), event("c", data={"n": 5})])
    assert only(store, old, cutoff=cutoff)["total"] == 1
    assert only(store, new, cutoff=cutoff)["total"] == 2
    assert only(store, old)["total"] == 7
    assert only(store, new)["total"] == 4
    assert store.apply_meters([]) == ["Meter m no longer measures new events."]


def test_windows_follow_the_local_day(store, feed, event, meter):
    """Vienna's short and long day have 23 and 25 hours; windows are clipped to the period."""
    one = meter("count")
    store.apply_meters([one])
    hours = [at(28, 0) + timedelta(hours=n) for n in range(72)]
    feed.drain([event(moment.isoformat(), moment.isoformat()) for moment in hours])
    vienna = ZoneInfo("Europe/Vienna")
    period = Period(datetime(2026, 3, 29, tzinfo=vienna), datetime(2026, 3, 30, tzinfo=vienna))
    assert only(store, one, period=period, window="day", zone="Europe/Vienna")["events"] == 23
    table = store.usage(UsageQuery(one, period, "hour", "Europe/Vienna"))
    assert table.column("events").to_pylist() == [1] * 23
    with pytest.raises(InvalidInput, match="zone"):
        only(store, one, zone="Mars/Olympus")
    with pytest.raises(InvalidInput, match="no dimension"):
        only(store, one, by=("colour",))
    with pytest.raises(InvalidInput, match="windows"):
        only(store, one, window="hour", period=Period(at(1), at(1).replace(year=2046)))


def test_meters_that_are_not_exact_are_refused(store, meter):
    """The check names the meter and the part; nothing of the list is applied."""
    with pytest.raises(InvalidInput, match=r"m\.value"):
        store.apply_meters([meter(value="data.a * data.b * data.c * data.d * data.e")])
    with pytest.raises(InvalidInput, match=r"m\.filter"):
        store.apply_meters([meter(), meter(filter="regexp_matches(data.x, '(')")])


def test_events_come_out_in_sequence_order(store, feed, event, meter):
    """The export reads everything up to a cutoff, in batches; events_of pages by sequence."""
    store.apply_meters([meter("unique", "data.model")])
    feed.drain([event(str(n)) for n in range(5)])
    cutoff = store.cutoff()
    feed.drain([event("later")])
    ids = [i for batch in store.iterate_events(cutoff) for i in batch.column("id").to_pylist()]
    assert ids == list("01234")
    one = meter("unique", "data.model")
    args = (one, "/s", "acme", at(1), at(1, month=4), cutoff)
    page = store.events_of(*args, rows_max=2)
    rest = store.events_of(*args, after_sequence=page.column("sequence")[-1].as_py())
    assert page.column("id").to_pylist() + rest.column("id").to_pylist() == list("01234")
    assert set(page.column("unique_value").to_pylist()) == {"m1"}
