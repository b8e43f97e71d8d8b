"""Billing lines, assignments and what is left over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest

from meterpost.core.period import Period
from meterpost.masterdata.resolution import (
    BillingLine,
    assignments,
    billing_lines,
    classify_unassigned,
    coverage,
)
from meterpost.masterdata.service import snapshot

OCTOBER = Period.month("2026-10", "Europe/Vienna")
START, END = OCTOBER.start, OCTOBER.end


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


def lines_of(store: Any, window: Period = OCTOBER, entity: str = "acme-at") -> list[BillingLine]:
    return billing_lines(snapshot(store), entity, window, ["tokens"])  # type: ignore[arg-type, list-item]


def spans_of(store: Any, window: Period = OCTOBER) -> list[tuple[object, ...]]:
    table = assignments(snapshot(store), lines_of(store, window))
    return sorted(tuple(row.values()) for row in table.to_pylist())


def test_every_line_in_force_is_there_used_or_not(example):
    """A close sees each line once, with categories from item and customer where it has none."""
    one, two = lines_of(example)
    assert (one.line, one.customer, one.contract) == ("C-1/tokens", "initech", "C-1")
    assert (one.tax_category, one.revenue_account, one.payment_term) == (
        "domestic",
        "4000",
        "net30",
    )
    assert (two.tax_category, two.payment_term, two.currency) == (None, None, "EUR")
    assert one.key == "C-1/tokens|2026-09-30T22:00:00Z|1"
    assert one.period == one.in_force == OCTOBER
    assert one.description == "Tokens"
    assert one.unit == "token"


def test_dst_month_is_an_hour_longer(example):
    """October in Vienna has 745 hours, and the line is in force for all of them."""
    assert lines_of(example)[0].in_force.seconds == 745 * 3600


def test_other_meters_and_entities_are_left_out(example, load):
    """Lines of meters that the purpose does not use are not billed; lines without a meter are."""
    load(
        contract_lines=[
            {"id": "other", "contract": "C-1", "meter": "gpu", "item": "tokens"},
            {"id": "fee", "contract": "C-1", "item": "tokens"},
        ]
    )
    assert [line.line for line in lines_of(example)] == ["C-1/tokens", "fee", "C-2/tokens"]
    assert lines_of(example, entity="nobody") == []


def test_line_without_price_is_billed_without_one(example, load):
    """A missing price does not hide the line: the close will hold it."""
    load(contract_lines=[{"id": "fee", "contract": "C-1", "item": "tokens"}])
    assert [line.price for line in lines_of(example)] == ["C-1/tokens", None, "C-1/tokens"]


def test_anchor_on_the_31st(load, example):
    """A period from an anchor on the 31st ends on the last day of a short month."""
    load(
        contracts=[
            {
                "id": "C-31",
                "customer": "globex",
                "legal_entity": "acme-at",
                "billing_anchor": "2026-01-31",
                "zone": "UTC",
                "lines": [{"id": "C-31/fee", "item": "tokens"}],
            }
        ]
    )
    november = Period.month("2026-11", "UTC")
    (line,) = [line for line in lines_of(example, november) if line.contract == "C-31"]
    assert line.period == Period(utc(2026, 10, 31), utc(2026, 11, 30))


def test_quarterly_contract_is_billed_when_its_quarter_ends(load, example):
    """A quarter is billed in the accounting period it ends in, and in no other."""
    load(
        contracts=[
            {
                "id": "Q",
                "customer": "globex",
                "legal_entity": "acme-at",
                "billing_interval": "quarter",
                "billing_anchor": "2026-02-01",
                "lines": [{"id": "Q/fee", "item": "tokens"}],
            }
        ]
    )
    september = Period.month("2026-09", "Europe/Vienna")
    assert "Q" not in {line.contract for line in lines_of(example, september)}
    (line,) = [line for line in lines_of(example) if line.contract == "Q"]
    assert line.period.local_days("Europe/Vienna")[0].isoformat() == "2026-08-01"


def test_line_that_starts_midway_is_in_force_from_then(load, example):
    """A line's share by time is its part of the period's elapsed time."""
    load(
        contract_lines=[
            {"id": "late", "contract": "C-1", "item": "tokens", "valid_from": "2026-10-16"}
        ]
    )
    (line,) = [line for line in lines_of(example) if line.line == "late"]
    assert line.in_force == Period(utc(2026, 10, 15, 22), END)
    assert str(line.share()) == "77/149"  # 385 of 745 hours


def test_price_change_midway_gives_a_version_each(load, example):
    """Each version has its own price and span; their shares are the line's."""
    load(
        prices=[
            {
                "id": "C-1/tokens",
                "currency": "EUR",
                "model": "per_unit",
                "unit_price": "0.000003",
                "valid_from": "2026-10-15T14:00:00Z",
            }
        ]
    )
    known = snapshot(example)
    first, second, *_ = billing_lines(known, "acme-at", OCTOBER, ["tokens"])
    change = utc(2026, 10, 15, 14)
    assert (first.version, first.in_force) == (1, Period(START, change))
    assert (second.version, second.in_force) == (2, Period(change, END))
    assert first.key != second.key
    prices = [known.price(line.price, line.in_force.start) for line in (first, second)]
    assert [str(price.unit_price) for price in prices] == ["0.0000025", "0.000003"]
    shares = [Fraction(s.numerator, s.denominator) for s in (first.share(), second.share())]
    assert sum(shares) == 1


