"""Four ledgers, each an exact partition, and the bridges between them, as values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, localcontext

from meterpost.core.canonical import plain_decimal, to_plain
from meterpost.core.money import EXACT

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A total and the cells it falls into.

    ``difference`` is the sum of absolute differences of the finest parts (a source's hours, a
    meter's lines), so errors that cancel out in the row do not hide.
    """

    key: Mapping[str, str]
    total: Decimal
    cells: Mapping[str, Decimal]
    difference: Decimal


@dataclass(frozen=True, slots=True)
class Ledger:
    """One partition: ``total_name`` = the sum of the cells, in ``unit``."""

    name: str
    unit: str
    total_name: str
    rows: tuple[LedgerRow, ...]

    @property
    def difference(self) -> Decimal:
        """What does not add up, in absolute terms."""
        return exact_sum(row.difference for row in self.rows)

    @property
    def total(self) -> Decimal:
        """The total of all rows."""
        return exact_sum(row.total for row in self.rows)

    def cells(self) -> Mapping[str, Decimal]:
        """Each cell over all rows."""
        names = dict.fromkeys(name for row in self.rows for name in row.cells)
        return {name: exact_sum(r.cells.get(name, _ZERO) for r in self.rows) for name in names}


@dataclass(frozen=True, slots=True)
class Bridge:
    """Two ways to one number; ``difference`` is summed in absolute terms, part by part."""

    name: str
    sentence: str
    left: Decimal
    right: Decimal
    difference: Decimal


@dataclass(frozen=True, slots=True)
class Balance:
    """The four ledgers of an accounting period and their bridges."""

    period: str
    legal_entities: tuple[str, ...]
    closes: tuple[int, ...]
    ledgers: tuple[Ledger, ...]
    bridges: tuple[Bridge, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def unexplained(self) -> Decimal:
        """0 where everything is accounted for; its size mixes units and means nothing else."""
        parts = [*(e.difference for e in self.ledgers), *(e.difference for e in self.bridges)]
        return exact_sum(parts)

    def to_plain(self) -> dict[str, object]:
        """JSON's own types, numbers exact as strings."""
        plain = to_plain(self)
        assert isinstance(plain, dict)
        return {**plain, "unexplained": plain_decimal(self.unexplained)}

    def table_rows(self) -> Iterator[tuple[str, str, str, str]]:
        """(ledger, row, cell, value) in reading order, for printing; empty cells are left out."""
        for ledger in self.ledgers:
            for row in ledger.rows:
                name = " ".join(value for value in row.key.values() if value)
                yield ledger.name, name, ledger.total_name, plain_decimal(row.total)
                for cell, value in row.cells.items():
                    if value:
                        yield ledger.name, name, cell, plain_decimal(value)
                if row.difference:
                    yield ledger.name, name, "unexplained", plain_decimal(row.difference)
        for bridge in self.bridges:
            yield (
                "bridges",
                bridge.name,
                bridge.sentence,
                (
                    f"{plain_decimal(bridge.left)} = {plain_decimal(bridge.right)}"
                    if not bridge.difference
                    else f"{plain_decimal(bridge.left)} ≠ {plain_decimal(bridge.right)}, "
                    f"unexplained {plain_decimal(bridge.difference)}"
                ),
            )


def partition(
    totals: Mapping[tuple[str, ...], Decimal],
    cells: Mapping[str, Mapping[tuple[str, ...], Decimal]],
    names: tuple[str, ...],
    shown: int,
) -> tuple[LedgerRow, ...]:
    """Rows of a ledger from its finest parts.

    Keys are tuples; the first ``shown`` parts, called ``names``, make the row, the rest is the
    grain at which differences are taken.
    """
    keys = set(totals).union(*cells.values())
    groups: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for key in keys:
        groups.setdefault(key[:shown], []).append(key)
    rows = []
    for group, parts in sorted(groups.items()):
        total = exact_sum(totals.get(part, _ZERO) for part in parts)
        sums = {
            cell: exact_sum(values.get(part, _ZERO) for part in parts)
            for cell, values in cells.items()
        }
        with localcontext(EXACT):
            difference = sum(
                (
                    abs(
                        totals.get(part, _ZERO)
                        - sum((values.get(part, _ZERO) for values in cells.values()), _ZERO)
                    )
                    for part in parts
                ),
                _ZERO,
            )
        rows.append(LedgerRow(dict(zip(names, group, strict=True)), total, sums, difference))
    return tuple(rows)


def exact_sum(values: Iterable[Decimal | int]) -> Decimal:
    """The sum without losing a digit."""
    with localcontext(EXACT):
        return sum((Decimal(value) for value in values), _ZERO)
