"""What imports change, refuse and report."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from meterpost.core.errors import InvalidInput, NotFound
from meterpost.masterdata import service
from meterpost.masterdata.model import BEGINNING, FOREVER
from meterpost.masterdata.service import import_records

NOW = datetime(2026, 11, 2, tzinfo=UTC)
OCTOBER = datetime(2026, 9, 30, 22, tzinfo=UTC)
ROBOT = {"system": "app", "kind": "subject", "external_id": "robot"}


def customer(**values: object) -> dict[str, object]:
    return {"id": "initech", "name": "Initech", **values}


def known(store: Any, entity: str, id: str) -> list[tuple[Any, Any, Any]]:
    rows = [row for row in store.current_rows(entity, {}) if row.key[-1] == id]
    rows.sort(key=lambda row: row.valid_from)
    return [(row.valid_from, row.valid_to, row.values) for row in rows]


def codes(report: Any) -> list[str]:
    return [problem.code for problem in report.refused]


def test_first_import_adds_everything_as_one_revision(load, store):
    """One import is one revision with one audit entry, and its report counts what is new."""
    report = load(customers=[customer(), customer(id="globex")])
    assert (report.rev, report.counts["added"]) == (1, 2)
    assert store.latest_revision() == 1
    assert [entry.action for entry in store.audit] == ["masterdata.imported"]
    assert report.changes[0].valid_from == BEGINNING
    assert report.changes[0].valid_to is None


def test_same_import_again_changes_nothing(load, store, example):
    """Records that say what is known make no revision."""
    from_scratch = store.latest_revision()
    report = load(customers=[customer(tax_category="domestic", payment_term="net30")])
    assert (report.rev, report.counts["unchanged"]) == (None, 1)
    assert store.latest_revision() == from_scratch
    assert len(store.audit) == 1


def test_change_from_a_day_splits_the_row(load, store):
    """Before the day the old values hold, from it on the new ones; the report names the field."""
    load(customers=[customer()])
    report = load(customers=[customer(name="Initrode", valid_from="2026-10-01")])
    start = datetime(2026, 10, 1, tzinfo=UTC)
    assert [(a, b, v["name"]) for a, b, v in known(store, "customers", "initech")] == [
        (BEGINNING, start, "Initech"),
        (start, FOREVER, "Initrode"),
    ]
    (change,) = report.changes
    assert change.fields == {"name": ("Initech", "Initrode")}
    assert str(change) == "changed customers initech, from 2026-10-01: name: Initech → Initrode"


def test_correction_of_a_span_leaves_the_rest(load, store):
    """A span in the middle is replaced; what was known before and after stays."""
    load(customers=[customer()])
    load(customers=[customer(name="X", valid_from="2026-10-01", valid_to="2026-11-01")])
    assert [v["name"] for _, _, v in known(store, "customers", "initech")] == [
        "Initech",
        "X",
        "Initech",
    ]


def test_repeating_with_an_end_ends(load, store):
    """Who repeats what holds and gives it a valid_to means that it ends there."""
    load(customers=[customer()])
    report = load(customers=[customer(valid_to="2026-11-01")])
    end = datetime(2026, 11, 1, tzinfo=UTC)
    assert [row[:2] for row in known(store, "customers", "initech")] == [(BEGINNING, end)]
    assert [(c.kind, c.valid_from) for c in report.changes] == [("ended", end)]


def test_ends_needs_only_the_key(load, store, example):
    """`ends: true` takes a link away from a moment on, or altogether."""
    load(crosswalk=[{**ROBOT, "ends": True, "valid_to": "2026-10-01"}])
    assert [row[:2] for row in known(store, "crosswalk", "robot")] == [
        (BEGINNING, datetime(2026, 10, 1, tzinfo=UTC))
    ]
    load(crosswalk=[{**ROBOT, "ends": True}])
    assert known(store, "crosswalk", "robot") == []
    assert codes(load(crosswalk=[{**ROBOT, "ends": True}])) == ["unknown"]


def test_days_are_local_to_the_contract(load, store, example):
    """A bare day in a line, subscription or subject link is midnight in the contract's zone."""
    load(
        crosswalk=[{**ROBOT, "canonical_id": "S-2", "valid_from": "2026-10-01"}],
        contract_lines=[
            {"id": "fee", "contract": "C-1", "item": "tokens", "valid_from": "2026-10-01"},
            {
                "id": "fee2",
                "contract": "C-1",
                "item": "tokens",
                "valid_from": "2026-10-01",
                "zone": "UTC",
            },
        ],
    )
    assert known(store, "crosswalk", "robot")[1][0] == OCTOBER
    assert known(store, "contract_lines", "fee")[0][0] == OCTOBER
    assert known(store, "contract_lines", "fee2")[0][0] == datetime(2026, 10, 1, tzinfo=UTC)


def test_dry_run_reports_and_stores_nothing(load, store):
    """A dry run says what would change."""
    report = load(dry_run=True, customers=[customer()])
    assert (report.rev, report.counts["added"], store.latest_revision()) == (None, 1, 0)