def test_full_terms_are_divided_among_versions(load, example):
    """A fixed fee that is due in full is due once, even if its price changed midway."""
    fee = {"id": "fee", "contract": "C-1", "item": "tokens", "partial_period": "full"}
    price = {"model": "flat", "flat_amount": "10", "currency": "EUR"}
    load(contract_lines=[{**fee, "price": price, "valid_from": "2026-10-10"}])
    load(prices=[{**price, "id": "fee", "flat_amount": "20", "valid_from": utc(2026, 10, 20)}])
    first, second = [line for line in lines_of(example) if line.line == "fee"]
    assert first.in_force_total == END - utc(2026, 10, 9, 22)
    shares = [Fraction(s.numerator, s.denominator) for s in (first.share(), second.share())]
    assert sum(shares) == 1
    assert 0 < shares[0] < shares[1]


def test_rename_splits_nothing(load, example):
    """A new name of customer or item, or a new payment term, leaves the period whole."""
    load(
        customers=[
            {
                "id": "initech",
                "name": "Initrode",
                "tax_category": "domestic",
                "payment_term": "net14",
                "valid_from": "2026-10-15",
            }
        ]
    )
    load(
        items=[
            {
                "id": "tokens",
                "name": "New",
                "unit": "token",
                "revenue_account": "4000",
                "valid_from": "2026-10-15",
            }
        ]
    )
    one, _ = lines_of(example)
    assert (one.in_force, one.payment_term, one.description) == (OCTOBER, "net14", "New")


def test_hand_over_in_mid_month_splits_at_the_hour(load, example):
    """A subject that changes hands on the 15th at 14:00 is each customer's until and from then."""
    load(
        crosswalk=[
            {
                "system": "app",
                "kind": "subject",
                "external_id": "robot",
                "canonical_id": "S-2",
                "valid_from": "2026-10-15T14:00:00Z",
            }
        ]
    )
    change = utc(2026, 10, 15, 14)
    assert spans_of(example) == [
        ("C-1/tokens|2026-09-30T22:00:00Z|1", "tokens", "app", "robot", START, change),
        ("C-2/tokens|2026-09-30T22:00:00Z|1", "tokens", "app", "robot", change, END),
    ]


def test_assignment_is_the_common_part_of_link_subscription_and_line(load, example):
    """Usage counts only while the link, the subscription and the line all hold."""
    load(
        subscriptions=[{"id": "S-1", "contract": "C-1", "valid_to": "2026-10-21"}],
        crosswalk=[
            {
                "system": "app",
                "kind": "subject",
                "external_id": "robot",
                "canonical_id": "S-1",
                "valid_to": "2026-10-05",
            },
            {
                "system": "app",
                "kind": "subject",
                "external_id": "droid",
                "canonical_id": "S-1",
                "valid_from": "2026-10-05",
            },
        ],
    )
    assert [span[3:] for span in spans_of(example)] == [
        ("droid", utc(2026, 10, 4, 22), utc(2026, 10, 20, 22)),
        ("robot", START, utc(2026, 10, 4, 22)),
    ]


