"""Whose usage it is: billing lines of a close, and the spans of subjects that belong to them.

Everything is joined in columns, for all lines at once; moments stay exact to the microsecond.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from meterpost.core.ids import (
    ContractId,
    ContractLineId,
    CustomerId,
    ItemId,
    LegalEntityId,
    MeterId,
    PriceId,
)
from meterpost.core.period import Period
from meterpost.masterdata import resolution_sql as sql
from meterpost.masterdata.snapshot import MasterdataSnapshot, billing_periods, from_us, to_us
from meterpost.rating.model import WHOLE, PartialPeriod, Share, share_of

_MOMENT = pa.timestamp("us", tz="UTC")

#: Why usage belongs to no billing line (`classify_unassigned`).
UNMATCHED = "unmatched"
NO_CONTRACT = "no_contract"
ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class BillingLine:
    """A contract line in one billing period, or a part of it where its terms changed midway.

    ``in_force`` is the line's own span inside ``period``; ``version`` counts the spans with
    different terms from 1, and ``in_force_total`` is the time of all of them together.
    ``price`` is None where the line names none or the price has no definition then. Categories
    and accounts that the line leaves out come from its item, then its customer; ``payment_term``
    is the contract's or customer's at the end of the period, the same on all its lines.
    """

    key: str
    contract: ContractId
    customer: CustomerId
    line: ContractLineId
    version: int
    meter: MeterId | None
    item: ItemId
    price: PriceId | None
    currency: str
    tax_category: str | None
    revenue_account: str | None
    payment_term: str | None
    partial_period: PartialPeriod
    period: Period
    in_force: Period
    in_force_total: timedelta
    description: str
    unit: str
    zone: str

    def share(self, days_used: int = 0) -> Share:
        """What scales included quantity, tier bounds, fixed amounts and the minimum.

        ``by_time``: this span's part of the period. ``full``: the whole, which versions divide
        by their time, so that a change of terms does not charge a fixed fee twice.
        ``by_usage_day``: the local days with usage in this span, as part of the period's days.
        """
        if self.partial_period is PartialPeriod.FULL:
            own = self.in_force.end - self.in_force.start
            tick = timedelta(microseconds=1)
            if own == self.in_force_total:
                return WHOLE
            return Share(own // tick, self.in_force_total // tick)
        return share_of(
            self.partial_period,
            in_force=self.in_force,
            period=self.period,
            zone=self.zone,
            days_used=days_used,
        )


def line_key(line: str, period: Period, version: int) -> str:
    """What names a billing line within a close: contract line, period start, version.

    The parts cannot be confused: ids have no ``|``.
    """
    return f"{line}|{_key_moment(period.start)}|{version}"


@lru_cache(maxsize=10_000)
def _key_moment(moment: datetime) -> str:
    # The lines of a close share few periods, and formatting is the slow part of a key.
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def billing_lines(
    snapshot: MasterdataSnapshot,
    legal_entity: LegalEntityId,
    window: Period,
    meters: Collection[MeterId],
) -> list[BillingLine]:
    """Every line in force in a billing period that ends in the window, used or not.

    ``meters`` are those of the purpose; lines without a meter are always there. One billing
    line per change of terms (item, price or its definition, categories, accounts, partial
    period), in the order of contract, period, line and time.
    """
    contracts = snapshot.tables["contracts"]
    contracts = contracts.filter(pc.equal(contracts["legal_entity"], legal_entity))
    periods = billing_periods(contracts, window)
    if periods.num_rows == 0:
        return []
    starts, ends = periods["period_start"], periods["period_end"]
    bounds = (pc.min(starts).as_py(), pc.max(ends).as_py())
    with _duck(snapshot, contracts=contracts, periods=periods, meters=_texts(meters)) as duck:
        duck.execute(sql.CUTS, {"first": bounds[0], "last": bounds[1]})
        rows = duck.execute(sql.BILLING_LINES).fetchall()
    return list(_assembled(_joined(rows)))


def assignments(snapshot: MasterdataSnapshot, lines: Sequence[BillingLine]) -> pa.Table:
    """Which subjects' usage belongs to which billing line, and from when to when.

    Shape: line (`BillingLine.key`), meter, source, subject, start_utc, end_utc; the common part
    of link, subscription and line. Spans of one (meter, source, subject) do not overlap.
    """
    metered = [line for line in lines if line.meter is not None]
    table = pa.table(
        {
            "line": pa.array([line.key for line in metered], pa.string()),
            "contract": pa.array([line.contract for line in metered], pa.string()),
            "meter": pa.array([line.meter for line in metered], pa.string()),
            "s": pa.array([line.in_force.start for line in metered], _MOMENT).cast(pa.int64()),
            "e": pa.array([line.in_force.end for line in metered], _MOMENT).cast(pa.int64()),
        }
    )
    with _duck(snapshot, billing=table) as duck:
        return _with_moments(duck.sql(sql.ASSIGNMENTS).to_arrow_table())


def coverage(snapshot: MasterdataSnapshot, window: Period, meters: Collection[MeterId]) -> pa.Table:
    """Which usage in the window belongs to any contract line, of whatever entity and cycle.

    Shape: as `assignments`, with the contract line's id as ``line``. What it leaves out is
    unassigned; what it has and a close's assignments have not is another close's.
    """
    with _duck(snapshot, meters=_texts(meters)) as duck:
        bounds = {"first": to_us(window.start), "last": to_us(window.end)}
        found = duck.sql(sql.COVERAGE, params=bounds)
        return _with_moments(found.to_arrow_table())


def classify_unassigned(snapshot: MasterdataSnapshot, usage: pa.Table, period: Period) -> pa.Table:
    """The usage with why it is nobody's: columns reason, customer, subscription, contract added.

    ``usage`` has meter, source, subject and, if it can, first_at; each row is judged at its
    first event (without one, at the period's first moment at which the subject is linked).
    Reason: ``unmatched`` (the subject was linked to nothing), ``no_contract`` (linked, but no
    line for that meter was in force), ``elsewhere`` (a line was in force, so it belongs to
    another close). Rows keep their order.
    """
    if "first_at" in usage.column_names:
        first = usage["first_at"].cast(_MOMENT).cast(pa.int64())
    else:
        first = pa.nulls(usage.num_rows, pa.int64())
    names = ("meter", "source", "subject")
    asked = pa.table([*(usage[n].cast(pa.string()) for n in names), first], [*names, "first_at"])
    asked = asked.append_column("ordinal", pa.array(range(asked.num_rows), pa.int64()))
    bounds = {"first": to_us(period.start), "last": to_us(period.end)}
    with _duck(snapshot, asked=asked) as duck:
        found = duck.sql(sql.CLASSIFY, params=bounds).to_arrow_table()
    for name in ("reason", "customer", "subscription", "contract"):
        usage = usage.append_column(name, found[name])
    return usage


def _joined(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows as `BILLING_LINES` gives them, with neighbouring spans of equal terms made one."""
    result: list[tuple[Any, ...]] = []
    for row in rows:
        if result:
            last = result[-1]
            # A row is (start, end, payment term, description, then what splits: period and terms).
            if last[1] == row[0] and last[4:] == row[4:]:
                result[-1] = (last[0], *row[1:])
                continue
        result.append(row)
    return result


def _assembled(rows: Sequence[tuple[Any, ...]]) -> Iterator[BillingLine]:
    terms: dict[tuple[str, int], tuple[int, str | None]] = {}
    total: Counter[tuple[str, int]] = Counter()
    for start, end, term, _, contract, period_start, _, line, *_ in rows:
        total[line, period_start] += end - start
        latest = terms.get((contract, period_start))
        if latest is None or end > latest[0]:
            terms[contract, period_start] = (end, term)
    spans: dict[tuple[int, int], Period] = {}
    policies = {policy.value: policy for policy in PartialPeriod}
    versions: Counter[tuple[str, int]] = Counter()
    for row in rows:
        start, end, _, description, contract, period_start, period_end, line, *rest = row
        meter, item, price, _, currency, customer, tax, account, partial, unit, zone = rest
        period = _period(spans, period_start, period_end)
        place = (line, period_start)
        versions[place] += 1
        version = versions[place]
        yield BillingLine(
            line_key(line, period, version),
            contract,
            customer,
            line,
            version,
            meter,
            item,
            price,
            currency,
            tax,
            account,
            terms[contract, period_start][1],
            policies[partial],
            period,
            _period(spans, start, end),
            timedelta(microseconds=total[place]),
            description,
            unit,
            zone,
        )


def _period(known: dict[tuple[int, int], Period], start: int, end: int) -> Period:
    found = known.get((start, end))
    if found is None:
        found = known[start, end] = Period(from_us(start), from_us(end))
    return found


@contextmanager
def _duck(snapshot: MasterdataSnapshot, **tables: pa.Table) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that sees the snapshot's tables and the given ones."""
    with duckdb.connect(":memory:") as duck:
        for name, table in {**snapshot.tables, **tables}.items():
            duck.register(name, table)
        yield duck


def _texts(values: Collection[str]) -> pa.Table:
    return pa.table({"id": pa.array(sorted(values), pa.string())})


def _with_moments(table: pa.Table) -> pa.Table:
    for index, name in ((4, "start_utc"), (5, "end_utc")):
        table = table.set_column(index, name, table[name].cast(_MOMENT))
    return table
