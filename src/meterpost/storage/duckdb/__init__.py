"""The embedded event store: one DuckDB file with events, measurements and rollups.

Lives here: its tables (``schema``), how journal rows become events (``decode``, ``drain``), how
meters become columns (``plans``, ``measuring``), how columns become usage (``rollups``,
``usage``), how events and ledgers are read (``events``, ``ledgers``), and the class that offers
it all as `meterpost.metering.ports.EventStore` (``store``). Not here: what a meter means.
"""

from meterpost.storage.duckdb.store import DuckDbEventStore
from meterpost.storage.duckdb.types import check_types

__all__ = ["DuckDbEventStore", "check_types"]
