"""Files as people write them, and what is wrong with them, by line."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from meterpost.core.problem import Problem
from meterpost.masterdata.files import parse_file
from meterpost.masterdata.importing import import_files

NOW = datetime(2026, 11, 2, tzinfo=UTC)


def parse(text: str | bytes, name: str = "f.yaml") -> tuple[list[Any], list[Problem]]:
    problems: list[Problem] = []
    data = text if isinstance(text, bytes) else text.encode()
    return parse_file(name, data, problems), problems


def test_yaml_keeps_text_as_written():
    """Numbers that are names, days and moments arrive as they stand in the file."""
    (record,), problems = parse(
        "customers:\n  - id: 0047\n    name: 12\n    valid_from: 2026-10-01\n    status: ~\n"
    )
    assert not problems
    assert record.values == {"id": "0047", "name": 12, "valid_from": "2026-10-01", "status": None}
    assert record.where == "f.yaml:2"
    assert record.places["name"] == "f.yaml:3"


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        ("customers:\n  - {id: a", "bad-yaml", "f.yaml:2"),
        ("customers:\n\t- x", "bad-yaml", "f.yaml:2"),
        ("a: \0", "bad-character", "f.yaml:1"),
        ("customer:\n  - id: a", "unknown-key", "f.yaml:1"),
        ("customers: {id: a}", "wrong-type", "f.yaml:1"),
        ("customers:\n  - a", "wrong-type", "f.yaml:1"),
        ("- a", "wrong-type", "f.yaml:1"),
        ("customers:\n  - id: a\n    id: b", "double-key", "f.yaml:3"),
        ("customers:\n  - id: !python/object:os.system a", "unknown-tag", "f.yaml:2"),
        ("customers: &x [*x]", "too-large", "f.yaml:1"),
        (b"customers:\n  - id: \xff", "not-utf-8", "f.yaml:2"),
    ],
)
def test_bad_yaml_is_told_by_line(text, code, where):
    """What cannot be read names its place."""
    _, problems = parse(text)
    assert (problems[0].code, problems[0].where) == (code, where)


def test_many_aliases_are_bounded():
    """A file that repeats itself without end is refused, not expanded."""
    lines = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    _, problems = parse("\n".join(lines))
    assert "too-large" in {p.code for p in problems}


def test_csv_rows_know_their_lines():
    """A row's line is where it starts, quoted line breaks included."""
    records, problems = parse('id,name\na,"two\nlines"\n\nb,B\n', "customers.csv")
    assert not problems
    assert [(r.where, r.values["id"]) for r in records] == [
        ("customers.csv:2", "a"),
        ("customers.csv:5", "b"),
    ]


def test_csv_may_name_its_entity_in_a_column():
    """A column `entity` says what each row is."""
    records, _ = parse("entity,id,unit\nitems,a,x\ncustomers,b,\n", "any.csv")
    assert [(r.entity, r.values) for r in records] == [
        ("items", {"id": "a", "unit": "x"}),
        ("customers", {"id": "b"}),
    ]


def test_csv_prices_take_tiers_as_json():
    """Tiers are a JSON list in their cell; its fractions stay exact."""
    tiers = '[{""up_to"": 1000, ""unit_price"": 0.1}, {""unit_price"": ""0.05""}]'
    records, _ = parse(f'id,currency,model,tiers\np,EUR,graduated,"{tiers}"\n', "prices.csv")
    assert str(records[0].values["tiers"][0]["unit_price"]) == "0.1"


@pytest.mark.parametrize(
    ("text", "name", "code"),
    [
        ("id\na\n", "any.csv", "unknown-entity"),
        ("entity,id\ndogs,a\n", "any.csv", "unknown-entity"),
        ("id,id\na,b\n", "customers.csv", "double-key"),
        ("id,name\na\n", "customers.csv", "bad-csv"),
        ('id,name\na,"b\n', "customers.csv", "bad-csv"),
        ("id,tiers\na,[\n", "prices.csv", "bad-tiers"),
        ("x", "customers.txt", "unknown-format"),
    ],
)
def test_bad_csv_is_refused(text, name, code):
    """Each mistake in a CSV file has its own code."""
    _, problems = parse(text, name)
    assert [p.code for p in problems] == [code]


def test_files_are_imported_together(store, tmp_path: Path):
    """Records of several files may lean on each other; problems name file and line."""
    book = tmp_path / "book.yaml"
    book.write_text(
        "zone: Europe/Vienna\n"
        "legal_entities:\n  - {id: at, currency: EUR, zone: Europe/Vienna}\n"
        "items:\n  - {id: i, unit: token}\n"
        "contracts:\n"
        "  - id: C\n"
        "    customer: ada\n"
        "    legal_entity: at\n"
        "    lines:\n"
        "      - id: L\n"
        "        item: i\n"
        "        price:\n"
        "          model: per_unit\n"
        "          unit_price: 0.25\n"
    )
    customers = tmp_path / "customers.csv"
    customers.write_text("id,name\nada,Ada\n")
    report = import_files(store, [book, customers], actor="ada", now=NOW)
    (problem,) = report.refused
    assert (problem.code, problem.where) == ("float", f"{book}:15")
    assert 'unit_price: "0.25"' in problem.hint
    book.write_text(book.read_text().replace("0.25", '"0.25"'))
    report = import_files(store, [book, customers], actor="ada", now=NOW)
    assert report.refused == ()
    assert report.counts["added"] == 6
    missing = import_files(store, [tmp_path / "no.yaml"], actor="ada", now=NOW)
    assert [p.code for p in missing.refused] == ["unreadable"]
