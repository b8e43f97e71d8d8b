"""Counts from the operational database, for /metrics.

Labels are our own words (states, reasons, names of connections), never a customer or an id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import Select, func, select

from meterpost.core.errors import Transient
from meterpost.storage.postgres.database import Database
from meterpost.storage.tables.ingest import INTAKE_COUNT, QUARANTINE
from meterpost.storage.tables.posting import CALL, RECEIPT
from meterpost.storage.tables.staging import EXCEPTION, STAGED_TRANSACTION


def _by_label() -> dict[tuple[str, str, str], Select[Any]]:
    transaction, exception, receipt = STAGED_TRANSACTION.c, EXCEPTION.c, RECEIPT.c
    return {
        ("meterpost_transactions", "Staged transactions per state.", "state"): select(
            transaction.state, func.count()
        ).group_by(transaction.state),
        ("meterpost_exceptions_open", "Open exceptions per reason.", "reason"): select(
            exception.reason, func.count()
        )
        .where(exception.state == "open")
        .group_by(exception.reason),
        ("meterpost_receipts", "Documents in ERPs per state.", "state"): select(
            receipt.state, func.count()
        ).group_by(receipt.state),
        ("meterpost_calls_open", "Requests to ERPs without a known outcome.", "connection"): select(
            CALL.c.connection, func.count()
        )
        .where(CALL.c.outcome.is_(None))
        .group_by(CALL.c.connection),
    }


def _intake() -> Select[Any]:
    count = INTAKE_COUNT.c
    return select(*(func.coalesce(func.sum(each), 0) for each in (count.accepted, count.invalid)))


def _plain() -> dict[tuple[str, str], Select[Any]]:
    doubt = STAGED_TRANSACTION.c.state == "in_doubt"
    return {
        ("meterpost_transactions_in_doubt", "Transactions of unknown outcome."): select(
            func.count()
        )
        .select_from(STAGED_TRANSACTION)
        .where(doubt),
        ("meterpost_quarantined_events_open", "Events refused at the door, not settled."): select(
            func.count()
        )
        .select_from(QUARANTINE)
        .where(QUARANTINE.c.settled_at.is_(None)),
    }


class DatabaseFigures(Collector):
    """The counts as metrics; none of them while the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are known without asking the database at registration."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Each figure by its own query, all of one state."""
        up = GaugeMetricFamily("meterpost_database_up", "1 while PostgreSQL answers.")
        try:
            families = self._families()
        except Transient:
            families = []
            up.add_metric([], 0)
        else:
            up.add_metric([], 1)
        yield up
        yield from families

    def _families(self) -> list[Metric]:
        families: list[Metric] = []
        with self._database.begin() as connection:
            for (name, text, label), query in _by_label().items():
                family = GaugeMetricFamily(name, text, labels=[label])
                for value, count in connection.execute(query):
                    family.add_metric([value], count)
                families.append(family)
            door = GaugeMetricFamily(
                "meterpost_events_received", "Events at the door, all told.", labels=["outcome"]
            )
            accepted, invalid = connection.execute(_intake()).one()
            door.add_metric(["accepted"], accepted)
            door.add_metric(["invalid"], invalid)
            families.append(door)
            for (name, text), plain in _plain().items():
                family = GaugeMetricFamily(name, text)
                family.add_metric([], connection.execute(plain).scalar_one())
                families.append(family)
        return families
