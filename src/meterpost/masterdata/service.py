"""Use cases: import, link and unlink, look things up as they are and as they were known.

Each takes a store inside a transaction; who calls commits.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from meterpost.core.clock import require_utc
from meterpost.core.errors import InvalidInput, NotFound
from meterpost.core.problem import Problem
from meterpost.masterdata.fields import nearest_hint
from meterpost.masterdata.importing import import_files, import_records
from meterpost.masterdata.model import BEGINNING, KEYS, MODELS, Versioned, as_model
from meterpost.masterdata.ports import MasterdataStore, PersonalTokens
from meterpost.masterdata.report import ImportReport
from meterpost.masterdata.snapshot import SNAPSHOT_ENTITIES, MasterdataSnapshot

__all__ = [
    "Page",
    "current",
    "external_ids",
    "find",
    "history",
    "import_files",
    "import_records",
    "link",
    "snapshot",
    "unlink",
]

PAGE_MAX = 1000

_NOT_TEXT = {field.name for field in fields(Versioned)} | {
    "definition",
    "billing_anchor",
    "starts_at",
    "ends_at",
}


@dataclass(frozen=True, slots=True)
class Page:
    """Some versions in order, and the cursor to go on with; None at the end."""

    rows: Sequence[Versioned]
    cursor: str | None


def link(
    store: MasterdataStore,
    *,
    system: str,
    kind: str,
    external_id: str,
    canonical_id: str,
    actor: str,
    now: datetime,
    valid_from: datetime | None = None,
    valid_to: datetime | None = None,
    personal: bool = False,
    tokens: PersonalTokens | None = None,
    correlation_id: str = "",
) -> ImportReport:
    """The revision that says: in [valid_from, valid_to) this external id is that id of ours.

    Another target known for that span gives way. Open ends reach as far as they can.
    Raises: InvalidInput when the link cannot be, with the reason.
    """
    record: dict[str, object] = {
        "system": system,
        "kind": kind,
        "external_id": external_id,
        "canonical_id": canonical_id,
        "valid_from": valid_from,
        "valid_to": valid_to,
        "personal": personal,
    }
    return _one(store, record, "link", actor, now, tokens, correlation_id)


def unlink(
    store: MasterdataStore,
    *,
    system: str,
    kind: str,
    external_id: str,
    actor: str,
    now: datetime,
    at: datetime | None = None,
    personal: bool = False,
    tokens: PersonalTokens | None = None,
    correlation_id: str = "",
) -> ImportReport:
    """The revision in which the external id is nobody's from ``at`` on (None: never was).

    Raises: InvalidInput when the link is not known.
    """
    record: dict[str, object] = {
        "system": system,
        "kind": kind,
        "external_id": external_id,
        "valid_to": at,
        "ends": True,
        "personal": personal,
    }
    return _one(store, record, "unlink", actor, now, tokens, correlation_id)


def find(
    store: MasterdataStore,
    system: str,
    kind: str,
    external_id: str,
    at: datetime,
    rev: int | None = None,
) -> str | None:
    """Our id for theirs at a moment, as known at a revision (None: now)."""
    rev = store.latest_revision() if rev is None else rev
    found = store.links(
        system, kind, column="external_id", values=[external_id], at=require_utc(at), rev=rev
    )
    return found.get(external_id)


def external_ids(
    store: MasterdataStore,
    system: str,
    kind: str,
    canonical_ids: Collection[str],
    at: datetime,
    rev: int | None = None,
) -> Mapping[str, str]:
    """Their ids for ours at a moment, as known at a revision (None: now); unlinked are absent.

    For kind ``subject``, where one subscription may have many, use a snapshot.
    """
    rev = store.latest_revision() if rev is None else rev
    return store.links(
        system, kind, column="canonical_id", values=canonical_ids, at=require_utc(at), rev=rev
    )


def snapshot(store: MasterdataStore, rev: int | None = None) -> MasterdataSnapshot:
    """Everything that resolution needs, as it was known at a revision (None: now).

    Raises: NotFound for a revision that was never made.
    """
    latest = store.latest_revision()
    rev = latest if rev is None else rev
    if not 0 <= rev <= latest:
        raise NotFound(f"There is no master-data revision {rev}; the last is {latest}.")
    return MasterdataSnapshot(rev, store.tables(rev, SNAPSHOT_ENTITIES))


def current(
    store: MasterdataStore,
    entity: str,
    *,
    where: Mapping[str, str] | None = None,
    at: datetime | None = None,
    cursor: str | None = None,
    limit: int = 100,
) -> Page:
    """What is known now, in the order of ids; ``at`` keeps what is in force at that moment.

    ``where`` fixes fields, such as ``{"customer": "acme"}``.
    Raises: NotFound for an unknown entity, InvalidInput for an unknown field or a bad cursor.
    """
    _require_entity(entity)
    where = where or {}
    for name in where:
        if name not in _text_fields(entity):
            hint = nearest_hint(name, _text_fields(entity))
            raise InvalidInput(f"{entity} cannot be chosen by {name!r:.60}.", hint=hint)
    if not 1 <= limit <= PAGE_MAX:
        raise InvalidInput(f"A page has 1 to {PAGE_MAX} rows, not {limit}.")
    after = None if cursor is None else _read_cursor(cursor, len(KEYS[entity]) + 1)
    rows = store.page(
        entity,
        where=where,
        at=None if at is None else require_utc(at),
        after=after,
        limit=limit + 1,
    )
    more = len(rows) > limit
    rows = rows[:limit]
    last = _cursor([*rows[-1].key, rows[-1].valid_from.isoformat()]) if more else None
    return Page([as_model(entity, row) for row in rows], last)


def history(store: MasterdataStore, entity: str, *key: str) -> Sequence[Versioned]:
    """Everything ever known of one thing, in the order it was recorded.

    ``key`` is the id; legal entity and id for accounting periods; system, kind and external id
    for the crosswalk. Raises: NotFound when nothing was ever known of it.
    """
    _require_entity(entity)
    if len(key) != len(KEYS[entity]):
        raise InvalidInput(f"One of {entity} is named by {', '.join(KEYS[entity])}.")
    rows = store.history(entity, key)
    if not rows:
        raise NotFound(f"Nothing was ever known of {entity} {'/'.join(key)}.")
    return [as_model(entity, row) for row in rows]


def _one(
    store: MasterdataStore,
    record: Mapping[str, object],
    source: str,
    actor: str,
    now: datetime,
    tokens: PersonalTokens | None,
    correlation_id: str,
) -> ImportReport:
    for name in ("valid_from", "valid_to"):
        moment = record.get(name)
        if isinstance(moment, datetime) and require_utc(moment) < BEGINNING:
            raise InvalidInput(f"{name} {moment} is before {BEGINNING:%Y}.")
    report = import_records(
        store,
        {"crosswalk": [record]},
        actor=actor,
        source=source,
        now=now,
        tokens=tokens,
        correlation_id=correlation_id,
    )
    if report.refused:
        problems = [Problem(p.code, p.sentence, "", p.hint) for p in report.refused]
        raise InvalidInput("The link cannot be changed.", problems)
    return report


def _require_entity(entity: str) -> None:
    if entity not in MODELS:
        raise NotFound(
            f"{entity!r:.60} is no kind of master data.", hint=nearest_hint(entity, MODELS)
        )


def _text_fields(entity: str) -> list[str]:
    names = [field.name for field in fields(MODELS[entity])]
    return [name for name in names if name not in _NOT_TEXT]


def _cursor(parts: Sequence[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def _read_cursor(cursor: str, length: int) -> list[str]:
    try:
        parts = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        datetime.fromisoformat(parts[-1])
    except (ValueError, TypeError, LookupError, binascii.Error, RecursionError) as exc:
        raise InvalidInput("The cursor is not one that a page gave.") from exc
    if len(parts) != length or not all(isinstance(part, str) for part in parts):
        raise InvalidInput("The cursor is not one that a page gave.")
    return list(parts)
