"""Master data in PostgreSQL: versions, revisions, pages, and whole tables for snapshots."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
from psycopg.types.json import Jsonb
from sqlalchemy import Connection, Select, Table, and_, func, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlalchemy.sql.expression import ColumnElement, bindparam

from meterpost.audit.model import AuditEntry
from meterpost.masterdata.model import FOREVER, KEYS, NewVersion, StoredVersion
from meterpost.storage.postgres.audit import write_entry
from meterpost.storage.postgres.database import copy_rows
from meterpost.storage.postgres.masterdata_tables import read_tables
from meterpost.storage.tables.masterdata import CROSSWALK, ENTITIES, REVISION

_BITEMPORAL = ("row_id", "valid_from", "valid_to", "rev_from", "rev_to")


class PostgresMasterdata:
    """The `MasterdataStore` of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def lock(self) -> None:
        """Serialise writers by a transaction-level advisory lock."""
        self._connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtext('meterpost.masterdata'))")
        )

    def latest_revision(self) -> int:
        """The highest revision this transaction sees."""
        found = self._connection.execute(select(func.max(REVISION.c.rev))).scalar()
        return int(found or 0)

    def current_rows(
        self, entity: str, where: Mapping[str, Collection[str]]
    ) -> Sequence[StoredVersion]:
        """Rows not superseded whose columns have one of the values."""
        table = ENTITIES[entity]
        conditions = [_any(table.c[name], values) for name, values in where.items()]
        return self._rows(entity, _of(table).where(table.c.rev_to.is_(None), *conditions))

    def write_revision(
        self,
        *,
        recorded_at: datetime,
        actor: str,
        source: str,
        report: Mapping[str, object],
        ended: Mapping[str, Sequence[int]],
        new: Mapping[str, Iterable[NewVersion]],
    ) -> int:
        """One revision row, then per entity an UPDATE that supersedes and a COPY that adds."""
        rev = self._connection.execute(
            REVISION.insert()
            .values(recorded_at=recorded_at, actor=actor, source=source, report=report)
            .returning(REVISION.c.rev)
        ).scalar_one()
        for entity, row_ids in ended.items():
            if row_ids:
                table = ENTITIES[entity]
                self._connection.execute(
                    update(table)
                    .where(table.c.row_id == func.any(bindparam("ids", list(row_ids))))
                    .values(rev_to=rev)
                )
        for entity, rows in new.items():
            names = [c.name for c in ENTITIES[entity].columns if c.name not in _BITEMPORAL]
            copy_rows(
                self._connection,
                ENTITIES[entity].name,
                [*names, "valid_from", "valid_to", "rev_from"],
                (_copied(entity, names, row, rev) for row in rows),
            )
        return int(rev)

    def tables(self, rev: int, entities: Sequence[str]) -> Mapping[str, pa.Table]:
        """Each entity by one COPY, as known at the revision."""
        return {entity: read_tables(self._connection, entity, rev) for entity in entities}

    def page(
        self,
        entity: str,
        *,
        where: Mapping[str, str],
        at: datetime | None,
        after: Sequence[str] | None,
        limit: int,
    ) -> Sequence[StoredVersion]:
        """Keyset pagination over (key, valid_from)."""
        table = ENTITIES[entity]
        order = [table.c[name] for name in KEYS[entity]]
        query = _of(table).where(table.c.rev_to.is_(None))
        query = query.where(*(table.c[name] == value for name, value in where.items()))
        if at is not None:
            query = query.where(_in_force(table, at))
        if after is not None:
            moment = datetime.fromisoformat(after[-1])
            query = query.where(tuple_(*order, table.c.valid_from) > (*after[:-1], moment))
        return self._rows(entity, query.order_by(*order, table.c.valid_from).limit(limit))

    def history(self, entity: str, key: tuple[str, ...]) -> Sequence[StoredVersion]:
        """Every row of a key."""
        table = ENTITIES[entity]
        columns = zip(KEYS[entity], key, strict=True)
        query = _of(table).where(*(table.c[name] == value for name, value in columns))
        return self._rows(entity, query.order_by(table.c.rev_from, table.c.valid_from))

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
        """The crosswalk from one column to the other."""
        other = {"external_id": "canonical_id", "canonical_id": "external_id"}[column]
        query = select(CROSSWALK.c[column], CROSSWALK.c[other]).where(
            CROSSWALK.c.system == system,
            CROSSWALK.c.kind == kind,
            _any(CROSSWALK.c[column], values),
            _in_force(CROSSWALK, at),
            CROSSWALK.c.rev_from <= rev,
            or_(CROSSWALK.c.rev_to.is_(None), CROSSWALK.c.rev_to > rev),
        )
        return {str(one): str(two) for one, two in self._connection.execute(query)}

    def record_audit(self, entry: AuditEntry) -> None:
        """Written with the decision, in this transaction."""
        write_entry(self._connection, entry)

    def _rows(self, entity: str, query: Select[Any]) -> list[StoredVersion]:
        names = [column.name for column in ENTITIES[entity].columns]
        place = {name: index for index, name in enumerate(names)}
        keys = [place[name] for name in KEYS[entity]]
        rest = [n for n in names if n not in _BITEMPORAL and n not in KEYS[entity]]
        values = [(name, place[name]) for name in rest]
        row_id, start, end, rev_from, rev_to = (place[name] for name in _BITEMPORAL)
        return [
            StoredVersion(
                row[row_id],
                tuple([row[key] for key in keys]),
                {name: row[index] for name, index in values},
                row[start],
                row[end] or FOREVER,
                row[rev_from],
                row[rev_to],
            )
            for row in map(tuple, self._connection.execute(query))
        ]


def _of(table: Table) -> Select[Any]:
    return select(*table.columns)


def _any(column: ColumnElement[Any], values: Collection[str]) -> ColumnElement[bool]:
    # One array parameter, whatever the number of values.
    return column == func.any(bindparam(None, sorted(values), type_=ARRAY(TEXT), unique=True))


def _in_force(table: Table, at: datetime) -> ColumnElement[bool]:
    return and_(table.c.valid_from <= at, or_(table.c.valid_to.is_(None), table.c.valid_to > at))


def _copied(entity: str, names: Sequence[str], row: NewVersion, rev: int) -> list[object]:
    values = {**dict(zip(KEYS[entity], row.key, strict=True)), **row.values}
    if "definition" in values:
        values["definition"] = Jsonb(values["definition"])
    end = None if row.valid_to == FOREVER else row.valid_to
    return [*(values[name] for name in names), row.valid_from, end, rev]
