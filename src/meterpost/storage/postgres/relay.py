"""Takes over what the event store owes the operational database: exceptions about events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy.dialects.postgresql import insert

from meterpost.core.clock import Clock
from meterpost.metering.model import OutboxItem
from meterpost.staging.model import Finding
from meterpost.storage.postgres.database import Database
from meterpost.storage.postgres.exceptions import open_exceptions
from meterpost.storage.tables.ingest import RELAYED

_ROWS = 1000


class PostgresRelay:
    """`metering.service.OutboxSink`: an item that came before changes nothing."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def accept(self, items: Sequence[OutboxItem]) -> None:
        """Note the items and open an exception for each new one, in one transaction."""
        now = self._clock.now()
        keyed = {(item.incarnation, item.first_sequence, item.ordinal): item for item in items}
        rows = [
            {
                "incarnation": item.incarnation,
                "first_sequence": item.first_sequence,
                "ordinal": item.ordinal,
                "kind": item.kind,
                "relayed_at": now,
            }
            for item in keyed.values()
        ]
        with self._database.begin() as connection:
            fresh: list[OutboxItem] = []
            for start in range(0, len(rows), _ROWS):
                statement = (
                    insert(RELAYED)
                    .values(rows[start : start + _ROWS])
                    .on_conflict_do_nothing()
                    .returning(RELAYED.c.incarnation, RELAYED.c.first_sequence, RELAYED.c.ordinal)
                )
                fresh += [
                    keyed[incarnation, sequence, ordinal]
                    for incarnation, sequence, ordinal in connection.execute(statement)
                ]
            open_exceptions(connection, [finding_of(item) for item in fresh], now)


def finding_of(item: OutboxItem) -> Finding:
    """The exception an owed item becomes."""
    payload = item.payload
    event = f"{payload['source']} {payload['id']}"
    fact = f"{event} {payload['sequence']}"
    match item.kind:
        case "conflicting_duplicate":
            return Finding(
                reason="conflicting_duplicate",
                fact_kind="event",
                fact=fact,
                sentence=f"Event {event} came again with other content; the first one counts.",
                suggestion="Ask the producer which is right; a correction needs an id of its own.",
                owner="engineer",
                detail=payload,
            )
        case "failed_measurement":
            return Finding(
                reason="failed_measurement",
                fact_kind="measurement",
                fact=f"{payload['meter']} {fact}",
                sentence=f"Meter {payload['meter']} cannot measure event {event}: "
                f"{_reason(payload)}.",
                suggestion="Correct the meter's expression, or have the event sent correctly "
                "under a new id.",
                owner="engineer",
                detail=payload,
            )
        case _:
            return Finding(
                reason="quarantined_event",
                fact_kind="event",
                fact=fact,
                sentence=f"Event {event} was accepted and cannot be stored: {_reason(payload)}.",
                suggestion="Look at its data; have it sent correctly under a new id.",
                owner="engineer",
                detail=payload,
            )


def _reason(payload: Mapping[str, object]) -> str:
    return str(payload.get("reason", "unknown")).rstrip(".")
