"""What the checks accept, refuse, and say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterpost.ingest.checks import Checks, TooLarge, Unparsable
from meterpost.ingest.model import EventType, Limits, SourceCount

TYPE = "llm.request"


def one(checks, event):
    return checks.batch(json.dumps([event]).encode())


def with_tokens(number):
    start = f'{{"specversion":"1.0","id":"1","source":"s","type":"{TYPE}"'
    return f'{start},"data":{{"tokens":{number}}}}}'.encode()


def test_a_good_batch_goes_on_byte_for_byte(checks, event):
    """Nothing of an accepted body is rewritten, and it is counted by source."""
    body = json.dumps([event(id="a"), event(id="b", source="/svc/conv")], indent=1).encode()
    checked = checks.batch(body)
    assert checked.body == body
    assert checked.counts == {"/svc/code": SourceCount(1, 0), "/svc/conv": SourceCount(1, 0)}
    assert not checked.rejected


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"id": ...}, "missing-id", "id"),
        ({"id": None}, "missing-id", "id"),
        ({"id": ""}, "empty-id", "id"),
        ({"id": "x" * 256}, "id-too-long", "id"),
        ({"id": 7}, "invalid-id", "id"),
        ({"id": "a\x00b"}, "invalid-id", "id"),
        ({"source": ...}, "missing-source", "source"),
        ({"source": ""}, "empty-source", "source"),
        ({"type": ...}, "missing-type", "type"),
        ({"specversion": "0.3"}, "specversion", "specversion"),
        ({"specversion": ...}, "specversion", "specversion"),
        ({"subject": ""}, "empty-subject", "subject"),
        ({"time": "2023-11-16T18:17:03"}, "time-without-zone", "time"),
        ({"time": "0001-01-01T00:00:00Z"}, "time-out-of-range", "time"),
        ({"time": "9999-12-31T23:59:59Z"}, "time-out-of-range", "time"),
        ({"time": "0001-01-01T00:00:00+23:00"}, "time-out-of-range", "time"),
        ({"time": "yesterday"}, "invalid-time", "time"),
        ({"time": "2023-02-30T00:00:00Z"}, "invalid-time", "time"),
        ({"time": 1700000000}, "invalid-time", "time"),
        ({"type": "io.meterpost.void"}, "reserved-type", "type"),
        ({"type": "never.heard.of"}, "unknown-type", "type"),
        ({"My-Ext": "x"}, "extension-name", "My-Ext"),
        ({"ext": {"a": 1}}, "extension-value", "ext"),
        ({"ext": 1 << 40}, "extension-value", "ext"),
        ({"data_base64": "QQ=="}, "two-payloads", "data_base64"),
        ({"data": ..., "data_base64": "?"}, "invalid-base64", "data_base64"),
        ({"traceparent": 1}, "invalid-traceparent", "traceparent"),
        ({"type": "storage.used", "data": {"bytes": -1}}, "schema", "data.bytes"),
        ({"type": "storage.used", "data": {}}, "schema", "data"),
        ({"type": "storage.used", "data": ...}, "schema", "data"),
    ],
)
def test_a_bad_event_is_named_with_field_and_reason(checks, event, changes, code, field):
    """One bad event costs itself only; its bytes, its field and a sentence are kept."""
    bad = event(**changes)
    checked = checks.batch(json.dumps([event(id="before"), bad, event(id="after")]).encode())
    assert [e["id"] for e in json.loads(checked.body)] == ["before", "after"]
    (rejected,) = checked.rejected
    assert (rejected.index, rejected.problem.code, rejected.problem.where) == (1, code, field)
    assert rejected.raw == json.dumps(bad).encode()
    assert rejected.problem.sentence
    assert sum(count.invalid for count in checked.counts.values()) == 1


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("0.1234567890123456", "number-too-precise"),
        ("17000000001234.56789", "number-too-precise"),
        ("1.0000000001", "number-too-precise"),
        ("1e-10", "number-too-precise"),
        ("1234567890123456789", "number-too-large"),
        ("-1234567890123456789", "number-too-large"),
        ("1e18", "number-too-large"),
        ("1e400", "number-too-large"),
        ("1e99999999999999999999", "invalid-json"),
        ("[1, 1e400]", "number-too-large"),
        ("9" * 5000, "number-too-large"),
    ],
)
def test_numbers_that_readers_would_change_are_refused_in_metered_fields(checks, number, code):
    """A number that would not survive as a double is refused with the hint to send a string."""
    raw = with_tokens(number)
    checked = checks.one(raw)
    assert [one.problem.code for one in checked.rejected] == [code]
    assert checked.rejected[0].problem.where.startswith("data")


@pytest.mark.parametrize(
    "number",
    [
        "123456789012345678",
        "0.123456789",
        "123456.123456789",
        "1e3",
        "-5",
        "1E17",
        '"1234567890123456789"',
        "0",
    ],
)
def test_exact_numbers_pass(checks, number):
    """18 digits of an integer, 15 of a fraction with 9 decimals, and any string pass."""
    raw = with_tokens(number)
    assert checks.one(raw).events == 1


def test_long_numbers_pass_where_no_meter_reads_them_unless_nothing_could(checks, event):
    """Other fields may be as long as they like, as long as a reader can hold them at all."""
    raw = json.dumps(event(data={"other": 0})).encode()
    assert checks.one(raw.replace(b": 0}", b": 0.12345678901234567890}")).events == 1
    assert (
        checks.one(raw.replace(b": 0}", b": 1e400}")).rejected[0].problem.code == "number-too-large"
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'[{"specversion":"1.0","id":"a"', "too early"),
        (b"[NaN]", "NaN (byte 1)"),
        (b'[{"data":Infinity}]', "Infinity (byte 9)"),
        (b'[{"data":-Infinity}]', "Infinity (byte 10)"),
        (b"", "too early"),
        (b"{}", "no array"),
        (b"[1] x", "byte 5"),
        (b"[" * 100_000, "deeply"),
    ],
)
def test_a_body_that_is_no_json_array_is_refused_as_a_whole(checks, body, said):
    """Where events cannot be told apart the sentence says at which byte reading ended."""
    with pytest.raises(Unparsable) as refused:
        checks.batch(body)
    assert said in str(refused.value)


def test_wrong_utf8_costs_only_its_own_event(checks, event):
    """Bytes that are not UTF-8 inside one event's data leave the others alone."""
    good = json.dumps(event()).encode()
    bad = good.replace(b"10}", b'"\xff"}')
    for checked in (
        checks.batch(b"[%b,%b]" % (good, bad)),
        checks.lines(b"%b\n%b\n" % (good, bad)),
    ):
        assert checked.events == 1
        assert [(r.index, r.problem.code, r.raw) for r in checked.rejected] == [
            (1, "wrong-utf8", bad)
        ]


