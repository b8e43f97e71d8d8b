"""Master data in memory, and an example that most tests start from."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from meterpost.audit.model import AuditEntry
from meterpost.masterdata.model import KEYS, MODELS, NewVersion, StoredVersion, Versioned
from meterpost.masterdata.report import ImportReport
from meterpost.masterdata.service import import_records
from meterpost.masterdata.snapshot import to_us

NOW = datetime(2026, 11, 1, 8, tzinfo=UTC)


class MemoryMasterdata:
    """The `MasterdataStore` of a test: lists."""

    def __init__(self) -> None:
        self.rows: dict[str, list[StoredVersion]] = {entity: [] for entity in MODELS}
        self.revisions: list[Mapping[str, object]] = []
        self.audit: list[AuditEntry] = []
        self.locked = False

    def lock(self) -> None:
        self.locked = True

    def latest_revision(self) -> int:
        return len(self.revisions)

    def current_rows(
        self, entity: str, where: Mapping[str, Collection[str]]
    ) -> Sequence[StoredVersion]:
        return [
            row
            for row in self.rows[entity]
            if row.rev_to is None
            and all(plain(entity, row)[name] in values for name, values in where.items())
        ]

    def write_revision(
        self,
        *,
        report: Mapping[str, object],
        ended: Mapping[str, Sequence[int]],
        new: Mapping[str, Iterable[NewVersion]],
        **_: object,
    ) -> int:
        assert self.locked
        self.revisions.append(json.loads(json.dumps(report)))
        rev = len(self.revisions)
        for entity, ids in ended.items():
            self.rows[entity] = [
                replace(row, rev_to=rev) if row.row_id in ids else row for row in self.rows[entity]
            ]
        for entity, versions in new.items():
            for version in versions:
                n = len(self.rows[entity])
                self.rows[entity].append(
                    StoredVersion(
                        n, version.key, version.values, version.valid_from, version.valid_to, rev
                    )
                )
        return rev

    def known_at(self, entity: str, rev: int) -> list[StoredVersion]:
        return [
            row
            for row in self.rows[entity]
            if row.rev_from <= rev and (row.rev_to is None or row.rev_to > rev)
        ]

    def tables(self, rev: int, entities: Sequence[str]) -> Mapping[str, pa.Table]:
        return {entity: self._table(entity, rev) for entity in entities}

    def page(self, entity: str, *, where, at, after, limit) -> Sequence[StoredVersion]:  # type: ignore[no-untyped-def]
        rows = [
            row
            for row in self.current_rows(entity, {n: [v] for n, v in where.items()})
            if at is None or row.valid_from <= at < row.valid_to
        ]
        rows.sort(key=lambda row: (row.key, row.valid_from))
        if after is not None:
            place = (tuple(after[:-1]), datetime.fromisoformat(after[-1]))
            rows = [row for row in rows if (row.key, row.valid_from) > place]
        return rows[:limit]

    def history(self, entity: str, key: tuple[str, ...]) -> Sequence[StoredVersion]:
        rows = [row for row in self.rows[entity] if row.key == key]
        return sorted(rows, key=lambda row: (row.rev_from, row.valid_from))

    def links(
        self,
        system: str,
        kind: str,
        *,
        column: str,
        values: Collection[str],
        at: datetime,
        rev: int,
    ) -> Mapping[str, str]:
        other = {"external_id": "canonical_id", "canonical_id": "external_id"}[column]
        rows = [
            plain("crosswalk", row)
            for row in self.known_at("crosswalk", rev)
            if row.key[:2] == (system, kind) and row.valid_from <= at < row.valid_to
        ]
        return {row[column]: row[other] for row in rows if row[column] in values}

    def record_audit(self, entry: AuditEntry) -> None:
        self.audit.append(entry)

    def _table(self, entity: str, rev: int) -> pa.Table:
        from dataclasses import fields

        own = {f.name for f in fields(MODELS[entity])} - {f.name for f in fields(Versioned)}
        rows = []
        for row in self.known_at(entity, rev):
            values = {name: _cell(value) for name, value in plain(entity, row).items()}
            start, end = to_us(row.valid_from), to_us(row.valid_to)
            rows.append({**values, "valid_from": start, "valid_to": end, "rev_from": row.rev_from})
        numbers = {"valid_from", "valid_to", "rev_from", "starts_at", "ends_at"}
        names = [*sorted(own), "valid_from", "valid_to", "rev_from"]
        schema = [(n, pa.int64() if n in numbers else pa.string()) for n in names]
        return pa.Table.from_pylist(rows, schema=pa.schema(schema))


def plain(entity: str, row: StoredVersion) -> dict[str, Any]:
    return {**dict(zip(KEYS[entity], row.key, strict=True)), **row.values}


def _cell(value: object) -> object:
    match value:
        case datetime():
            return to_us(value)
        case date():
            return value.isoformat()
        case dict():
            return json.dumps(value)
        case _:
            return value


EXAMPLE: dict[str, list[dict[str, object]]] = {
    "legal_entities": [
        {"id": "acme-at", "name": "Acme GmbH", "currency": "EUR", "zone": "Europe/Vienna"}
    ],
    "accounting_periods": [
        {"legal_entity": "acme-at", "id": "2026-09"},
        {"legal_entity": "acme-at", "id": "2026-10"},
        {"legal_entity": "acme-at", "id": "2026-11"},
    ],
    "customers": [
        {"id": "initech", "name": "Initech", "tax_category": "domestic", "payment_term": "net30"},
        {"id": "globex", "name": "Globex"},
    ],
    "items": [{"id": "tokens", "name": "Tokens", "unit": "token", "revenue_account": "4000"}],
    "contracts": [
        {
            "id": "C-1",
            "customer": "initech",
            "legal_entity": "acme-at",
            "lines": [
                {
                    "id": "C-1/tokens",
                    "meter": "tokens",
                    "item": "tokens",
                    "price": {"model": "per_unit", "unit_price": "0.0000025"},
                }
            ],
        },
        {
            "id": "C-2",
            "customer": "globex",
            "legal_entity": "acme-at",
            "lines": [
                {"id": "C-2/tokens", "meter": "tokens", "item": "tokens", "price": "C-1/tokens"}
            ],
        },
    ],
    "subscriptions": [{"id": "S-1", "contract": "C-1"}, {"id": "S-2", "contract": "C-2"}],
    "crosswalk": [
        {"system": "app", "kind": "subject", "external_id": "robot", "canonical_id": "S-1"}
    ],
}

Import = Callable[..., ImportReport]


@pytest.fixture
def store() -> MemoryMasterdata:
    return MemoryMasterdata()


@pytest.fixture
def load(store: MemoryMasterdata) -> Import:
    """Import records by entity into the store."""

    def load_records(dry_run: bool = False, **records: list[dict[str, object]]) -> ImportReport:
        return import_records(store, records, actor="ada", source="test", now=NOW, dry_run=dry_run)

    return load_records


@pytest.fixture
def example(load: Import, store: MemoryMasterdata) -> MemoryMasterdata:
    """Two customers in Vienna; subject `robot` of `app` uses subscription S-1 of contract C-1."""
    report = load(**EXAMPLE)
    assert not report.refused, report.refused
    return store
