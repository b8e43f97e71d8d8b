"""Whether this installation can do its work right now, and if not, why."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from meterpost.core.errors import MeterpostError
from meterpost.engine.client import EngineClient
from meterpost.engine.jobs import DRAIN
from meterpost.engine.operate import STATUS
from meterpost.storage.embedded import require_durable
from meterpost.storage.postgres.database import Database

#: A probe is answered from memory for this long, so that probing costs nothing.
REMEMBER_S = 1.0
#: Schema and settings change by people's hands only.
_SETTLED_S = 30.0
_ENGINE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class NotReady:
    """One thing that stands in the way. ``part``: database, schema, durable, engine, job,
    backlog. One that is not ``blocking`` needs a person too, but events are taken and drained.
    """

    part: str
    sentence: str
    blocking: bool = True


class EdgeReadiness:
    """Calling it gives what stands in the way; blocks for some seconds at most.

    ``backlog`` and ``backlog_events_max`` are those of the door's 429.
    """

    def __init__(
        self,
        database: Database,
        engine: EngineClient,
        backlog: Callable[[], int],
        backlog_events_max: int,
    ) -> None:
        self._database = database
        self._engine = engine
        self._backlog = backlog
        self._backlog_events_max = backlog_events_max
        self._lock = threading.Lock()
        self._last: tuple[NotReady, ...] = ()
        self._looked_at: float | None = None
        self._settled_at: float | None = None

    def __call__(self) -> Sequence[NotReady]:
        """What stands in the way; empty when ready."""
        with self._lock:
            now = time.monotonic()
            if self._looked_at is None or now - self._looked_at > REMEMBER_S:
                self._last = (*self._of_database(), *self._of_engine(), *self._of_backlog())
                self._looked_at = time.monotonic()
            return self._last

    def _of_database(self) -> list[NotReady]:
        now = time.monotonic()
        settled = self._settled_at is not None and now - self._settled_at < _SETTLED_S
        try:
            with self._database.raw_connection(autocommit=True) as raw:
                raw.execute("SELECT 1")
                if settled:
                    return []
                try:
                    require_durable(raw)
                except MeterpostError as exc:
                    return [NotReady("durable", str(exc))]
            if not self._database.schema_is_current():
                return [
                    NotReady(
                        "schema",
                        "The database's schema is not this version's: `meterpost db migrate`.",
                    )
                ]
        except MeterpostError as exc:
            self._settled_at = None  # the server that comes back may be another
            return [NotReady("database", str(exc))]
        except (psycopg.Error, SQLAlchemyError) as exc:
            self._settled_at = None
            return [NotReady("database", f"The database failed: {type(exc).__name__}.")]
        self._settled_at = now
        return []

    def _of_engine(self) -> list[NotReady]:
        try:
            status = self._engine.call(STATUS, timeout_s=_ENGINE_TIMEOUT_S)
        except MeterpostError as exc:
            return [NotReady("engine", str(exc))]
        return [
            # An ERP that lacks its secret is no reason to turn events away.
            NotReady("job", f"{job['name']}: {job['problem']}", blocking=job["name"] == DRAIN)
            for job in status["jobs"]
            if job["state"] == "failed"
        ]

    def _of_backlog(self) -> list[NotReady]:
        behind = self._backlog()
        if behind < self._backlog_events_max:
            return []
        return [
            NotReady(
                "backlog",
                f"The engine is {behind:,} events behind; from {self._backlog_events_max:,} on "
                "events are refused.",
            )
        ]
