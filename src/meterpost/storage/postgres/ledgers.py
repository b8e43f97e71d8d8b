# ruff: noqa: S608  # SQL is put together from our own words; values are parameters
"""The cells of the ledgers that lie in the operational database, one query each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

from meterpost.metering.model import Cutoff, Position
from meterpost.reconcile.balance import Bridge
from meterpost.reconcile.ledgers import Cells, Key, hour_name, moment_name
from meterpost.reconcile.trace import TracedClose
from meterpost.storage.postgres.database import Database
from meterpost.storage.postgres.trace import events_in

_SCOPE = "t.accounting_period = :period AND t.legal_entity = ANY(:entities)"

#: The highest revisions as of the given closes, each with the state of the close that counts it.
_LATEST = """
    WITH latest AS (
        SELECT DISTINCT ON (mine.id, u.meter, u.line, u.source, u.subject, u.period_start)
               u.*, mine.state AS close_state,
               EXISTS (SELECT FROM meterpost.config_snapshot AS s,
                              jsonb_array_elements(s.content -> 'workflows') AS w
                        WHERE s.digest = mine.config_digest AND w ->> 'name' = mine.workflow
                          AND w -> 'meters' ? u.meter) AS for_purpose
          FROM meterpost.close AS mine
          JOIN meterpost.close AS c
            ON (c.workflow, c.legal_entity, c.accounting_period)
             = (mine.workflow, mine.legal_entity, mine.accounting_period) AND c.n <= mine.n
          JOIN meterpost.usage_record AS u ON u.close_id = c.id
         WHERE mine.id = ANY(:closes)
         ORDER BY mine.id, u.meter, u.line, u.source, u.subject, u.period_start, u.revision DESC)
"""
_CLAIMED = """
      JOIN meterpost.claim AS c ON c.usage_record_id = u.id
      JOIN meterpost.staged_transaction AS t ON t.id = c.transaction_id
      JOIN meterpost.transaction_line AS l
        ON l.transaction_id = c.transaction_id AND l.usage_record_id = u.id