def test_microseconds_are_kept(load, example):
    """Boundaries that are no whole hours stay as they are."""
    moment = utc(2026, 10, 15, 14, 0, 0, 1)
    load(
        crosswalk=[
            {
                "system": "app",
                "kind": "subject",
                "external_id": "robot",
                "canonical_id": "S-1",
                "valid_to": moment,
            }
        ]
    )
    assert spans_of(example)[0][5] == moment


def usage(*rows: tuple[str, str, datetime | None]) -> pa.Table:
    meters, subjects, first = zip(*rows, strict=True)
    return pa.table(
        {
            "meter": list(meters),
            "source": ["app"] * len(rows),
            "subject": list(subjects),
            "events": list(range(len(rows))),
            "first_at": pa.array(first, pa.timestamp("us", tz="UTC")),
        }
    )


def test_unassigned_usage_says_why(load, example):
    """Unknown subjects, links without a contract, and usage of another close are told apart."""
    load(
        subscriptions=[{"id": "S-1", "contract": "C-1", "valid_to": "2026-10-21"}],
        crosswalk=[
            {
                "system": "app",
                "kind": "subject",
                "external_id": "late",
                "canonical_id": "S-2",
                "valid_from": "2026-10-20",
            }
        ],
    )
    asked = usage(
        ("tokens", "stranger", utc(2026, 10, 2)),
        ("tokens", "robot", utc(2026, 10, 25)),
        ("gpu", "robot", utc(2026, 10, 2)),
        ("tokens", "late", utc(2026, 10, 2)),
        ("tokens", "robot", utc(2026, 10, 2)),
    )
    found = classify_unassigned(snapshot(example), asked, OCTOBER)
    assert found["reason"].to_pylist() == [
        "unmatched",
        "no_contract",
        "no_contract",
        "unmatched",
        "elsewhere",
    ]
    assert found["customer"].to_pylist() == [None, "initech", "initech", None, "initech"]
    assert found["events"].to_pylist() == [0, 1, 2, 3, 4]


def test_usage_without_times_is_judged_over_the_period(example):
    """Where only the period is known, a link anywhere in it counts."""
    asked = usage(("gpu", "robot", None), ("tokens", "stranger", None)).drop_columns("first_at")
    found = classify_unassigned(snapshot(example), asked, OCTOBER)
    assert found["reason"].to_pylist() == ["no_contract", "unmatched"]


def test_coverage_knows_lines_of_other_cycles(load, example):
    """Usage of a quarter that is still open belongs to its line, though no close bills it yet."""
    half = Period(START, START + timedelta(days=3))
    rows = coverage(snapshot(example), half, ["tokens"]).to_pylist()
    assert rows == [
        {
            "line": "C-1/tokens",
            "meter": "tokens",
            "source": "app",
            "subject": "robot",
            "start_utc": half.start,
            "end_utc": half.end,
        }
    ]


def test_an_earlier_revision_resolves_as_before(load, example):
    """A close repeated after later imports finds exactly what it found."""
    before = snapshot(example)
    lines = billing_lines(before, "acme-at", OCTOBER, ["tokens"])
    spans = assignments(before, lines)
    load(
        crosswalk=[
            {"system": "app", "kind": "subject", "external_id": "robot", "canonical_id": "S-2"}
        ],
        customers=[{"id": "initech", "name": "Initech", "tax_category": "abroad"}],
    )
    again = snapshot(example, before.rev)
    assert billing_lines(again, "acme-at", OCTOBER, ["tokens"]) == lines
    assert assignments(again, lines).equals(spans)
    assert lines_of(example) != lines


@pytest.mark.parametrize("zone", ["America/Santiago", "Asia/Kathmandu", "Australia/Lord_Howe"])
def test_periods_of_odd_zones_meet(load, example, zone):
    """Billing periods of any zone follow one another without gap or overlap."""
    load(
        contracts=[
            {
                "id": "Z",
                "customer": "globex",
                "legal_entity": "acme-at",
                "zone": zone,
                "lines": [{"id": "Z/fee", "item": "tokens"}],
            }
        ]
    )
    year = Period(utc(2026, 1, 1), utc(2027, 1, 1))
    periods = [line.period for line in lines_of(example, year) if line.contract == "Z"]
    assert len(periods) in {11, 12}
    assert all(a.end == b.start for a, b in pairwise(periods))
