"""YAML into the rooms' dataclasses: exact numbers, complaints with line and hint, bounds."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterpost.config.yamlfile import load
from meterpost.config.yamltree import BYTES_MAX, DEPTH_MAX, parse_yaml
from meterpost.core.errors import InvalidInput
from meterpost.core.problem import Problem
from meterpost.ingest.model import FileMapping
from meterpost.workflows.model import Workflow

GOOD = """\
name: usage-billing
purpose: bill
meters: [tokens]
target: erp
approval:
  automatic_up_to: 0.1000000000000000055
"""


def problems(tmp_path: Path, text: str | bytes, type_: type = Workflow) -> list[str]:
    path = tmp_path / "w.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InvalidInput) as raised:
        load(path, type_)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in raised.value.problems]


def test_a_dataclass_of_a_room_is_loaded(tmp_path: Path) -> None:
    """The value is the room's own type, nested ones and defaults included."""
    path = tmp_path / "w.yaml"
    path.write_text(GOOD)
    workflow = load(path, Workflow)
    assert workflow.meters == ("tokens",)
    assert workflow.approval.role == "approver"
    assert workflow.approval.automatic_up_to == Decimal("0.1000000000000000055")


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=9, min_value=-(10**15), max_value=10**15
    )
)
def test_numbers_are_exact(value: Decimal) -> None:
    """What is written is what arrives, digit by digit; it is never a float."""
    node, found = parse_yaml(f"a: {value:f}".encode(), "f")
    assert found == []
    assert node is not None
    got = node.plain()["a"]
    assert not isinstance(got, float)
    assert format(got, "f") == f"{value:f}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("true", True),
        ("2026-10-01", "2026-10-01"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("0x1F", 31),
        ("0o17", 15),
        ("-17", -17),
        ("1.50", Decimal("1.50")),
        ("1e3", Decimal("1e3")),
        (".5", Decimal(".5")),
        (".nan", ".nan"),
        (".inf", ".inf"),
        ("~", None),
        ("''", ""),
        ("'1.5'", "1.5"),
        ("!!str 1.5", "1.5"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    """Norway stays a country, dates stay text, fractions are decimal."""
    node, found = parse_yaml(f"a: {text}".encode(), "f")
    assert (found, node and node.plain()) == ([], {"a": value})


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    """Unknown key, wrong word, wrong kinds, missing key: each with its line and what helps."""
    text = """\
name: 4711
purpose: bill
meters: tokens
approval:
  automatic_up_to: [1]
  rolle: approver
late: delat
approvals: {}
"""
    assert sorted(problems(tmp_path, text)) == [
        "w.yaml:1: `name` must be text, not 4711. "
        'If it is meant as text, write it in quotes: "4711".',
        "w.yaml:1: `target` is missing.",
        "w.yaml:3: `meters` must be a list, not 'tokens'. "
        "Write one `- item` per line, or [item, item].",
        "w.yaml:5: `approval.automatic_up_to` is a list: Decimal input should be an integer, "
        "float, string or Decimal object.",
        "w.yaml:6: `approval.rolle` is not a key here. Did you mean `role`?",
        "w.yaml:7: `late` is 'delat', which is none of: delta. Did you mean `delta`?",
        "w.yaml:8: `approvals` is not a key here. Did you mean `approval`?",
    ]


def test_of_several_shapes_the_nearest_is_explained(tmp_path: Path) -> None:
    """A typo inside one of two possible shapes is one complaint, not one per shape."""
    text = """\
name: m
format: csv
source: s
type: t
time: {column: at}
subject: {value: x, values: y}
data:
  tokens: {column: tokens, type: integr}
"""
    assert problems(tmp_path, text, FileMapping) == [
        "w.yaml:6: `subject.values` is not a key here. Did you mean `value`?",
        "w.yaml:8: `data.tokens.type` is 'integr', which is none of: integer, decimal, text. "
        "Did you mean `integer`?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "w.yaml:3: `a` is given twice, first on line 1."),
        ("a:\n  <<: {b: 1}\n", "w.yaml:2: `<<` does not merge"),
        ("a: !!python/object:os.system x\n", "w.yaml:1: The tag"),
        ("a: !!float 1.5\n", "w.yaml:1: The tag"),
        ("a: &x [*x]\n", "w.yaml:1: *x stands inside"),
        ("a: *x\n", "w.yaml:1: *x is used before"),
        ("? [a]\n: 1\n", "w.yaml:1: A key has to be a word."),
        ("a: 1\n---\nb: 2\n", "w.yaml:2: A second YAML document"),
        ("a: [1,\nb: 2\n", "This is not YAML"),
        ("a: b: c\n", "w.yaml:1: This is not YAML"),
        ("a: \x07\n", "This is not YAML"),
        (b"a: ok\nb: \xff\n", "w.yaml:2: This is not UTF-8"),
        ("", "The file is empty."),
        ("# only a comment\n", "The file is empty."),
        ("[" * (DEPTH_MAX + 2), "nested deeper"),
        ("[" * 100_000, "nested deeper"),
        ("a: 1e999999999\n", "w.yaml:1: 1e999999999 has more than"),
        ("a: " + "9" * 41 + "\n", "has more than 40 digits"),
        ("x" * (BYTES_MAX + 1), "at most"),
        ("- a\n", "w.yaml:1: This must be `key: value` lines, not a list."),
        ("just text\n", "w.yaml:1: This must be `key: value` lines, not 'just text'."),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str | bytes, expected: str) -> None:
    """Doubles, tags, loops, bombs and broken text end in a sentence with a line."""
    assert expected in "\n".join(problems(tmp_path, text))


def test_aliases_cannot_multiply() -> None:
    """Ten levels of ten aliases would be ten billion values; the file is refused at once."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 11)]
    node, found = parse_yaml("\n".join(lines).encode(), "f")
    assert node is None
    assert [problem.code for problem in found] == ["too-large"]


def test_a_missing_file_is_a_problem() -> None:
    """A file that cannot be opened is said like everything else."""
    with pytest.raises(InvalidInput, match="No such file"):
        load(Path("/nowhere/w.yaml"), Workflow)


@given(st.binary(max_size=200))
def test_no_bytes_crash_it(data: bytes) -> None:
    """Whatever the file holds, the answer is a tree or problems."""
    node, found = parse_yaml(data, "f")
    assert node is None or node.plain() is not None
    assert all(isinstance(problem, Problem) for problem in found)


@given(st.text(alphabet="ab:-[]{}&*!|>?#,' \n\t%@`\"0.~", max_size=60))
def test_no_yaml_like_text_crashes_it(text: str) -> None:
    """The grammar's own characters in any order end the same way."""
    node, found = parse_yaml(text.encode(), "f")
    assert node is None or node.plain() is not None
    assert all(isinstance(problem, Problem) for problem in found)