"""
_BILLABLE = "u.fate = 'billable' AND u.for_purpose"
_UNCLAIMED = (
    f"{_BILLABLE} AND NOT EXISTS (SELECT FROM meterpost.claim AS c WHERE c.usage_record_id = u.id)"
)
_OPEN = (
    "('proposed', 'held', 'in_review', 'approved', 'sending', 'in_doubt', 'deferred', 'rejected')"
)
_SETTLED = "('nothing_due', 'posted', 'reconciled')"
#: cell → (what is added up, further tables, condition)
_QUANTITIES = {
    "unmatched": ("u.quantity", "", "u.fate = 'unmatched'"),
    "no_contract_or_price": ("u.quantity", "", "u.fate IN ('no_contract', 'no_price')"),
    "not_for_this_purpose": ("u.quantity", "", "u.fate = 'billable' AND NOT u.for_purpose"),
    "period_open": ("u.quantity", "", f"{_UNCLAIMED} AND u.close_state <> 'staged'"),
    "unclaimed": ("u.quantity", "", f"{_UNCLAIMED} AND u.close_state = 'staged'"),
    "included": (
        "l.included",
        _CLAIMED,
        f"{_BILLABLE} AND (t.state IN {_OPEN} OR t.state IN {_SETTLED})",
    ),
    "charged_open": ("l.charged", _CLAIMED, f"{_BILLABLE} AND t.state IN {_OPEN}"),
    "charged_settled": ("l.charged", _CLAIMED, f"{_BILLABLE} AND t.state IN {_SETTLED}"),
}
#: name → (sentence, query of left, right and difference per part)
_BRIDGES = {
    "claims": (
        "claimed usage = included + charged on the line that claims it",
        f"""SELECT u.quantity AS a, coalesce(l.included + l.charged, 0) AS b,
                   abs(u.quantity - coalesce(l.included + l.charged, 0))
                   + CASE WHEN l.transaction_id IS NULL THEN 1 ELSE 0 END AS d
              FROM meterpost.claim AS c
              JOIN meterpost.staged_transaction AS t ON t.id = c.transaction_id
              JOIN meterpost.usage_record AS u ON u.id = c.usage_record_id
              LEFT JOIN meterpost.transaction_line AS l
                ON l.transaction_id = c.transaction_id AND l.usage_record_id = u.id
             WHERE {_SCOPE}""",
    ),
    "claimed lines": (
        "lines of the revisions that stand = claims",
        f"""SELECT 1 AS a, CASE WHEN c.usage_record_id IS NULL THEN 0 ELSE 1 END AS b,
                   CASE WHEN c.usage_record_id IS NULL THEN 1 ELSE 0 END AS d
              FROM meterpost.transaction_line AS l
              JOIN meterpost.staged_transaction AS t ON t.id = l.transaction_id
              LEFT JOIN meterpost.claim AS c
                ON c.usage_record_id = l.usage_record_id AND c.transaction_id = t.id
             WHERE {_SCOPE} AND l.usage_record_id IS NOT NULL
               AND t.state NOT IN ('superseded', 'withdrawn', 'reversed')
               AND NOT EXISTS (SELECT FROM meterpost.staged_transaction AS n
                    WHERE (n.purpose, n.business_key, n.period_start)
                        = (t.purpose, t.business_key, t.period_start)
                      AND n.revision > t.revision)""",
    ),
    "lines": (
        "quantity = included + charged, due = amount − held",
        f"""SELECT l.quantity AS a, l.included + l.charged AS b,
                   abs(l.quantity - l.included - l.charged)
                   + abs(l.due - (l.amount - l.held)) AS d
              FROM meterpost.transaction_line AS l
              JOIN meterpost.staged_transaction AS t ON t.id = l.transaction_id
             WHERE {_SCOPE}""",
    ),
    "transactions": (
        "due of a transaction = dues of its lines, and so its amount",
        f"""SELECT t.due AS a, coalesce(l.due, 0) AS b,
                   abs(t.due - coalesce(l.due, 0)) + abs(t.amount - coalesce(l.amount, 0)) AS d
              FROM meterpost.staged_transaction AS t
              LEFT JOIN LATERAL (SELECT sum(due) AS due, sum(amount) AS amount
                                   FROM meterpost.transaction_line
                                  WHERE transaction_id = t.id) AS l ON TRUE
             WHERE {_SCOPE}""",
    ),
    "receipts": (
        "posted transactions = their receipts",
        f"""SELECT CASE WHEN t.state IN ('posted', 'reconciled') THEN 1 ELSE 0 END AS a,
                   CASE WHEN r.id IS NULL THEN 0 ELSE 1 END AS b,
                   CASE WHEN (t.state IN ('posted', 'reconciled')) = (r.id IS NOT NULL)
                        THEN 0 ELSE 1 END AS d
              FROM meterpost.staged_transaction AS t
              LEFT JOIN meterpost.receipt AS r ON r.transaction_id = t.id
             WHERE {_SCOPE} AND t.state <> 'reversed'""",
    ),
    "receipt lines": (
        "sent per line = due of the transaction = net of an equal document",
        f"""SELECT t.due AS a, coalesce(l.posted, 0) AS b,
                   abs(t.due - coalesce(l.posted, 0))
                   + CASE WHEN r.comparison = 'equal'
                          THEN abs(r.net - t.due) + abs(r.held_net - coalesce(l.held, 0))
                          ELSE 0 END AS d
              FROM meterpost.receipt AS r
              JOIN meterpost.staged_transaction AS t ON t.id = r.transaction_id
              LEFT JOIN LATERAL (SELECT sum(posted) AS posted, sum(held) AS held
                                   FROM meterpost.receipt_line
                                  WHERE receipt_id = r.id) AS l ON TRUE
             WHERE {_SCOPE}""",
    ),
    "reconciled": (
        "reconciled transactions = those of them whose document is equal",
        f"""SELECT 1 AS a, CASE WHEN r.comparison = 'equal' THEN 1 ELSE 0 END AS b,
                   CASE WHEN r.comparison = 'equal' THEN 0 ELSE 1 END AS d
              FROM meterpost.staged_transaction AS t
              LEFT JOIN meterpost.receipt AS r ON r.transaction_id = t.id
             WHERE {_SCOPE} AND t.state = 'reconciled'""",
    ),
    "removed": (
        "usage records that were removed hold nothing",
        """SELECT t.quantity AS a, 0 AS b, abs(t.quantity) AS d
             FROM meterpost.usage_record AS t
            WHERE t.fate = 'removed' AND t.accounting_period = :period
              AND t.legal_entity = ANY(:entities)""",
    ),
    "without receipt": (
        "documents of ours in the ERP that no receipt knows, as last reconciled",
        """SELECT 1 AS a, 0 AS b, 1 AS d FROM meterpost.exception AS e
            WHERE e.state = 'open' AND e.reason = 'document_without_receipt'
              AND CAST(:period AS text) IS NOT NULL AND CAST(:entities AS text[]) IS NOT NULL""",
    ),
}


@dataclass(frozen=True, slots=True)
class PostgresLedgers:
    """Opens snapshots of one database."""

    database: Database

    @contextmanager
    def snapshot(self) -> Iterator[PostgresLedgerStore]:
        """A read-only view of one moment."""
        with self.database.snapshot() as connection:
            yield PostgresLedgerStore(connection)


@dataclass(frozen=True, slots=True)
class PostgresLedgerStore:
    """`meterpost.reconcile.ledgers.LedgerStore` on one snapshot."""

    connection: Connection

    def intake(self) -> Mapping[str, Cells]:
        """From what was counted at the door."""
        rows = self._rows("SELECT * FROM meterpost.intake_count")
        return {
            name: {
                (row.source, hour_name(row.interval_start)): Decimal(getattr(row, name))
                for row in rows
                if getattr(row, name)
            }
            for name in ("received", "invalid", "accepted")
        }

    def refused(self) -> Cells:
        """From quarantine."""
        rows = self._rows(
            "SELECT source, date_trunc('hour', recorded_at, 'UTC') AS hour, count(*) AS n "
            "FROM meterpost.quarantine GROUP BY 1, 2"
        )
        return {(row.source, hour_name(row.hour)): Decimal(row.n) for row in rows}

    def not_drained(self, position: Position | None) -> Cells:
        """Bodies are read one by one; rows are streamed, since a backlog can be large."""
        found: Counter[Key] = Counter()
        rows = self.connection.execution_options(stream_results=True, yield_per=200).execute(
            text(
                "SELECT recorded_at, events, body FROM meterpost.journal "
                "WHERE sequence > :after ORDER BY sequence"
            ),
            {"after": 0 if position is None else position.sequence},
        )
        for row in rows:
            hour, counted = hour_name(row.recorded_at), 0
            for event in events_in(bytes(row.body)):
                source = event.get("source")
                found[source if isinstance(source, str) else "", hour] += 1
                counted += 1
            # What cannot be told apart is counted all the same.
            if row.events != counted:
                found["", hour] += row.events - counted
        return {key: Decimal(n) for key, n in found.items()}

    def journal_events(self, position: Position | None = None) -> Decimal:
        """Rows that are there, and what dropped partitions held."""
        [row] = self._rows(
            "SELECT (SELECT coalesce(sum(events), 0) FROM meterpost.journal "
            "WHERE CAST(:upto AS bigint) IS NULL OR sequence <= :upto) "
            "+ (SELECT coalesce(sum(dropped_events), 0) FROM meterpost.journal_state) AS n",
            upto=None if position is None else position.sequence,
        )
        return Decimal(row.n)

    def entities(self, period: str) -> Sequence[str]:
        """Of closes and of transactions."""
        rows = self._rows(
            "SELECT legal_entity FROM meterpost.close WHERE accounting_period = :period UNION "
            "SELECT legal_entity FROM meterpost.staged_transaction "
            "WHERE accounting_period = :period ORDER BY 1",
            period=period,
        )
        return [row.legal_entity for row in rows]

    def span(self, period: str, entities: Sequence[str]) -> tuple[datetime, datetime] | None:
        """As master data knows it now."""
        [row] = self._rows(
            "SELECT min(starts_at) AS starts, max(ends_at) AS ends "
            "FROM meterpost.accounting_period "
            "WHERE id = :period AND legal_entity = ANY(:entities) AND rev_to IS NULL",
            period=period,
            entities=list(entities),
        )
        return None if row.starts is None else (row.starts, row.ends)

    def closes(self, period: str, entities: Sequence[str]) -> Sequence[TracedClose]:
        """A close that is still open has no records of its own yet."""
        rows = self._rows(
            "SELECT DISTINCT ON (workflow, legal_entity) * FROM meterpost.close "
            "WHERE accounting_period = :period AND legal_entity = ANY(:entities) "
            "AND state <> 'open' ORDER BY workflow, legal_entity, n DESC",
            period=period,
            entities=list(entities),
        )
        return [
            TracedClose(
                row.id,
                row.n,
                row.workflow,
                row.purpose,
                row.legal_entity,
                row.accounting_period,
                row.basis,
                Cutoff.from_plain(row.cutoff),
                row.masterdata_rev,
                row.config_digest,
            )
            for row in rows
        ]

    def quantities(self, cell: str, closes: Sequence[int]) -> Cells:
        """By (purpose, entity, meter, line, source, subject, period start)."""
        value, tables, condition = _QUANTITIES[cell]
        rows = self._rows(
            f"{_LATEST} SELECT u.purpose, u.legal_entity, u.meter, u.line, u.source, u.subject, "
            f"u.period_start, sum({value}) AS n FROM latest AS u {tables} WHERE {condition} "
            f"AND {value} <> 0 GROUP BY 1, 2, 3, 4, 5, 6, 7",
            closes=list(closes),
        )
        return {(*row[:6], moment_name(row.period_start)): row.n for row in rows}

    def staged(self, period: str, entities: Sequence[str]) -> Mapping[str, Cells]:
        """States from the last step of each history, money from lines."""
        return self._counted(
            f"""SELECT t.legal_entity, t.currency, h.to_state AS state, count(*) AS n,
                       sum(coalesce(l.due, 0)) AS due
                  FROM meterpost.staged_transaction AS t
                  LEFT JOIN LATERAL (SELECT to_state FROM meterpost.transition
                                WHERE transaction_id = t.id ORDER BY id DESC LIMIT 1) AS h ON TRUE
                  LEFT JOIN LATERAL (SELECT sum(due) AS due FROM meterpost.transaction_line
                                WHERE transaction_id = t.id) AS l ON TRUE
                 WHERE {_SCOPE} GROUP BY 1, 2, 3""",
            period,
            entities,
        )

    def in_state(self, state: str, period: str, entities: Sequence[str]) -> Mapping[str, Cells]:
        """From the transactions' own rows."""
        return self._counted(
            f"""SELECT t.legal_entity, t.currency, t.state, count(*) AS n, sum(t.due) AS due
                  FROM meterpost.staged_transaction AS t
                 WHERE {_SCOPE} AND t.state = :state GROUP BY 1, 2, 3""",
            period,
            entities,
            state=state,
        )

    def compared(
        self, comparison: str, period: str, entities: Sequence[str]
    ) -> Mapping[str, Cells]:
        """From receipts; the money is what their lines say was sent."""
        counted = self._counted(
            f"""SELECT t.legal_entity, t.currency, '' AS state, count(*) AS n,
                       sum(coalesce(l.posted, 0)) AS due
                  FROM meterpost.receipt AS r
                  JOIN meterpost.staged_transaction AS t ON t.id = r.transaction_id
                  LEFT JOIN LATERAL (SELECT sum(posted) AS posted FROM meterpost.receipt_line
                                WHERE receipt_id = r.id) AS l ON TRUE
                 WHERE {_SCOPE} AND t.state IN ('posted', 'reconciled')
                   AND r.comparison = :comparison GROUP BY 1, 2""",
            period,
            entities,
            comparison=comparison,
        )
        return {kind: {key[:2]: n for key, n in cells.items()} for kind, cells in counted.items()}

    def bridges(self, period: str, entities: Sequence[str]) -> Sequence[Bridge]:
        """Differences are summed part by part, so errors cannot cancel out."""
        found = []
        for name, (sentence, query) in _BRIDGES.items():
            [row] = self._rows(
                "SELECT coalesce(sum(a), 0) AS a, coalesce(sum(b), 0) AS b, "
                f"coalesce(sum(d), 0) AS d FROM ({query}) AS parts",
                period=period,
                entities=list(entities),
            )
            found.append(Bridge(name, sentence, Decimal(row.a), Decimal(row.b), Decimal(row.d)))
        return found

    def _counted(
        self, sql: str, period: str, entities: Sequence[str], **values: object
    ) -> Mapping[str, Cells]:
        rows = self._rows(sql, period=period, entities=list(entities), **values)
        keys = [(row.legal_entity, row.currency, row.state or "no history") for row in rows]
        return {
            "count": {key: Decimal(row.n) for key, row in zip(keys, rows, strict=True)},
            "due": {key: Decimal(row.due) for key, row in zip(keys, rows, strict=True) if row.due},
        }

    def _rows(self, sql: str, **values: object) -> Sequence[Any]:
        return self.connection.execute(text(sql), values).all()
