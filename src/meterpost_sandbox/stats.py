"""What happened at the door: requests, answers, faults and when they came."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from meterpost_sandbox.answers import Refused

ARRIVALS_MAX = 10_000


def stats(connection: sqlite3.Connection, query: Mapping[str, str]) -> dict[str, object]:
    """Counts over the whole life of the ledger, and a page of arrivals.

    Raises: Refused (400).
    """
    since = _whole(query, "arrivals_since", 0, 2**62)
    limit = _whole(query, "limit", ARRIVALS_MAX, ARRIVALS_MAX)
    kinds = _counts(connection, "SELECT kind, count(*) FROM arrivals GROUP BY kind")
    arrivals = connection.execute(
        "SELECT * FROM arrivals WHERE sequence > ? ORDER BY sequence LIMIT ?", (since, limit)
    )
    return {
        "requests": {
            "total": sum(kinds.values()),
            **{kind: kinds.get(kind, 0) for kind in ("write", "read", "other")},
        },
        "statuses": _counts(connection, "SELECT status, count(*) FROM arrivals GROUP BY status"),
        "faults": _counts(connection, "SELECT kind, count(*) FROM faults GROUP BY kind"),
        "documents": _counts(connection, "SELECT state, count(*) FROM documents GROUP BY state"),
        "arrivals": [dict(row) for row in arrivals],
    }


def _counts(connection: sqlite3.Connection, sql: str) -> dict[str, int]:
    return {str(row[0]): int(row[1]) for row in connection.execute(sql)}


def _whole(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) <= 18 and int(text) <= most:
        return int(text)
    raise Refused(400, "invalid_query", f"expected a whole number up to {most}", name)
