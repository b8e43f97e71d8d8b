"""All master data as it was known at one revision, in columns."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from meterpost.core.errors import NotFound
from meterpost.core.ids import LegalEntityId, PriceId
from meterpost.core.period import BillingCycle, BillingInterval, Period
from meterpost.masterdata.model import AccountingPeriod, LegalEntity
from meterpost.rating.model import Price, price_from_plain

#: The entities a snapshot reads.
SNAPSHOT_ENTITIES = (
    "legal_entities",
    "customers",
    "items",
    "prices",
    "contracts",
    "contract_lines",
    "subscriptions",
    "accounting_periods",
    "crosswalk",
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)
_OPEN_US = (datetime(9990, 1, 1, tzinfo=UTC) - _EPOCH) // _TICK


def to_us(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - _EPOCH) // _TICK


def from_us(us: int) -> datetime:
    """The moment of that many microseconds since 1970."""
    return _EPOCH + us * _TICK


class MasterdataSnapshot:
    """Master data as known at ``rev``; later imports do not change it.

    ``tables`` has an Arrow table per entity, shaped as `ports.MasterdataStore.tables` says.
    """

    def __init__(self, rev: int, tables: Mapping[str, pa.Table]) -> None:
        self.rev = rev
        self.tables = tables
        self._prices: dict[str, list[tuple[int, int, str]]] | None = None
        self._parsed: dict[str, Price] = {}

    def legal_entities(self) -> list[LegalEntity]:
        """The legal entities, in order of id; where one has several versions, all of them."""
        rows = self.tables["legal_entities"].sort_by([("id", "ascending")]).to_pylist()
        return [LegalEntity(**row) for row in map(self._versioned, rows)]

    def accounting_period(self, legal_entity: LegalEntityId, id: str) -> AccountingPeriod:
        """A period of a legal entity's books; its latest version.

        Raises: NotFound.
        """
        for period in reversed(self.accounting_periods(legal_entity)):
            if period.id == id:
                return period
        known = ", ".join(p.id for p in self.accounting_periods(legal_entity)[-6:])
        raise NotFound(
            f"{legal_entity} has no accounting period {id}.",
            hint=f"Known: {known}." if known else "Import some under `accounting_periods:`.",
        )

    def accounting_periods(self, legal_entity: LegalEntityId) -> list[AccountingPeriod]:
        """The periods of a legal entity's books, in order."""
        table = self.tables["accounting_periods"]
        found = []
        for row in table.to_pylist():
            if row["legal_entity"] == legal_entity:
                row["starts_at"], row["ends_at"] = (
                    from_us(row["starts_at"]),
                    from_us(row["ends_at"]),
                )
                found.append(AccountingPeriod(**self._versioned(row)))
        return sorted(found, key=lambda p: (p.starts_at, p.valid_from))

    def price(self, id: PriceId, at: datetime) -> Price | None:
        """The price in force at a moment; None where it has no definition then.

        A `BillingLine` spans no change of its price, so any moment of ``in_force`` gives the
        same.
        """
        if self._prices is None:
            self._prices = defaultdict(list)
            columns = ("id", "valid_from", "valid_to", "definition")
            table = self.tables["prices"]
            for name, *version in zip(*(table[c].to_pylist() for c in columns), strict=True):
                self._prices[name].append(tuple(version))
        us = to_us(at)
        for start, end, definition in self._prices.get(id, ()):
            if start <= us < end:
                if definition not in self._parsed:
                    self._parsed[definition] = price_from_plain(json.loads(definition))
                return self._parsed[definition]
        return None

    def _versioned(self, row: dict[str, Any]) -> dict[str, Any]:
        start, end = row["valid_from"], row["valid_to"]
        row["valid_from"] = from_us(start)
        row["valid_to"] = None if end > _OPEN_US else from_us(end)
        row["rev_to"] = None
        return row


def billing_periods(contracts: pa.Table, window: Period) -> pa.Table:
    """The billing periods that end in the window, of every cycle that a contract has.

    Shape: billing_interval, billing_anchor, zone (as in contracts), period_start, period_end
    (int64 microseconds).
    """
    names = ["billing_interval", "billing_anchor", "zone"]
    cycles = contracts.select(names).group_by(names).aggregate([])
    rows: list[dict[str, object]] = []
    for row in cycles.to_pylist():
        anchor = date.fromisoformat(row["billing_anchor"])
        cycle = BillingCycle(BillingInterval(row["billing_interval"]), anchor, row["zone"])
        rows.extend(
            {**row, "period_start": to_us(period.start), "period_end": to_us(period.end)}
            for period in cycle.ending_in(window)
        )
    moments = {"period_start": pa.int64(), "period_end": pa.int64()}
    types = {**dict.fromkeys(names, pa.string()), **moments}
    return pa.Table.from_pylist(rows, schema=pa.schema(list(types.items())))
