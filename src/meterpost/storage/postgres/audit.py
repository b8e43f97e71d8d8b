"""Audit entries in the operational database."""

from __future__ import annotations

from sqlalchemy import Connection, insert

from meterpost.audit.model import AuditEntry
from meterpost.core.canonical import to_plain
from meterpost.storage.tables.audit import AUDIT_ENTRY


def write_entry(connection: Connection, entry: AuditEntry) -> int:
    """The sequence of the entry, written in the caller's transaction: both stand or neither."""
    statement = insert(AUDIT_ENTRY).values(
        at=entry.at,
        actor=entry.actor,
        action=entry.action,
        object_kind=entry.object_kind,
        object_id=entry.object_id,
        detail=to_plain(entry.detail),
        correlation_id=entry.correlation_id,
    )
    return int(connection.execute(statement.returning(AUDIT_ENTRY.c.sequence)).scalar_one())
