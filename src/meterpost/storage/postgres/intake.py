"""What came in at the door, for the ledgers and the worklist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select, update

from meterpost.core.errors import Conflict, NotFound
from meterpost.core.problem import Problem
from meterpost.ingest.model import Rejected
from meterpost.storage.tables.ingest import INTAKE_COUNT, QUARANTINE


@dataclass(frozen=True, slots=True)
class IntakeCell:
    """What senders were told in one hour about one source."""

    interval_start: datetime
    source: str
    received: int
    invalid: int
    accepted: int


@dataclass(frozen=True, slots=True)
class QuarantinedEvent:
    """One refused event in the worklist."""

    id: int
    recorded_at: datetime
    rejected: Rejected
    correlation_id: str
    api_key: str
    settled_at: datetime | None
    settlement: str | None


def intake_cells(
    connection: Connection, start: datetime | None = None, end: datetime | None = None
) -> Sequence[IntakeCell]:
    """The counts of the hours that start in [start, end), in order of hour and source."""
    query = select(
        INTAKE_COUNT.c.interval_start,
        INTAKE_COUNT.c.source,
        INTAKE_COUNT.c.received,
        INTAKE_COUNT.c.invalid,
        INTAKE_COUNT.c.accepted,
    ).order_by(INTAKE_COUNT.c.interval_start, INTAKE_COUNT.c.source)
    if start is not None:
        query = query.where(INTAKE_COUNT.c.interval_start >= start)
    if end is not None:
        query = query.where(INTAKE_COUNT.c.interval_start < end)
    return [IntakeCell(*row) for row in connection.execute(query)]


def quarantined_counts(connection: Connection) -> Mapping[tuple[datetime, str], int]:
    """Quarantined events per (hour of recording, source), counted row by row.

    The independent witness for `IntakeCell.invalid`.
    """
    hour = func.date_trunc("hour", QUARANTINE.c.recorded_at, "UTC")
    query = select(hour, QUARANTINE.c.source, func.count()).group_by(hour, QUARANTINE.c.source)
    return {(start, source): n for start, source, n in connection.execute(query)}


def quarantined(
    connection: Connection,
    *,
    after_id: int = 0,
    rows_max: int = 100,
    source: str | None = None,
    open_only: bool = False,
) -> Sequence[QuarantinedEvent]:
    """The next refused events by id."""
    query = (
        select(QUARANTINE)
        .where(QUARANTINE.c.id > after_id)
        .order_by(QUARANTINE.c.id)
        .limit(rows_max)
    )
    if source is not None:
        query = query.where(QUARANTINE.c.source == source)
    if open_only:
        query = query.where(QUARANTINE.c.settled_at.is_(None))
    return [
        QuarantinedEvent(
            row["id"],
            row["recorded_at"],
            Rejected(
                row["index"],
                Problem(row["code"], row["sentence"], row["field"]),
                bytes(row["bytes"]),
                row["source"],
                row["event_id"],
            ),
            row["correlation_id"],
            row["api_key"],
            row["settled_at"],
            row["settlement"],
        )
        for row in connection.execute(query).mappings()
    ]


def settle_quarantined(
    connection: Connection, id: int, *, by: str, settlement: str, at: datetime
) -> None:
    """Note what was decided about a refused event (sent again corrected, or given up).

    Raises: NotFound, Conflict when it was settled before.
    """
    done = connection.execute(
        update(QUARANTINE)
        .where(QUARANTINE.c.id == id, QUARANTINE.c.settled_at.is_(None))
        .values(settled_at=at, settled_by=by, settlement=settlement)
    )
    if done.rowcount == 0:
        found = connection.execute(
            select(QUARANTINE.c.settled_by, QUARANTINE.c.settlement).where(QUARANTINE.c.id == id)
        ).one_or_none()
        if found is None:
            raise NotFound(f"There is no quarantined event {id}.")
        raise Conflict(f"Event {id} was settled by {found[0]}: {found[1]}.")