def test_lines_stand_alone(checks, event):
    """In NDJSON a bad line is refused, empty lines are passed over, CRLF is a line end."""
    good = json.dumps(event()).encode()
    checked = checks.lines(b"\n" + good + b"\r\n{oops\n\n" + good + b"\nnull\n")
    assert checked.events == 2
    assert [(r.index, r.problem.code) for r in checked.rejected] == [
        (1, "invalid-json"),
        (3, "not-an-object"),
    ]
    assert len(json.loads(checked.body)) == 2


def test_sizes_and_counts_have_limits(checks, event):
    """10 MB in one event is too large alone and refused within a batch; 100,000 events pass."""
    big = event(id="big", data={"x": "y" * 10_000_000})
    with pytest.raises(TooLarge):
        checks.one(json.dumps(big).encode())
    checked = checks.batch(json.dumps([event(), big]).encode())
    assert [(r.index, r.problem.code) for r in checked.rejected] == [(1, "event-too-large")]
    many = b"[%b]" % b",".join([json.dumps(event()).encode()] * 100_000)
    assert checks.batch(many).events == 100_000
    with pytest.raises(TooLarge):
        checks.batch(many[:-1] + b",{}]")
    with pytest.raises(TooLarge):
        checks.batch(b"x" * 64_000_001)
    with pytest.raises(TooLarge):
        checks.lines(b"{}\n" * 100_001)


def test_unknown_types_can_be_let_in(event):
    """With accept_unknown_types any type but our own passes."""
    checks = Checks(accept_unknown_types=True)
    assert one(checks, event(type="anything")).events == 1
    assert one(checks, event(type="io.meterpost.amend")).rejected


def test_a_single_event_is_exactly_one(checks, event):
    """Two objects with a comma between them are no structured event."""
    raw = json.dumps(event()).encode()
    with pytest.raises(Unparsable):
        checks.one(raw + b"," + raw)


def test_schema_references_stay_inside():
    """A schema that points to the network is refused rather than fetched."""
    with pytest.raises(ValueError, match="stay inside"):
        Checks([EventType("a", schema={"$ref": "http://127.0.0.1:1/schema"})])


def test_limits_are_checked():
    """Limits beyond what a journal row numbers, or out of order, are refused."""
    with pytest.raises(ValueError, match="131072"):
        Limits(batch_events_max=200_000)
    with pytest.raises(ValueError, match="rise"):
        Limits(event_bytes_max=100_000_000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
EVENTS = st.fixed_dictionaries(
    {"specversion": st.just("1.0")},
    optional={
        "id": st.sampled_from(["a", "", None, "\x7f", "ü", 3]) | st.text(),
        "source": st.sampled_from(["s", "\n"]) | st.text(max_size=3),
        "type": st.sampled_from([TYPE, "storage.used", "page.viewed", "x"]),
        "time": st.sampled_from(["2026-01-01T00:00:00Z", "1899-01-01T00:00:00Z", "2026-01-01", 1]),
        "subject": st.text(max_size=3),
        "data": st.dictionaries(st.sampled_from(["tokens", "bytes", "x"]), JSON) | JSON,
        "dataschema": st.text(max_size=2),
        "ext": JSON,
    },
)


@settings(max_examples=300, deadline=None)
@given(event=EVENTS, ascii=st.booleans())
def test_the_fast_and_the_careful_way_agree(event, ascii):
    """Whether an event is accepted does not depend on its neighbours."""
    checks = Checks(
        [EventType("storage.used", schema={"type": "object"})], {TYPE: ("data.tokens",)}
    )
    try:
        raw = json.dumps(event, ensure_ascii=ascii).encode()
    except UnicodeEncodeError:
        return
    alone = checks.lines(raw) if b"\n" not in raw else None
    careful = checks.rules.check(raw)
    beside = checks.lines(raw + b"\n{}")
    assert alone is not None
    assert alone.events == beside.events == (careful.problem is None)


@settings(max_examples=400, deadline=None)
@given(body=st.binary() | st.lists(EVENTS).map(lambda e: json.dumps(e).encode()))
def test_any_bytes_are_accounted_for(body):
    """Any body is either refused as a whole, or received = accepted + rejected holds."""
    checks = Checks(metered={TYPE: ("data",)})
    for way in (checks.one, checks.batch, checks.lines):
        try:
            checked = way(body)
        except Unparsable:
            continue
        received = sum(count.received for count in checked.counts.values())
        assert received == checked.events + len(checked.rejected)
        assert checked.events == (len(json.loads(checked.body)) if checked.body else 0)
        assert sum(c.invalid for c in checked.counts.values()) == len(checked.rejected)