def test_one_bad_record_keeps_all_out(load, store):
    """All or nothing, with every problem listed."""
    report = load(
        customers=[customer(), customer(id="a b"), customer(id="x", nmae="y")],
    )
    assert codes(report) == ["bad-id", "unknown-key"]
    assert "Did you mean name?" in str(report.refused[1])
    assert report.refused[1].where == "customers[2]"
    assert store.latest_revision() == 0


LINE = {"id": "L", "contract": "C-1", "item": "tokens"}


@pytest.mark.parametrize(
    ("entity", "record", "code"),
    [
        ("customers", {"name": "no id"}, "missing"),
        ("customers", customer(name="x" * 1001), "too-long"),
        ("customers", customer(id="x" * 256), "too-long"),
        ("customers", customer(name="a\0b"), "bad-character"),
        ("customers", customer(name=" a"), "blanks"),
        ("customers", customer(name=1.5), "wrong-type"),
        ("customers", customer(status="gone"), "unknown-value"),
        ("customers", customer(valid_from="2026-13-01"), "bad-date"),
        ("customers", customer(valid_from="2026-10-01T14:00:00"), "bad-moment"),
        ("customers", customer(valid_from="soon"), "bad-moment"),
        ("customers", customer(valid_from="0001-01-01"), "out-of-bounds"),
        ("customers", customer(valid_to="9999-12-31"), "out-of-bounds"),
        ("customers", customer(valid_from="0001-01-01T00:00:00+14:00"), "bad-moment"),
        ("customers", customer(valid_from="2026-10-02", valid_to="2026-10-01"), "bad-interval"),
        ("customers", customer(ends=True, valid_from="2026-10-02"), "ambiguous-end"),
        ("customers", customer(ends="maybe"), "wrong-type"),
        ("legal_entities", {"id": "x", "currency": "EUR", "zone": "Vienna"}, "bad-zone"),
        ("legal_entities", {"id": "x", "currency": "euro", "zone": "UTC"}, "bad-currency"),
        ("legal_entities", {"id": "x", "zone": "UTC"}, "missing"),
        ("items", {"id": "x"}, "missing"),
        ("contracts", {"id": "x", "customer": "nobody", "legal_entity": "acme-at"}, "dangling"),
        ("contracts", {"id": "x", "customer": "initech", "legal_entity": "zz"}, "missing"),
        (
            "contracts",
            {
                "id": "x",
                "customer": "initech",
                "legal_entity": "acme-at",
                "billing_interval": "week",
            },
            "unknown-value",
        ),
        ("contracts", {"id": "C-1", "customer": "globex", "legal_entity": "acme-at",
                       "valid_from": "2026-10-01"}, "fixed"),
        ("contract_lines", {**LINE, "partial_period": "never"}, "unknown-value"),
        ("contract_lines", {**LINE, "item": "nothing"}, "dangling"),
        ("contract_lines", {**LINE, "price": "nothing"}, "dangling"),
        ("contract_lines", {**LINE, "contract": "nothing"}, "dangling"),
        ("contract_lines", {**LINE, "meter": "tokens"}, "doubled-meter"),
        ("contract_lines", {**LINE, "price": {"model": "per_unit", "unit_price": 0.1}}, "float"),
        ("contract_lines", {**LINE, "price": {"model": "per_unit"}}, "missing"),
        (
            "contract_lines",
            {**LINE, "price": {"model": "flat", "flat_amount": "1", "currency": "USD"}},
            "currency-mismatch",
        ),
        (
            "prices",
            {"id": "C-1/tokens", "currency": "USD", "model": "flat", "flat_amount": "1"},
            "currency-mismatch",
        ),
        ("subscriptions", {"id": "x", "contract": "nothing"}, "missing"),
        ("subscriptions", {"id": "x", "contract": "nothing", "customer": "initech"}, "dangling"),
        ("crosswalk", {**ROBOT, "canonical_id": "nothing"}, "dangling"),
        ("crosswalk", {**ROBOT, "kind": "dog", "canonical_id": "S-1"}, "unknown-value"),
        ("crosswalk", {**ROBOT, "canonical_id": "S-1", "personal": True}, "no-tokens"),
        ("accounting_periods", {"legal_entity": "acme-at", "id": "2026-12", "status": "shut"},
         "unknown-value"),
        ("accounting_periods", {"legal_entity": "acme-at", "id": "2027-01"}, "period-gap"),
        ("accounting_periods", {"legal_entity": "acme-at", "id": "odd"}, "missing"),
        (
            "accounting_periods",
            {"legal_entity": "acme-at", "id": "odd", "starts_at": "2026-11-15",
             "ends_at": "2026-12-15"},
            "period-overlap",
        ),
        (
            "accounting_periods",
            {"legal_entity": "acme-at", "id": "odd", "starts_at": "2026-12-15",
             "ends_at": "2026-12-15"},
            "bad-interval",
        ),
    ],
)  # fmt: skip
def test_bad_records_are_refused_with_a_reason(load, store, example, entity, record, code):
    """Every kind of bad record has its own code, and nothing of it is stored."""
    before = store.latest_revision()
    assert code in codes(load(**{entity: [record]}))
    assert store.latest_revision() == before


