# SQL is put together from our own words; values are parameters or quoted
"""Measurement tables: one per event type, one column per distinct expression."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meterpost.metering.expression_sql import (
    FieldPath,
    exact_number_sql,
    identifier,
    json_path,
    path_name,
)
from meterpost.storage.duckdb.plans import MeasuredColumn, MeterPlan
from meterpost.storage.duckdb.schema import Connection, run, text

#: What every measurement row has besides the expressions' columns.
FRAME = ("seq", "time", "series", "lane1", "lane2")

#: Stored events with the attributes that expressions read.
STORED_EVENTS = """(
    SELECT e.seq, e.time, e.series, e.fp_hi AS lane1, e.fp_lo AS lane2, e.id, e.data, e.exact_data,
           s.source, s.subject, t.type, e.type AS type_no
    FROM events e JOIN series s ON s.no = e.series JOIN types t ON t.no = e.type
)"""


def table_name(type_no: int) -> str:
    """The measurement table of an event type."""
    return f"measurements_{type_no}"


def with_fields(source: str, columns: Sequence[MeasuredColumn]) -> str:
    """SQL of the source with the payload fields that the columns read: texts and exact numbers."""
    texts = sorted({path for column in columns for path in column.compiled.fields})
    numbers = sorted({path for column in columns for path in column.compiled.number_fields})
    if not texts:
        return source
    paths = ", ".join(text(json_path(path)) for path in texts)
    listed = ", ".join(
        f"_fields[{n}] AS {identifier(path_name(path))}" for n, path in enumerate(texts, 1)
    )
    exact = ", ".join(_number(path) for path in numbers)
    return f"""(
        SELECT *{", " + exact if exact else ""} FROM (
            SELECT *, {listed} FROM (
                SELECT *, json_extract_string(coalesce(exact_data, data), [{paths}]) AS _fields
                FROM {source})))"""


def _number(path: FieldPath) -> str:
    name = path_name(path)
    return f"{exact_number_sql(identifier(name))} AS {identifier('#' + name)}"


def measuring_sql(source: str, columns: Sequence[MeasuredColumn], *, keep: Sequence[str]) -> str:
    """SQL of one row per event of the source: the kept columns, then the measured ones."""
    formulas = [f"{column.formula} AS {column.sql_name}" for column in columns]
    return f"SELECT {', '.join([*keep, *formulas])} FROM {with_fields(source, columns)}"


def distinct_columns(plans: Iterable[MeterPlan]) -> list[MeasuredColumn]:
    """Each column once."""
    return list({column.name: column for plan in plans for column in plan.columns}.values())


def rebuild(connection: Connection, type_no: int, columns: Sequence[MeasuredColumn]) -> None:
    """Measure all stored events of a type anew, for these columns; in the caller's transaction."""
    source = f"(SELECT * FROM {STORED_EVENTS} WHERE type_no = {type_no})"
    query = measuring_sql(source, columns, keep=FRAME)
    name = table_name(type_no)
    run(connection, f"CREATE OR REPLACE TABLE {name} AS {query} ORDER BY seq")
    run(connection, "DELETE FROM measured_columns WHERE type = ?", [type_no])
    for column in columns:
        run(
            connection,
            "INSERT INTO measured_columns VALUES (?, ?, ?)",
            [type_no, column.name, column.formula],
        )
    run(connection, "UPDATE types SET measured = TRUE WHERE no = ?", [type_no])
