"""Master data in a real PostgreSQL: import, resolve, and read what was known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from meterpost.core.period import Period
from meterpost.masterdata import service
from meterpost.masterdata.model import BEGINNING, MODELS, AccountingPeriod, Contract, PriceEntry
from meterpost.masterdata.resolution import assignments, billing_lines, classify_unassigned
from meterpost.storage.postgres.masterdata import PostgresMasterdata

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 2, tzinfo=UTC)
OCTOBER = Period.month("2026-10", "Europe/Vienna")
ROBOT = {"system": "app", "kind": "subject", "external_id": "robot"}

BOOK: dict[str, list[dict[str, object]]] = {
    "legal_entities": [
        {"id": "at", "name": 'A "quoted", Übung', "currency": "EUR", "zone": "Europe/Vienna"}
    ],
    "accounting_periods": [{"legal_entity": "at", "id": "2026-10"}],
    "customers": [{"id": "initech"}, {"id": "globex", "tax_category": "abroad"}],
    "items": [{"id": "tokens", "unit": "token", "revenue_account": "4000"}],
    "contracts": [
        {
            "id": name,
            "customer": customer,
            "legal_entity": "at",
            "lines": [
                {
                    "id": f"{name}/tokens",
                    "meter": "tokens",
                    "item": "tokens",
                    "price": {"model": "per_unit", "unit_price": "0.0000025"},
                },
                {"id": f"{name}/gpu", "meter": "gpu", "item": "tokens"},
            ],
        }
        for name, customer in (("C-1", "initech"), ("C-2", "globex"))
    ],
    "subscriptions": [{"id": "S-1", "contract": "C-1"}, {"id": "S-2", "contract": "C-2"}],
    "crosswalk": [{**ROBOT, "canonical_id": "S-1"}],
}


def load(store: PostgresMasterdata, **records: list[dict[str, object]]) -> Any:
    report = service.import_records(store, records, actor="ada", source="test", now=NOW)
    assert not report.refused, report.refused
    return report


def test_import_resolve_and_repeat(store, connection):
    """A hand-over splits at the hour, the earlier revision still resolves as it did."""
    first = load(store, **BOOK)
    before = service.snapshot(store)
    meters = ["tokens", "gpu"]
    lines = billing_lines(before, "at", OCTOBER, meters)
    assert [(line.line, line.price) for line in lines] == [
        ("C-1/gpu", None),
        ("C-1/tokens", "C-1/tokens"),
        ("C-2/gpu", None),
        ("C-2/tokens", "C-2/tokens"),
    ]
    spans = assignments(before, lines)
    change = datetime(2026, 10, 15, 12, tzinfo=UTC)
    second = load(store, crosswalk=[{**ROBOT, "canonical_id": "S-2", "valid_from": change}])
    assert second.rev > first.rev
    after = service.snapshot(store)
    new_spans = assignments(after, billing_lines(after, "at", OCTOBER, meters)).to_pylist()
    assert {(row["line"][:3], row["start_utc"], row["end_utc"]) for row in new_spans} == {
        ("C-1", OCTOBER.start, change),
        ("C-2", change, OCTOBER.end),
    }
    again = service.snapshot(store, first.rev)
    assert billing_lines(again, "at", OCTOBER, meters) == lines
    assert assignments(again, lines).equals(spans)
    price = again.price(lines[1].price, OCTOBER.start)
    assert str(price.unit_price) == "0.0000025"
    assert again.accounting_period("at", "2026-10").period == OCTOBER
    assert [entity.name for entity in again.legal_entities()] == ['A "quoted", Übung']
    usage = spans.select(["meter", "source", "subject"])
    assert set(classify_unassigned(after, usage, OCTOBER)["reason"].to_pylist()) == {"elsewhere"}
    entries = connection.execute(text("SELECT count(*) FROM meterpost.audit_entry")).scalar()
    assert entries == 2


def test_reads_come_back_as_models(store):
    """Rows become the room's dataclasses, with periods, cycles and prices to use."""
    load(store, **BOOK)
    (contract,) = service.current(store, "contracts", where={"customer": "globex"}).rows
    assert isinstance(contract, Contract)
    assert contract.cycle.containing(OCTOBER.start) == OCTOBER
    (version,) = service.history(store, "prices", "C-1/tokens")
    assert isinstance(version, PriceEntry)
    assert str(version.price().unit_price) == "0.0000025"
    assert version.valid_from == BEGINNING
    assert version.valid_to is None
    (period,) = service.history(store, "accounting_periods", "at", "2026-10")
    assert isinstance(period, AccountingPeriod)
    assert period.period == OCTOBER


