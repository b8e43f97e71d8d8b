"""How many accepted events the engine is behind, cheap enough to ask at every request.

The engine writes its position into a small file; the edge counts what the journal holds after
it. Each look counts only rows that came or were drained since the last one.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import structlog
from sqlalchemy import func, select

from meterpost.core.errors import Transient
from meterpost.engine.run_dir import read_json, write_whole
from meterpost.metering.model import Position
from meterpost.storage.postgres.database import Database
from meterpost.storage.tables.ingest import JOURNAL, JOURNAL_STATE

_log = structlog.get_logger(__name__)

LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class EngineState:
    """How far an engine had come when it last moved; its process may have ended since."""

    pid: int
    incarnation: str
    sequence: int

    def write(self, path: Path) -> None:
        """Replace the file."""
        write_whole(path, json.dumps(asdict(self)).encode())

    @classmethod
    def read(cls, path: Path) -> EngineState | None:
        """As last written, or None where no engine has written yet."""
        raw = read_json(path)
        return None if raw is None else cls(raw["pid"], raw["incarnation"], raw["sequence"])


class JournalCounts(Protocol):
    """What the backlog needs of the journal."""

    def end(self) -> Position | None:
        """The last position written; None for a journal never used."""
        ...

    def events_between(self, after: int, upto: int) -> int:
        """Events of the rows in (after, upto]."""
        ...


class PostgresJournalCounts:
    """`JournalCounts` over the journal table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def end(self) -> Position | None:
        """The last position written; None for a journal never used."""
        query = select(JOURNAL_STATE.c.incarnation, JOURNAL_STATE.c.last_sequence)
        with self._database.begin() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Position(*row)

    def events_between(self, after: int, upto: int) -> int:
        """Events of the rows in (after, upto]."""
        query = select(func.coalesce(func.sum(JOURNAL.c.events), 0)).where(
            JOURNAL.c.sequence > after, JOURNAL.c.sequence <= upto
        )
        with self._database.begin() as connection:
            return int(connection.execute(query).scalar_one())


@dataclass(slots=True)
class _Counted:
    """Events in (drained, upto] of one incarnation."""

    incarnation: str
    drained: int
    upto: int
    events: int = 0


class Backlog:
    """Calling it gives the events behind as last counted, without waiting.

    `start` looks every half second in a thread. While the database does not answer the last
    count stands; nothing can be accepted then anyway.
    """

    def __init__(
        self, journal: JournalCounts, engine_state: Path, *, every_s: float = LOOK_EVERY_S
    ) -> None:
        self._journal = journal
        self._engine_state = engine_state
        self._every_s = every_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._counted: _Counted | None = None
        self._looking = threading.Lock()

    def __call__(self) -> int:
        """Accepted events that the engine has not stored yet."""
        counted = self._counted
        return 0 if counted is None else counted.events

    def look(self) -> int:
        """Count now.

        Raises: Transient when the database does not answer.
        """
        with self._looking:
            end = self._journal.end()
            state = EngineState.read(self._engine_state)
            if end is None:
                self._counted = None
                return 0
            # An engine that follows another incarnation drains nothing: all of this one is behind.
            known = state is not None and state.incarnation == end.incarnation
            drained = state.sequence if known and state is not None else 0
            self._counted = self._count(end, min(drained, end.sequence))
            return self._counted.events

    def _count(self, end: Position, drained: int) -> _Counted:
        last = self._counted
        between = self._journal.events_between
        if (
            last is None
            or last.incarnation != end.incarnation
            or not last.drained <= drained <= last.upto <= end.sequence
        ):
            return _Counted(end.incarnation, drained, end.sequence, between(drained, end.sequence))
        events = last.events
        if end.sequence > last.upto:
            events += between(last.upto, end.sequence)
        if drained > last.drained:
            events -= between(last.drained, drained)
        return _Counted(end.incarnation, drained, end.sequence, max(0, events))

    def start(self) -> None:
        """Look now and then, until `stop`."""
        self._thread = threading.Thread(target=self._watch, name="backlog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        said = False
        while not self._stopping.is_set():
            try:
                self.look()
                said = False
            except Transient as exc:
                if not said:  # said once, not twice a second
                    _log.warning("backlog_unknown", why=str(exc))
                said = True
            self._stopping.wait(self._every_s)
