"""Usage files become events with lasting ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meterpost.core.errors import InvalidInput, NotFound
from meterpost.ingest.checks import Checks
from meterpost.ingest.files import ingest_file, read_file
from meterpost.ingest.model import DataColumn, FileMapping, FixedValue, FromColumn, TimeColumn
from meterpost.ingest.service import Intake

DATA = Path(__file__).parents[2] / "data" / "ingest"
TRACE = FileMapping(
    name="code",
    format="csv",
    source="/azure/code",
    type="llm.request",
    time=TimeColumn("TIMESTAMP", zone="UTC"),
    subject=FixedValue("code-service"),
    data={"tokens": DataColumn("ContextTokens", "integer")},
)
LOG = FileMapping(
    name="access",
    format="combined_log",
    source="/web",
    type="http.request",
    time=TimeColumn("time", "combined_log"),
    subject=FromColumn("client"),
    data={"bytes": DataColumn("bytes", "integer"), "path": DataColumn("path")},
)


def events(path, mapping):
    return [json.loads(event) for batch in read_file(path, mapping) for event in batch.events]


def bad(path, mapping):
    return [(r.index, r.problem.code) for batch in read_file(path, mapping) for r in batch.bad]


@pytest.fixture
def intake(recorder):
    return Intake(Checks(accept_unknown_types=True), recorder)


def test_csv_of_a_real_trace(intake, recorder):
    """Every row becomes an event; seven decimals of the time stay; the zone is the mapping's."""
    seen = []
    report = ingest_file(
        DATA / "azure_llm_code_300.csv", TRACE, intake, correlation_id="c", by="file:code",
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert (report.read, report.accepted, report.rejected) == (299, 299, 0)
    first = recorder.events()[0]
    assert first["time"] == "2023-11-16T18:17:03.9799600Z"
    assert first["data"] == {"tokens": 4808}
    assert first["subject"] == "code-service"
    size = (DATA / "azure_llm_code_300.csv").stat().st_size
    assert seen[-1] == (size, size)


def test_access_log(intake, recorder):
    """The combined format, with its one broken line in quarantine by line number and bytes."""
    report = ingest_file(
        DATA / "apache_access_300.log", LOG, intake, correlation_id="c", by="file:access"
    )
    assert (report.read, report.accepted, report.rejected) == (303, 302, 1)
    assert report.problems[0].code == "not-combined-log"
    rejected = [r for one in recorder.submissions for r in one.checked.rejected]
    assert rejected[0].index == 301
    assert rejected[0].raw.startswith(b"46.118.127.106")
    assert rejected[0].source == "/web"
    assert recorder.events()[0]["time"] == "2015-05-17T10:05:03Z"


def test_equal_lines_have_ids_of_their_own_and_keep_them():
    """Lines equal to the letter are told apart by their ordinal; reading again repeats all ids."""
    first, again = (events(DATA / "apache_access_300.log", LOG) for _ in range(2))
    ids = [event["id"] for event in first]
    assert len(set(ids)) == len(ids) == 302
    assert ids[-1] == f"{ids[-2]}-2"
    assert first == again


def test_a_grown_file_repeats_the_ids_of_its_old_part(tmp_path):
    """Appending adds ids; even a last line without newline keeps its id when one follows."""
    lines = (DATA / "azure_llm_code_300.csv").read_bytes().splitlines(keepends=True)
    file = tmp_path / "trace.csv"
    file.write_bytes(b"".join(lines[:200]).rstrip(b"\r\n"))
    before = events(file, TRACE)
    file.write_bytes(b"".join(lines))
    after = events(file, TRACE)
    assert after[: len(before)] == before
    assert (len(before), len(after)) == (199, 299)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Vienna"])
def test_naive_times_take_the_zone_of_the_mapping(tmp_path, zone):
    """A DST day is read by the zone's rules; a moment the clocks skipped is refused."""
    file = tmp_path / "a.csv"
    file.write_text("t\n2026-03-29 01:30:00\n2026-03-29 02:30:00\n2026-03-29T03:30:00.5\n")
    mapping = FileMapping("a", "csv", "s", "t", TimeColumn("t", zone=zone))
    times = [event["time"][11:] for event in events(file, mapping)]
    if zone == "UTC":
        assert times == ["01:30:00Z", "02:30:00Z", "03:30:00.5Z"]
    else:
        assert times == ["00:30:00Z", "01:30:00.5Z"]
        assert bad(file, mapping) == [(3, "invalid-time")]


def test_a_mapping_without_zone_is_told_before_anything_is_sent(tmp_path):
    """Naive times without a zone stop the run with the sentence that helps."""
    mapping = FileMapping("a", "csv", "s", "t", TimeColumn("TIMESTAMP"))
    with pytest.raises(InvalidInput, match="zone:"):
        events(DATA / "azure_llm_code_300.csv", mapping)


def test_mappings_that_do_not_fit(tmp_path):
    """Missing columns, unknown zones and missing files are said before the first line."""
    wrong = FileMapping("a", "csv", "s", "t", TimeColumn("when", zone="UTC"))
    with pytest.raises(InvalidInput, match="no column when"):
        events(DATA / "azure_llm_code_300.csv", wrong)
    with pytest.raises(InvalidInput, match="Mars"):
        events(
            DATA / "azure_llm_code_300.csv",
            FileMapping("a", "csv", "s", "t", TimeColumn("t", zone="Mars")),
        )
    with pytest.raises(NotFound):
        events(tmp_path / "none.csv", TRACE)


def test_bad_lines_cost_only_themselves(tmp_path):
    """Wrong UTF-8, wrong column counts, open quotes and non-numbers are named by line."""
    file = tmp_path / "a.csv"
    file.write_bytes(
        b'\xef\xbb\xbft,n,x\n2026-01-01,1,a\n2026-01-01T00:00:00Z,1,"a,""b""\n2"\n'
        b"2026-01-01T00:00:00Z,1,\xff\n2026-01-01T00:00:00Z,1\n2026-01-01T00:00:00Z,1.5,a\n"
        b'2026-01-01T00:00:00Z,,"a"b\n2026-01-01T00:00:00Z,,\n2026-01-01T00:00:00Z,1,"a\n'
    )
    mapping = FileMapping(
        "a", "csv", "s", "t", TimeColumn("t"),
        data={"n": DataColumn("n", "integer"), "x": DataColumn("x")},
    )  # fmt: skip
    assert [event["data"] for event in events(file, mapping)] == [{"n": 1, "x": 'a,"b"\n2'}, {}]
    assert bad(file, mapping) == [
        (2, "invalid-time"),
        (5, "wrong-utf8"),
        (6, "wrong-columns"),
        (7, "not-an-integer"),
        (8, "invalid-csv"),
        (10, "invalid-csv"),
    ]


def test_ndjson_with_mapping_keeps_digits(tmp_path):
    """Dotted paths are followed; decimals too long for JSON readers travel as strings."""
    file = tmp_path / "a.ndjson"
    file.write_text(
        '{"at": 1700000000123, "who": {"id": 7}, "cost": 0.12345678901, "n": "1e3"}\n'
        '{"at": 1700000000, "who": {"id": "x"}, "cost": 1.50}\n[]\n'
    )
    mapping = FileMapping(
        "a", "ndjson", "s", "t", TimeColumn("at", "unix_milliseconds"), FromColumn("who.id"),
        data={"cost": DataColumn("cost", "decimal"), "n": DataColumn("n", "decimal")},
    )  # fmt: skip
    first, second = events(file, mapping)
    assert (first["subject"], first["time"]) == ("7", "2023-11-14T22:13:20.123Z")
    assert first["data"] == {"cost": "0.12345678901", "n": 1000}
    assert second["data"] == {"cost": 1.5}
    assert bad(file, mapping) == [(3, "not-an-object")]


def test_lines_that_are_cloudevents_already(tmp_path, intake, recorder, event):
    """Without a mapping each line is an event and goes through the checks as it is."""
    file = tmp_path / "events.ndjson"
    file.write_text(json.dumps(event()) + "\n\n{}\n" + json.dumps(event(id="e2")))
    report = ingest_file(file, None, intake, correlation_id="c", by="file")
    assert (report.read, report.accepted, report.rejected) == (3, 2, 1)
    assert report.problems[0].where.startswith("events.ndjson:3")
    assert [one["id"] for one in recorder.events()] == ["e1", "e2"]


def test_a_line_without_end_does_not_fill_memory(tmp_path):
    """Megabytes without a newline are one bad line, kept in its first part."""
    file = tmp_path / "a.log"
    file.write_bytes(b"x" * 5_000_000 + b"\n" + (DATA / "apache_access_300.log").read_bytes()[:300])
    (first, *_) = [r for batch in read_file(file, LOG) for r in batch.bad]
    assert (first.index, first.problem.code) == (1, "line-too-long")
    assert len(first.raw) < 1_100_000