def test_same_import_twice_is_one_revision(store):
    """What was read back from the database equals what the file says."""
    load(store, **BOOK)
    assert load(store, **BOOK).rev is None


def test_closing_a_period_keeps_its_past(store):
    """A closed period is closed from the revision that says so; before, it was open."""
    load(store, **BOOK)
    before = service.snapshot(store)
    load(store, accounting_periods=[{"legal_entity": "at", "id": "2026-10", "status": "closed"}])
    assert service.snapshot(store).accounting_period("at", "2026-10").status == "closed"
    again = service.snapshot(store, before.rev)
    assert again.accounting_period("at", "2026-10").status == "open"


def test_pages_go_on_from_their_cursor(store):
    """Every row is on exactly one page, in order."""
    load(store, **BOOK)
    load(
        store,
        crosswalk=[{**ROBOT, "external_id": f"s{n}", "canonical_id": "S-2"} for n in range(7)],
    )
    seen: list[Any] = []
    cursor = None
    while True:
        page = service.current(store, "crosswalk", limit=3, cursor=cursor)
        seen += [row.external_id for row in page.rows]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == ["robot", *(f"s{n}" for n in range(7))]


def test_links_both_ways(store):
    """Theirs to ours and ours to theirs, at a moment and a revision."""
    load(store, **BOOK)
    link = {"system": "tryton", "kind": "customer"}
    report = load(store, crosswalk=[{**link, "external_id": "7", "canonical_id": "globex"}])
    assert service.find(store, "tryton", "customer", "7", NOW) == "globex"
    ids = service.external_ids(store, "tryton", "customer", ["initech", "globex"], NOW)
    assert ids == {"globex": "7"}
    assert service.external_ids(store, "tryton", "customer", ["globex"], NOW, report.rev - 1) == {}


DAY = timedelta(days=1)


@st.composite
def records(draw: st.DrawFn) -> dict[str, list[dict[str, object]]]:
    def validity() -> dict[str, object]:
        first = draw(st.integers(0, 8))
        start = draw(st.sampled_from([None, NOW + first * DAY]))
        end = draw(st.sampled_from([None, NOW + (first + draw(st.integers(1, 6))) * DAY]))
        return {"valid_from": start, "valid_to": end}

    links = [
        {
            **ROBOT,
            "external_id": draw(st.sampled_from(["a", "b"])),
            "canonical_id": draw(st.sampled_from(["S-1", "S-2"])),
            **validity(),
        }
        for _ in range(draw(st.integers(0, 2)))
    ]
    names = st.sampled_from(["x", "y"])
    customers = [
        {"id": "initech", "name": draw(names), **validity()} for _ in range(draw(st.integers(0, 1)))
    ]
    return {"crosswalk": links, "customers": customers}


def known(store: PostgresMasterdata, rev: int) -> dict[str, list[dict[str, Any]]]:
    tables = store.tables(rev, list(MODELS))
    order = {"crosswalk": "external_id", "accounting_periods": "id"}
    return {
        name: table.sort_by(
            [(order.get(name, "id"), "ascending"), ("valid_from", "ascending")]
        ).to_pylist()
        for name, table in tables.items()
    }


@settings(max_examples=15, deadline=None)
@given(imports=st.lists(records(), min_size=1, max_size=5))
def test_a_revision_never_changes_and_never_overlaps(masterdata_database, imports):
    """After any imports, every revision reads as it did, and no id is two things at once."""
    with (
        masterdata_database.engine.connect() as connection,
        connection.begin() as transaction,
    ):
        store = PostgresMasterdata(connection)
        load(store, **BOOK)
        seen = {store.latest_revision(): known(store, store.latest_revision())}
        for one in imports:
            service.import_records(store, one, actor="a", source="s", now=NOW)
            rev = store.latest_revision()
            seen.setdefault(rev, known(store, rev))
        for rev, then in seen.items():
            assert known(store, rev) == then
            for name in ("customers", "crosswalk"):
                last: dict[str, int] = {}
                for row in then[name]:
                    thing = row.get("external_id") or row["id"]
                    assert last.get(thing, row["valid_from"]) <= row["valid_from"]
                    last[thing] = row["valid_to"]
        transaction.rollback()