def test_overlapping_crosswalk_rows_name_both_places(load, example):
    """Two targets for one subject at one time are refused, with both places."""
    report = load(
        crosswalk=[
            {**ROBOT, "canonical_id": "S-1", "valid_to": "2026-10-16"},
            {**ROBOT, "canonical_id": "S-2", "valid_from": "2026-10-15"},
        ]
    )
    (problem,) = report.refused
    assert problem.code == "overlapping"
    assert problem.where == "crosswalk[1]"
    assert "crosswalk[0]" in problem.sentence


def test_erp_ids_must_be_unambiguous(load, example):
    """A customer with two ids in one ERP at the same time is refused."""
    link = {"system": "tryton", "kind": "customer", "canonical_id": "initech"}
    report = load(crosswalk=[{**link, "external_id": "7"}, {**link, "external_id": "8"}])
    assert codes(report) == ["ambiguous-link"]
    report = load(
        crosswalk=[
            {**link, "external_id": "7", "valid_to": "2026-10-01"},
            {**link, "external_id": "8", "valid_from": "2026-10-01"},
        ]
    )
    assert not report.refused


def test_withdrawing_what_is_used_is_refused(load, example):
    """An item that lines name cannot vanish; it can end."""
    assert codes(load(items=[{"id": "tokens", "ends": True}])) == ["still-used"]
    assert not load(items=[{"id": "tokens", "ends": True, "valid_to": "2027-01-01"}]).refused


def test_one_mistake_is_one_problem(load, store):
    """Records that lean on a refused one are not refused for that."""
    report = load(
        legal_entities=[{"id": "e", "currency": "EUR", "zone": "Nowhere"}],
        customers=[customer()],
        items=[{"id": "i", "unit": "x"}],
        contracts=[
            {
                "id": "c",
                "customer": "initech",
                "legal_entity": "e",
                "lines": [{"id": "l", "item": "i", "price": None}],
            }
        ],
    )
    assert codes(report) == ["bad-zone"]


def test_personal_subjects_are_stored_as_tokens(store, example):
    """A personal external id never reaches the store or the report."""

    class Tokens:
        def tokens(self, values: Any) -> list[str]:
            return [f"tok-{len(value)}" for value in values]

    record = {**ROBOT, "external_id": "ada@example.org", "canonical_id": "S-1", "personal": True}
    report = import_records(
        store, {"crosswalk": [record]}, actor="ada", source="s", now=NOW, tokens=Tokens()
    )
    assert [change.id for change in report.changes] == ["app/subject/tok-15"]
    assert "ada@" not in str(store.revisions)


def test_link_and_unlink(store, example):
    """An exception is solved by linking its subject, and a wrong link can be taken back."""
    at = datetime(2026, 10, 20, tzinfo=UTC)
    common = {"system": "app", "kind": "subject", "external_id": "new", "actor": "ada", "now": NOW}
    report = service.link(store, **common, canonical_id="S-2", valid_from=OCTOBER)
    assert report.rev == 2
    assert service.find(store, "app", "subject", "new", at) == "S-2"
    assert service.find(store, "app", "subject", "new", at, rev=1) is None
    assert service.find(store, "app", "subject", "new", BEGINNING) is None
    service.unlink(store, **common, at=at)
    assert service.find(store, "app", "subject", "new", at) is None
    with pytest.raises(InvalidInput, match="not known"):
        service.link(store, **{**common, "external_id": "y"}, canonical_id="nobody")


def test_erp_ids_of_many(load, store, example):
    """Their ids for ours, at a moment; what is not linked is absent."""
    link = {"system": "tryton", "kind": "customer"}
    load(crosswalk=[{**link, "external_id": "7", "canonical_id": "initech"}])
    found = service.external_ids(store, "tryton", "customer", ["initech", "globex"], NOW)
    assert found == {"initech": "7"}


def test_pages_and_history(load, store, example):
    """Lists go on from their cursor; history has every version ever known, in order."""
    load(customers=[customer(name="Initrode", valid_from="2026-10-01")])
    seen, cursor = [], None
    while True:
        page = service.current(store, "customers", cursor=cursor, limit=1)
        seen.extend((row.id, row.name) for row in page.rows)
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == [("globex", "Globex"), ("initech", "Initech"), ("initech", "Initrode")]
    (at,) = service.current(store, "customers", where={"id": "initech"}, at=NOW).rows
    assert at.name == "Initrode"
    versions = service.history(store, "customers", "initech")
    assert [(v.rev_from, v.rev_to, v.name) for v in versions] == [
        (1, 2, "Initech"),
        (2, None, "Initech"),
        (2, None, "Initrode"),
    ]
    with pytest.raises(NotFound):
        service.history(store, "customers", "nobody")
    with pytest.raises(NotFound):
        service.current(store, "dogs")
    with pytest.raises(InvalidInput, match="cursor"):
        service.current(store, "customers", cursor="x")
    with pytest.raises(InvalidInput):
        service.current(store, "prices", where={"definition": "x"})
    with pytest.raises(NotFound):
        service.snapshot(store, 99)
