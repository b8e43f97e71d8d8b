"""Events: find them, read files of them, and settle what was refused."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pyarrow as pa
from pydantic import Field

from meterpost.access.model import Scope
from meterpost.core.errors import InvalidInput, NotFound
from meterpost.ingest.files import FileReport, ingest_file
from meterpost.ingest.model import FileMapping
from meterpost.operations.arguments import (
    Cursor,
    ExternalId,
    Id,
    Limit,
    Name,
    Reason,
    number_after,
    page,
)
from meterpost.operations.registry import Context, operation
from meterpost.storage.postgres.intake import (
    QuarantinedEvent,
    quarantined,
    settle_quarantined,
)


@dataclass(frozen=True)
class FindEvents:
    """By id, by subject (in clear or as its token), or both; ``source`` narrows either."""

    id: ExternalId | None = None
    subject: ExternalId | None = None
    source: ExternalId | None = None
    limit: Limit = 100


@operation(
    "events.find",
    scope=Scope.USAGE_READ,
    summary="Stored events by id or subject, with what became of each per meter.",
    needs_events=True,
)
def find_events(context: Context, asked: FindEvents) -> object:
    """Newest arrivals are not here until the journal is drained."""
    if asked.id is None and asked.subject is None:
        raise InvalidInput("Name an event's id or a subject.")
    events = context.app.events
    subjects: list[str | None] = [asked.subject]
    if asked.subject is not None:
        token = context.app.vault.find("subject", asked.subject)
        if token is not None:
            subjects.append(token)
    items: list[Mapping[str, object]] = []
    for subject in subjects:
        found: pa.Table = events.find_events(
            id=asked.id, source=asked.source, subject=subject, rows_max=asked.limit
        )
        items += found.to_pylist()
    return {"items": items[: asked.limit], "next": None}


@dataclass(frozen=True)
class IngestFile:
    """``path`` is a file of this machine; without a mapping its lines are CloudEvents."""

    path: Annotated[str, Field(min_length=1, max_length=4_096)]
    mapping: Name | None = None
    drain: bool = True


@operation(
    "events.ingest_file",
    scope=Scope.EVENTS_WRITE,
    summary="Read a file of usage into the journal, and store its events.",
    needs_events=True,
    creates=True,
    local=True,
)
def ingest(context: Context, asked: IngestFile) -> object:
    """Every line is accepted durably or quarantined when this returns; reading the file again
    adds nothing. ``duplicate`` counts what the event store knew already.
    """
    app = context.app
    mapping = None if asked.mapping is None else _mapping(context, asked.mapping)
    before = app.journal.end()
    writer = app.journal_writer()
    writer.start()
    try:
        report = ingest_file(
            Path(asked.path),
            mapping,
            app.intake(writer),
            correlation_id=context.correlation_id,
            by=context.principal.key or context.principal.user,
            progress=lambda done, total: context.progress("bytes", done, total),
        )
    finally:
        writer.stop()
    result = _shown(report)
    if not asked.drain:
        return {**result, "duplicate": None, "conflicting": None, "quarantined": None}
    waiting = report.accepted
    drained = app.metering.drain(
        lambda so_far: context.progress("events", min(so_far.accepted, waiting), waiting)
    )
    # Others' events between the two positions, or a drain by the engine's own job, would make
    # these counts another file's as well: then they are not told.
    ours_alone = (
        drained.accepted == report.accepted
        and drained.position.incarnation == before.incarnation
        and drained.position.sequence == (report.sequence or before.sequence)
    )
    return {
        **result,
        "duplicate": drained.duplicate if ours_alone else None,
        "conflicting": drained.conflicting if ours_alone else None,
        "quarantined": drained.quarantined if ours_alone else None,
    }


def _mapping(context: Context, name: str) -> FileMapping:
    mappings = context.app.workspace.mappings
    for mapping in mappings:
        if mapping.name == name:
            return mapping
    known = ", ".join(mapping.name for mapping in mappings) or "none"
    raise NotFound(f"There is no mapping {name!r}.", hint=f"Configured in mappings/: {known}.")


def _shown(report: FileReport) -> dict[str, object]:
    return {
        "file": report.path.name,
        "read": report.read,
        "accepted": report.accepted,
        "rejected": report.rejected,
        "problems": report.problems,
    }


@dataclass(frozen=True)
class ListQuarantine:
    """``open`` leaves out what was settled."""

    source: ExternalId | None = None
    open: bool = True
    cursor: Cursor | None = None
    limit: Limit = 100


@operation(
    "quarantine.list",
    scope=Scope.USAGE_READ,
    summary="Events refused at the door, with reason; oldest first.",
)
def list_quarantine(context: Context, asked: ListQuarantine) -> object:
    """Without their bytes, which may be personal."""
    with context.app.database.begin() as connection:
        rows = quarantined(
            connection,
            after_id=number_after(asked.cursor) or 0,
            rows_max=asked.limit + 1,
            source=asked.source,
            open_only=asked.open,
        )
    return page(rows, asked.limit, lambda row: row.id, _refused)


@dataclass(frozen=True)
class ShowQuarantine:
    """One refused event."""

    id: Id


@operation(
    "quarantine.show",
    scope=Scope.EXCEPTIONS_WRITE,
    summary="A refused event with its bytes as they came.",
)
def show_quarantine(context: Context, asked: ShowQuarantine) -> object:
    """``text`` is what of the bytes is UTF-8; ``base64`` is all of them."""
    with context.app.database.begin() as connection:
        rows = quarantined(connection, after_id=asked.id - 1, rows_max=1)
    if not rows or rows[0].id != asked.id:
        raise NotFound(f"There is no quarantined event {asked.id}.")
    raw = rows[0].rejected.raw
    return {
        **_refused(rows[0]),
        "text": raw.decode("utf-8", errors="replace"),
        "base64": base64.b64encode(raw).decode(),
    }


@dataclass(frozen=True)
class SettleQuarantine:
    """``settlement`` says what was done: sent again corrected, or given up."""

    id: Id
    settlement: Reason


@operation(
    "quarantine.settle",
    scope=Scope.EXCEPTIONS_WRITE,
    summary="Note what was decided about a refused event.",
)
def settle_quarantine(context: Context, asked: SettleQuarantine) -> object:
    """The event stays where it is; it only leaves the worklist."""
    with context.app.database.begin() as connection:
        settle_quarantined(
            connection,
            asked.id,
            by=context.principal.user,
            settlement=asked.settlement,
            at=context.app.clock.now(),
        )
    return {"id": asked.id, "settlement": asked.settlement}


def _refused(row: QuarantinedEvent) -> dict[str, object]:
    problem = row.rejected.problem
    return {
        "id": row.id,
        "recorded_at": row.recorded_at,
        "source": row.rejected.source,
        "event_id": row.rejected.event_id,
        "index": row.rejected.index,
        "code": problem.code,
        "field": problem.where,
        "sentence": problem.sentence,
        "bytes": len(row.rejected.raw),
        "correlation_id": row.correlation_id,
        "settled_at": row.settled_at,
        "settlement": row.settlement,
    }
