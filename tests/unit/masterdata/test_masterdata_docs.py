"""The documentation's example works as it stands."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from meterpost.core.period import Period
from meterpost.masterdata.importing import import_files
from meterpost.masterdata.reading import FIELDS
from meterpost.masterdata.resolution import assignments, billing_lines
from meterpost.masterdata.service import snapshot

DOCS = Path(__file__).parents[3] / "docs" / "masterdata.md"


def test_the_example_can_be_imported_and_billed(store, tmp_path):
    """The file to copy gives two billing lines, one of them with the subject's usage."""
    text = DOCS.read_text("utf-8").split("```yaml\n")[1].split("```")[0]
    book = tmp_path / "book.yaml"
    book.write_text(text, "utf-8")
    report = import_files(store, [book], actor="ada", now=datetime(2026, 11, 2, tzinfo=UTC))
    assert report.refused == ()
    known = snapshot(store)
    october = Period.month("2026-10", "Europe/Vienna")
    lines = billing_lines(known, "acme-at", october, ["tokens"])
    assert [line.line for line in lines] == ["C-1001/platform", "C-1001/tokens"]
    assert all(known.price(line.price, october.start) for line in lines)
    assert assignments(known, lines)["subject"].to_pylist() == ["key-4711"]


def test_every_field_is_documented():
    """No field of a record is missing from the page."""
    text = DOCS.read_text("utf-8")
    names = {name for entity, names in FIELDS.items() if entity != "prices" for name in names}
    assert {name for name in names if name not in text} == set()
