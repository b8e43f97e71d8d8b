"""How a meter lies in the store: its columns, its condition, its rollup key."""

from __future__ import annotations

from dataclasses import dataclass

from meterpost.core.canonical import digest
from meterpost.metering.expression_sql import Kind, identifier, path_name
from meterpost.metering.expressions import Compiled, compile_meter
from meterpost.metering.model import Aggregation, Meter
from meterpost.storage.duckdb.schema import text
from meterpost.storage.duckdb.types import result_type

_NUMBER = "DECIMAL(27,9)"


@dataclass(frozen=True, slots=True)
class MeasuredColumn:
    """One column of a measurement table: what an expression gives for each event.

    filter → 1 holds, 0 does not, NULL failed; value and unique → NULL failed; dimension →
    '' where the field is missing, NULL failed.
    """

    name: str
    formula: str
    compiled: Compiled

    @property
    def sql_name(self) -> str:
        """The quoted name."""
        return identifier(self.name)


@dataclass(frozen=True, slots=True)
class MeterPlan:
    """A meter with its columns. ``filter`` and ``value`` are None where the meter has none."""

    meter: Meter
    filter: MeasuredColumn | None
    value: MeasuredColumn | None
    dimensions: tuple[tuple[str, MeasuredColumn], ...]

    @property
    def columns(self) -> tuple[MeasuredColumn, ...]:
        """All of them."""
        own = [column for column in (self.filter, self.value) if column is not None]
        return (*own, *(column for _, column in self.dimensions))

    @property
    def unique(self) -> bool:
        """Whether distinct texts are counted instead of numbers added."""
        return self.meter.aggregation is Aggregation.UNIQUE

    @property
    def latest(self) -> bool:
        """Whether the last value counts."""
        return self.meter.aggregation is Aggregation.LATEST

    @property
    def numeric(self) -> bool:
        """Whether events have a number."""
        return self.value is not None and not self.unique

    @property
    def measured(self) -> str:
        """The condition for an event to be measured; with `failed` and `filtered` a partition."""
        parts = [f"{self.filter.sql_name} = 1"] if self.filter else []
        parts += [f"{column.sql_name} IS NOT NULL" for column in self._needed]
        return f"({' AND '.join(parts)})" if parts else "TRUE"

    @property
    def failed(self) -> str:
        """The condition for an event to have no exact result where one is due."""
        missing = " OR ".join(f"{column.sql_name} IS NULL" for column in self._needed) or "FALSE"
        if self.filter is None:
            return f"({missing})"
        holds = self.filter.sql_name
        return f"({holds} IS NULL OR ({holds} = 1 AND ({missing})))"

    @property
    def filtered(self) -> str:
        """The condition for an event to be left out by the filter."""
        return f"({self.filter.sql_name} IS NOT DISTINCT FROM 0)" if self.filter else "FALSE"

    @property
    def _needed(self) -> list[MeasuredColumn]:
        value = [self.value] if self.value else []
        return [*value, *(column for _, column in self.dimensions)]

    @property
    def dims_json(self) -> str:
        """SQL of the dimension tuple as JSON text, keys sorted."""
        if not self.dimensions:
            return "'{}'"
        pairs = ", ".join(f"{text(name)}, {column.sql_name}" for name, column in self.dimensions)
        return f"CAST(json_object({pairs}) AS VARCHAR)"

    @property
    def measure_key(self) -> str:
        """Equal for meters that share rollups: same type, filter, value and dimensions."""
        return digest(
            [
                self.meter.event_type,
                self.filter.name if self.filter else None,
                self.value.name if self.value else None,
                [[name, column.name] for name, column in self.dimensions],
                self.latest,
            ]
        )


def plan_of(meter: Meter) -> MeterPlan:
    """The meter's plan.

    Raises: InvalidInput for expressions that are refused.
    """
    compiled = compile_meter(meter)
    return MeterPlan(
        meter,
        _column(compiled.filter) if compiled.filter else None,
        _column(compiled.value) if compiled.value else None,
        tuple((name, _column(part)) for name, part in compiled.dimensions),
    )


def _column(part: Compiled) -> MeasuredColumn:
    formula = _formula(part)
    return MeasuredColumn(f"{part.kind[0]}_{digest(formula)[:20]}", formula, part)


def _formula(part: Compiled) -> str:
    bare = _bare_field(part)
    match part.kind:
        case "filter":
            return f"CAST(TRY(CASE WHEN {part.sql} THEN 1 ELSE 0 END) AS TINYINT)"
        case "value" if bare is not None:
            return identifier(f"#{bare}")
        case "value":
            own = result_type(part)
            short = f"CAST({part.sql} AS {_NUMBER})"
            if own.startswith("DECIMAL") and int(own[8:-1].split(",")[1]) > 9:
                # A product can have more than nine decimals: it counts where the rest are zeros.
                return f"TRY(CASE WHEN CAST({short} AS {own}) = {part.sql} THEN {short} END)"
            return f"TRY({short})"
        case "dimension" if bare is not None:
            return f"coalesce({identifier(bare)}, '')"
        case "dimension":
            return f"TRY(coalesce({part.sql}, ''))"
        case _ if bare is not None:
            return identifier(bare)
        case _:
            return f"TRY({part.sql})"


def _bare_field(part: Compiled) -> str | None:
    """The field where the whole expression is one field, which then needs no guard."""
    if len(part.fields) != 1:
        return None
    [path] = part.fields
    name = path_name(path)
    if part.result is Kind.NUMBER:
        guard = f"CASE WHEN {identifier('#' + name)} IS NULL AND {identifier(name)} IS NOT NULL"
        simple = part.sql.startswith(guard) and part.sql.endswith(
            f"ELSE {identifier('#' + name)} END"
        )
        return name if simple and part.sql.count(identifier("#" + name)) == 2 else None
    return name if part.sql == identifier(name) else None
