# SQL is put together from our own words; values are parameters or quoted
"""What DuckDB makes of accepted expressions: the check that no result is a floating number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import duckdb

from meterpost.core.problem import Problem
from meterpost.metering.expression_sql import Kind, identifier, path_name
from meterpost.metering.expressions import Compiled, compile_meter, meter_problems
from meterpost.metering.model import Meter
from meterpost.storage.duckdb.schema import run

_EXPECTED = {
    Kind.NUMBER: ("DECIMAL", "BIGINT", "INTEGER", "HUGEINT"),
    Kind.TRUTH: ("BOOLEAN",),
    Kind.TEXT: ("VARCHAR",),
    Kind.TIME: ("TIMESTAMP",),
}


def check_types(meters: Iterable[Meter]) -> list[Problem]:
    """What keeps meters from being measured exactly; needs no event store.

    ``where`` is ``<meter id>.<part>``.
    """
    problems: list[Problem] = []
    for meter in meters:
        own: Sequence[Problem] = meter_problems(meter)
        if not own:
            compiled = compile_meter(meter)
            parts = [("filter", compiled.filter), ("value", compiled.value)]
            parts += [(f"dimensions.{name}", part) for name, part in compiled.dimensions]
            own = [
                Problem(found.code, found.sentence, where, found.hint)
                for where, part in parts
                if part is not None
                for found in _problems(part)
            ]
        problems += [
            Problem(p.code, p.sentence, f"{meter.id}.{p.where}".rstrip("."), p.hint) for p in own
        ]
    return problems


def _problems(part: Compiled) -> list[Problem]:
    try:
        found = result_type(part)
    except duckdb.Error as exc:
        sentence = str(exc).splitlines()[0]
        return [Problem("not-computable", f"The expression cannot be computed: {sentence}")]
    if not found.startswith(_EXPECTED[part.result]):
        hint = "Write div(a, b, scale) for quotients." if found in {"DOUBLE", "FLOAT"} else ""
        return [
            Problem(
                "inexact-type", f"The expression gives {found}, not a {part.result}.", hint=hint
            )
        ]
    return []


@lru_cache(maxsize=4096)
def result_type(part: Compiled) -> str:
    """The DuckDB type of an expression, as DESCRIBE tells over an empty event.

    Raises: duckdb.Error where DuckDB refuses it (a pattern that does not parse, too many
    decimals in a product).
    """
    columns = [
        *(f"NULL::VARCHAR AS {identifier(name)}" for name in ("id", "source", "type", "subject")),
        "NULL::TIMESTAMP AS time",
    ]
    for path in sorted(part.fields):
        columns.append(f"NULL::VARCHAR AS {identifier(path_name(path))}")
        columns.append(f"NULL::DECIMAL(27,9) AS {identifier('#' + path_name(path))}")
    query = f"SELECT {part.sql} AS result FROM (SELECT {', '.join(columns)}) LIMIT 0"
    with duckdb.connect() as connection:
        run(connection, query)
        return str(run(connection, f"DESCRIBE {query}")[0][1])
