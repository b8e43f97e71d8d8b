"""The expressions of meters: what analysts write, checked and made exact.

The language is SQL scalar expressions over one event (docs/metering.md, "Expressions"). Nothing
of the analyst's text reaches a database: it is parsed, every node is checked against a list, and
new SQL is written from the accepted tree (`metering.expression_sql`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ParseError, SqlglotError

from meterpost.core.errors import InvalidInput
from meterpost.core.problem import Problem
from meterpost.metering.expression_sql import Emitter, FieldPath, Kind, Refused, path_name
from meterpost.metering.model import Aggregation, Meter

TEXT_LENGTH_MAX = 2_000
DIMENSIONS_MAX = 8
DIMENSION_NAME_MAX = 60

_ROOT_KINDS = {
    "value": Kind.NUMBER,
    "filter": Kind.TRUTH,
    "dimension": Kind.TEXT,
    "unique": Kind.TEXT,
}
_RESERVED_DIMENSIONS = {"subject", "source", "window_start", "window_end", "events", "meter"}


class _Language(DuckDB):
    """DuckDB's grammar without the operator DIV, so that div(a, b, scale) is a function."""

    class Tokenizer(DuckDB.Tokenizer):
        KEYWORDS: ClassVar = {
            word: t for word, t in DuckDB.Tokenizer.KEYWORDS.items() if word != "DIV"
        }


@dataclass(frozen=True, slots=True)
class Compiled:
    """An accepted expression: exact SQL over an event's attributes and prepared field columns.

    A field appears as ``"data.a"`` (its text) and ``"#data.a"`` (its exact number or NULL);
    whoever runs the SQL provides both. ``result`` is what the SQL gives.
    """

    sql: str
    kind: str
    result: Kind
    fields: frozenset[FieldPath]
    number_fields: frozenset[FieldPath]


def compile_expression(text: str, kind: str, where: str = "") -> Compiled | list[Problem]:
    """The expression as SQL, or what is wrong with it.

    ``kind`` is ``value``, ``filter``, ``dimension`` or ``unique``; ``where`` goes into problems.
    """
    result = _compiled(text, kind)
    if isinstance(result, Refused):
        return [Problem(result.code, result.sentence, where, result.hint)]
    return result


@lru_cache(maxsize=1024)
def _compiled(text: str, kind: str) -> Compiled | Refused:
    try:
        return _compile(text, kind)
    except Refused as refused:
        return refused


def _compile(text: str, kind: str) -> Compiled:
    want = _ROOT_KINDS[kind]
    if len(text) > TEXT_LENGTH_MAX:
        raise Refused("too-long", f"An expression has at most {TEXT_LENGTH_MAX} characters.")
    if not text.strip():
        raise Refused("empty", "The expression is empty.")
    try:
        statements = _Language().parse(text)
    except SqlglotError as exc:
        details = exc.errors if isinstance(exc, ParseError) else []
        near = details[0].get("highlight") if details else ""
        raise Refused(
            "syntax",
            f"{_clipped(text)} is not an expression"
            + (f": it stops making sense at {near!r}." if near else "."),
        ) from exc
    except RecursionError as exc:
        raise Refused("too-deep", "The expression is nested too deep.") from exc
    if len(statements) != 1 or statements[0] is None:
        raise Refused("not-one", f"{_clipped(text)} is more than one expression.")
    emitter = Emitter()
    root: exp.Expr = statements[0]
    try:
        sql, result = emitter.emit(root, want)
    except RecursionError as exc:
        raise Refused("too-deep", "The expression is nested too deep.") from exc
    if result is not want and want is Kind.TEXT:
        sql, result = f"CAST({sql} AS VARCHAR)", Kind.TEXT
    if result is not want:
        raise Refused(
            "wrong-kind", f"A {kind} has to be a {want}, and {_clipped(text)} is a {result}."
        )
    return Compiled(sql, kind, result, frozenset(emitter.fields), frozenset(emitter.numbers))


def _clipped(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")


@dataclass(frozen=True, slots=True)
class CompiledMeter:
    """A meter whose expressions are accepted. ``value`` is None for COUNT."""

    meter: Meter
    filter: Compiled | None
    value: Compiled | None
    dimensions: tuple[tuple[str, Compiled], ...]

    @property
    def expressions(self) -> tuple[Compiled, ...]:
        """All of them, in no particular order."""
        own = [part for part in (self.filter, self.value) if part is not None]
        return (*own, *(compiled for _, compiled in self.dimensions))


def compile_meter(meter: Meter) -> CompiledMeter:
    """The meter with its expressions compiled.

    Raises: InvalidInput with every problem of the meter.
    """
    compiled, problems = _check(meter)
    if compiled is None:
        raise InvalidInput(f"Meter {meter.id} cannot be used:", problems)
    return compiled


def meter_problems(meter: Meter) -> list[Problem]:
    """Everything that keeps a meter from being used; ``where`` names the meter's part."""
    return _check(meter)[1]


def fields_read(meter: Meter) -> set[FieldPath]:
    """The payload fields that a meter reads, whose numbers are checked on arrival.

    Raises: InvalidInput.
    """
    return {path for part in compile_meter(meter).expressions for path in part.fields}


def field_names(paths: set[FieldPath]) -> list[str]:
    """Fields as people write them, sorted."""
    return sorted(path_name(path) for path in paths)


def _check(meter: Meter) -> tuple[CompiledMeter | None, list[Problem]]:
    problems: list[Problem] = []

    def compiled(text: str, kind: str, where: str) -> Compiled | None:
        result = compile_expression(text, kind, where)
        if isinstance(result, list):
            problems.extend(result)
            return None
        return result

    if not meter.id or not meter.event_type or not meter.unit:
        problems.append(Problem("missing", "A meter needs an id, an event type and a unit."))
    counts = meter.aggregation is Aggregation.COUNT
    if counts and meter.value is not None:
        problems.append(
            Problem("count-value", "COUNT counts events and has no value.", "value", "Remove it.")
        )
    if not counts and meter.value is None:
        problems.append(
            Problem("missing", f"{meter.aggregation.upper()} needs a value expression.", "value")
        )
    if len(meter.dimensions) > DIMENSIONS_MAX:
        problems.append(
            Problem("too-many", f"A meter has at most {DIMENSIONS_MAX} dimensions.", "dimensions")
        )
    for name in meter.dimensions:
        if not name.isidentifier() or len(name) > DIMENSION_NAME_MAX or not name.isascii():
            problems.append(
                Problem(
                    "bad-name",
                    f"{name!r} cannot name a dimension.",
                    f"dimensions.{name}",
                    "Use letters, digits and underscores.",
                )
            )
        elif name.lower() in _RESERVED_DIMENSIONS:
            problems.append(
                Problem("bad-name", f"{name!r} has a meaning already.", f"dimensions.{name}")
            )
    unique = meter.aggregation is Aggregation.UNIQUE
    filtered = compiled(meter.filter, "filter", "filter") if meter.filter is not None else None
    value = None
    if meter.value is not None and not counts:
        value = compiled(meter.value, "unique" if unique else "value", "value")
    dimensions = [
        (name, part)
        for name, text in sorted(meter.dimensions.items())
        if (part := compiled(text, "dimension", f"dimensions.{name}")) is not None
    ]
    if problems:
        return None, problems
    return CompiledMeter(meter, filtered, value, tuple(dimensions)), []
