"""Exceptions in the operational database: opened once per (reason, fact), closed with a why."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import Connection, func, text, update
from sqlalchemy.dialects.postgresql import insert

from meterpost.core.canonical import to_plain
from meterpost.staging.model import Finding
from meterpost.storage.tables.staging import EXCEPTION

_BATCH = 500


def open_exceptions(connection: Connection, findings: Sequence[Finding], now: datetime) -> int:
    """Make sure each finding has one open exception that says its latest; how many were given.

    A finding seen again keeps its row, its owner's assignment and its age.
    """
    unique = {(finding.reason, finding.fact): finding for finding in findings}
    rows = [_row(finding, now) for finding in unique.values()]
    for start in range(0, len(rows), _BATCH):
        statement = insert(EXCEPTION).values(rows[start : start + _BATCH])
        refreshed = {
            name: statement.excluded[name]
            for name in (
                "sentence",
                "suggestion",
                "records",
                "estimate",
                "currency",
                "detail",
                "seen_at",
                "legal_entity",
                "accounting_period",
            )
        }
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[EXCEPTION.c.reason, EXCEPTION.c.fact],
                # Literal, not a parameter: a prepared statement's generic plan cannot match
                # a parameter with the index's condition, and fails from the sixth time on.
                index_where=text("state = 'open'"),
                set_=refreshed,
            )
        )
    return len(rows)


def open_exception(connection: Connection, finding: Finding, now: datetime) -> None:
    """`open_exceptions` for one."""
    open_exceptions(connection, [finding], now)


def close_exceptions(
    connection: Connection,
    reason: str,
    facts: Collection[str] | None,
    now: datetime,
    *,
    by: str,
    why: str,
) -> int:
    """Close the open exceptions of a reason (and of these facts, where given); how many."""
    statement = update(EXCEPTION).where(EXCEPTION.c.state == "open", EXCEPTION.c.reason == reason)
    if facts is not None:
        statement = statement.where(EXCEPTION.c.fact == func.any(list(facts)))
    result = connection.execute(
        statement.values(state="closed", closed_at=now, closed_by=by, closing_reason=why)
    )
    return result.rowcount


def _row(finding: Finding, now: datetime) -> dict[str, object]:
    return {
        "reason": finding.reason,
        "fact_kind": finding.fact_kind,
        "fact": finding.fact,
        "legal_entity": finding.legal_entity,
        "accounting_period": finding.accounting_period,
        "sentence": finding.sentence,
        "suggestion": finding.suggestion,
        "records": finding.records,
        "estimate": finding.estimate,
        "currency": finding.currency,
        "owner": finding.owner,
        "assignee": None,
        "state": "open",
        "detail": to_plain(finding.detail),
        "opened_at": now,
        "seen_at": now,
    }
