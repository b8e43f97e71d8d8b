"""The language of meters: what is read, what is refused, and with which sentence."""

from __future__ import annotations

import pytest

from meterpost.core.errors import InvalidInput
from meterpost.core.ids import MeterId
from meterpost.metering.expressions import (
    Compiled,
    compile_expression,
    compile_meter,
    fields_read,
    meter_problems,
)
from meterpost.metering.model import Aggregation, Meter


def compiled(text: str, kind: str = "value") -> Compiled:
    result = compile_expression(text, kind)
    assert isinstance(result, Compiled), [str(problem) for problem in result]
    return result


def refusal(text: str, kind: str = "value") -> str:
    result = compile_expression(text, kind, "value")
    assert isinstance(result, list), f"{text} was accepted as {result.sql}"
    return str(result[0])


@pytest.mark.parametrize(
    ("text", "numbers", "texts"),
    [
        ("data.tokens", {("tokens",)}, set()),
        ("data.a.b + data['a b'].c * 2", {("a", "b"), ("a b", "c")}, set()),
        ("CASE WHEN data.kind = 'x' THEN data.n ELSE 0 END", {("n",)}, {("kind",)}),
        ("coalesce(data.n, 0) - abs(data.m)", {("n",), ("m",)}, set()),
        ("div(data.bytes, 1000, 3)", {("bytes",)}, set()),
        ("length(data.text)", set(), {("text",)}),
        ("CAST(upper(data.n) AS decimal(10,2))", set(), {("n",)}),
        ("extract(hour FROM time)", set(), set()),
        ("greatest(data.a, data.b)", {("a",), ("b",)}, set()),
        ("data.a.b.c.d.e.f", {("a", "b", "c", "d", "e", "f")}, set()),
    ],
)
def test_context_decides_whether_a_field_is_read_as_number_or_text(text, numbers, texts):
    """Arithmetic and values read exact numbers; text functions and text comparisons read text."""
    result = compiled(text)
    assert result.number_fields == numbers
    assert result.fields == numbers | texts


@pytest.mark.parametrize(
    "text",
    [
        "data.status = 200 AND NOT data.cached",
        "data.model IN ('a', 'b') OR data.model LIKE 'gpt-%'",
        "data.n BETWEEN 1 AND 1e3",
        "data.x IS NOT NULL",
        "regexp_matches(subject, '^acme-[0-9]+$')",
        "time >= '2026-01-01T00:00:00+01:00' AND source <> 'test'",
        "date_trunc('day', time) = '2026-01-01'",
        "TRUE",
        "trim(lower(data.a)) || 'x' = concat(data.b, 'x')",
        "nullif(data.a, 0) IS NULL",
        " AND ".join(f"data.f{n} = {n}" for n in range(100)),
    ],
)
def test_filters_analysts_write_are_accepted(text):
    """Comparisons, lists, patterns, presence and moments make a filter; long chains too."""
    compiled(text, "filter")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("data.a / data.b", "div(a, b, scale)"),
        ("sqrt(data.a)", "Function sqrt is not allowed. Allowed: abs"),
        ("read_text('/etc/passwd')", "Function read_text is not allowed"),
        ("now()", "not allowed"),
        ("random()", "not allowed"),
        ("sum(data.a)", "aggregation"),
        ("(SELECT 1)", "cannot query"),
        ("data.a; DROP TABLE events", "more than one expression"),
        ("tokens", "data.tokens"),
        ("data", "Name a field"),
        ("data.items[0]", "Only names"),
        ("CAST(data.a AS double)", "never exact"),
        ("CAST(data.a AS decimal(38,12))", "does not fit"),
        ("1e30", "more than 18 whole digits"),
        ("0.1234567891", "9 decimals"),
        ("subject", "has to be a number"),
        ("data.a + 'x'", "is a text, where a number is needed"),
        ("1 +", "not an expression"),
        ("", "empty"),
        ("data.a + " * 300 + "1", "at most 2000 characters"),
        ("(" * 200 + "1" + ")" * 200, "nested"),
        ("data.a % 2", "not allowed"),
        ("INTERVAL 1 DAY", "not allowed"),
        ("div(data.a, 2)", "three arguments"),
        ("div(data.a, 2, 12)", "0 to 9"),
        ('data."a""b"', "field name"),
        ("CASE WHEN time > '2026-01-01T00:00:00' THEN 1 END", "no zone"),
        ("CASE WHEN data.a LIKE data.b THEN 1 END", "as a text"),
    ],
)
def test_everything_else_is_refused_with_a_sentence_that_helps(text, says):
    """A refusal names what was found and what is allowed instead."""
    assert says in refusal(text)


def test_the_place_of_a_problem_is_kept():
    """The caller's place, such as file and line, comes back with the problem."""
    [problem] = compile_expression("sqrt(data.a)", "value", "meters.yaml:7")
    assert problem.where == "meters.yaml:7"
    assert problem.code == "function-not-allowed"


def test_sql_of_the_analyst_is_never_passed_on():
    """Texts are quoted anew; nothing in them can end the literal."""
    sql = compiled("data.a = 'it''s; DROP TABLE x --'", "filter").sql
    assert "'it''s; DROP TABLE x --'" in sql


def meter(**changes: object) -> Meter:
    parts: dict[str, object] = {
        "id": MeterId("m"),
        "event_type": "t",
        "aggregation": Aggregation.SUM,
        "unit": "u",
        "value": "data.n",
    }
    return Meter(**{**parts, **changes})


def test_a_meters_problems_come_all_at_once():
    """Every part is checked, and each problem names its part."""
    bad = meter(
        value="sqrt(data.n)", filter="data.a /", dimensions={"subject": "data.x", "a b": "1"}
    )
    assert {problem.where for problem in meter_problems(bad)} == {
        "value", "filter", "dimensions.subject", "dimensions.a b"
    }  # fmt: skip
    with pytest.raises(InvalidInput, match="sqrt"):
        compile_meter(bad)


def test_count_needs_no_value_and_the_others_do():
    """COUNT with a value and SUM without one are both refused."""
    assert meter_problems(meter(aggregation=Aggregation.COUNT))[0].code == "count-value"
    assert not meter_problems(meter(aggregation=Aggregation.COUNT, value=None))
    assert meter_problems(meter(value=None))[0].where == "value"


def test_fields_read_are_those_of_all_parts():
    """The ingest edge learns every field whose digits matter."""
    found = fields_read(meter(filter="data.ok", dimensions={"model": "data.m.name"}))
    assert found == {("n",), ("ok",), ("m", "name")}
