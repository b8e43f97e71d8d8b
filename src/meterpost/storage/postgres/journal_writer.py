"""Writing the journal: requests that wait together share one transaction and one fsync."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from meterpost.core.crashpoints import reach
from meterpost.core.errors import MeterpostError, OutcomeUnknown, Permanent, Transient
from meterpost.core.ids import Ids
from meterpost.ingest.model import Recorded, Submission
from meterpost.ingest.ports import Outcome
from meterpost.storage.embedded import require_durable
from meterpost.storage.postgres.database import Database
from meterpost.storage.postgres.journal import PARTITION, PARTITION_MARGIN_ROWS, prepare_journal
from meterpost.storage.postgres.journal_copy import (
    JOURNAL_COLUMNS,
    QUARANTINE_COLUMNS,
    journal_bytes,
    quarantine_rows,
    summed_counts,
)

GROUP_BYTES_MAX = 32_000_000
GROUP_REQUESTS_MAX = 2_000
#: How often a group is tried again before its senders are told to come back.
ATTEMPTS_MAX = 5
_PAUSE_S = 0.1

_TAKE = (
    "UPDATE meterpost.journal_state SET last_sequence = last_sequence + %s"
    " WHERE partition = %s RETURNING last_sequence, clock_timestamp()"
)
_COUNT = (
    "INSERT INTO meterpost.intake_count AS known"
    " (interval_start, source, received, invalid, accepted)"
    " SELECT date_trunc('hour', %s, 'UTC'), source, received, invalid, received - invalid"
    " FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS new (source, received, invalid)"
    " ON CONFLICT (interval_start, source) DO UPDATE SET"
    " received = known.received + excluded.received,"
    " invalid = known.invalid + excluded.invalid,"
    " accepted = known.accepted + excluded.accepted"
)
_COPY_JOURNAL = f"COPY meterpost.journal ({', '.join(JOURNAL_COLUMNS)}) FROM STDIN (FORMAT binary)"
_COPY_QUARANTINE = (
    "COPY meterpost.quarantine ("
    + ", ".join(f'"{name}"' for name in QUARANTINE_COLUMNS)
    + ") FROM STDIN"
)


class StorageFull(Transient):
    """The disk under the database is full; nothing was written (507)."""

    code = "storage-full"


@dataclass(frozen=True, slots=True)
class _Waiting:
    submission: Submission
    done: Callable[[Outcome], None]


class JournalWriter:
    """`ingest.ports.Recorder`: one thread and one connection per process.

    While one group is being committed the next one gathers, so the load sets the size of the
    groups. Several processes may write: the lock on the state row puts their groups in order.
    """

    def __init__(
        self,
        database: Database,
        *,
        ids: Ids | None = None,
        group_bytes_max: int = GROUP_BYTES_MAX,
        group_requests_max: int = GROUP_REQUESTS_MAX,
        attempts_max: int = ATTEMPTS_MAX,
    ) -> None:
        self._database = database
        self._ids = ids
        self._group_bytes_max = group_bytes_max
        self._group_requests_max = group_requests_max
        self._attempts_max = attempts_max
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: psycopg.Connection[Any] | None = None
        self._partitioned_to = 0
        self._last_sequence = 0

    def start(self) -> None:
        """Connect, make sure that commits are durable, and begin to write.

        Raises: NeedsPerson where the server may lose what it acknowledges; Transient.
        """
        self._connection = self._connect()
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Write what is queued, then end; what could not be written in time is answered so."""
        if self._thread is None:
            return
        with self._changed:
            self._stopping.set()
            self._changed.notify()
        self._thread.join(timeout_s)
        with self._changed:
            left, self._queue = list(self._queue), deque()
        self._deliver(left, Transient("The edge is stopping.", after_s=1.0))
        if not self._thread.is_alive():
            self._disconnect()
        self._thread = None

    def submit(self, submission: Submission, done: Callable[[Outcome], None]) -> None:
        """See `Recorder`."""
        with self._changed:
            if self._thread is None or self._stopping.is_set():
                raise Transient("The edge is stopping.", after_s=1.0)
            self._queue.append(_Waiting(submission, done))
            self._changed.notify()

    def _run(self) -> None:
        try:
            while (group := self._next_group()) is not None:
                self._write(group)
        finally:
            # Whatever ends this thread, nobody is left waiting or let in again.
            self._stopping.set()
            with self._changed:
                left, self._queue = list(self._queue), deque()
            self._deliver(left, Transient("The edge is stopping.", after_s=1.0))

    def _next_group(self) -> list[_Waiting] | None:
        """What waits, up to the bounds of a group; None once stopped and empty."""
        with self._changed:
            while not self._queue and not self._stopping.is_set():
                self._changed.wait()
            return self._take_group() if self._queue else None

    def _take_group(self) -> list[_Waiting]:
        group = [self._queue.popleft()]
        size = len(group[0].submission.checked.body)
        while self._queue and len(group) < self._group_requests_max:
            size += len(self._queue[0].submission.checked.body)
            if size > self._group_bytes_max:
                break
            group.append(self._queue.popleft())
        return group

    def _write(self, group: Sequence[_Waiting]) -> None:
        """Commit the group and tell everyone in it what became of it."""
        failure: MeterpostError = Transient("The journal cannot be written.", after_s=1.0)
        for attempt in range(self._attempts_max):
            if attempt:
                self._stopping.wait(_PAUSE_S * 2**attempt)
            try:
                if self._connection is None:
                    self._connection = self._connect()
                self._make_room(self._connection)
                outcomes = self._commit(self._connection, [one.submission for one in group])
            except psycopg.errors.DiskFull:
                self._disconnect()
                failure = StorageFull("The disk of the database is full.", after_s=30.0)
                break
            except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
                self._disconnect()
                failure = Transient(f"The journal cannot be written: {_line(exc)}.", after_s=1.0)
            except psycopg.errors.CheckViolation as exc:
                # Another writer may have gone past the partitions this one knew of.
                self._disconnect()
                failure = Transient(f"The journal has no room: {_line(exc)}.", after_s=1.0)
            except (psycopg.Error, ValueError) as exc:
                self._disconnect()
                failure = Permanent(f"The request cannot be stored: {_line(exc)}.")
                break
            except MeterpostError as exc:
                failure = exc
                if not isinstance(exc, Transient):
                    break
            else:
                for one, outcome in zip(group, outcomes, strict=True):
                    one.done(outcome)
                return
        if type(failure) is Permanent and len(group) > 1:
            # One request that the database refuses must not take the others with it.
            for one in group:
                self._write([one])
            return
        self._deliver(group, failure)

    def _commit(
        self, connection: psycopg.Connection[Any], submissions: Sequence[Submission]
    ) -> Sequence[Recorded]:
        """One transaction. Raises: OutcomeUnknown where the commit was sent and not answered."""
        with_events = [one for one in submissions if one.checked.events]
        with connection.cursor() as cursor:
            cursor.execute(_TAKE, (len(with_events), PARTITION))
            row = cursor.fetchone()
            assert row is not None
            last: int = row[0]
            recorded_at: datetime = row[1]
            first = last - len(with_events) + 1
            if with_events:
                with cursor.copy(_COPY_JOURNAL) as copy:
                    copy.write(journal_bytes(with_events, first, recorded_at))
            counts = summed_counts(submissions)
            if counts:
                cursor.execute(
                    _COUNT,
                    (
                        recorded_at,
                        list(counts),
                        [count.received for count in counts.values()],
                        [count.invalid for count in counts.values()],
                    ),
                )
            if any(one.checked.rejected for one in submissions):
                with cursor.copy(_COPY_QUARANTINE) as copy:
                    for values in quarantine_rows(submissions, recorded_at):
                        copy.write_row(values)
        reach("edge.journal.before_commit")
        self._send_commit(connection)
        reach("edge.journal.after_commit")
        self._last_sequence = last
        outcomes = []
        for one in submissions:
            outcomes.append(Recorded(first if one.checked.events else None, recorded_at))
            first += 1 if one.checked.events else 0
        return outcomes

    def _send_commit(self, connection: psycopg.Connection[Any]) -> None:
        try:
            connection.commit()
        except psycopg.Error as exc:
            if not connection.closed:
                raise  # the server said no: nothing was written
            self._disconnect()
            raise OutcomeUnknown(
                "The connection broke while the events were being stored.",
                hint="Send them again: what is stored already is recognised by source and id.",
            ) from exc

    def _make_room(self, connection: psycopg.Connection[Any]) -> None:
        if self._last_sequence + PARTITION_MARGIN_ROWS > self._partitioned_to:
            self._partitioned_to = prepare_journal(connection, self._ids)

    def _connect(self) -> psycopg.Connection[Any]:
        """A connection whose commits are durable; a restarted server may have other settings."""
        connection = self._database.raw_connection()
        try:
            require_durable(connection)
            connection.commit()
            self._partitioned_to = prepare_journal(connection, self._ids)
        except psycopg.Error as exc:
            connection.close()
            raise Transient(f"The journal cannot be opened: {_line(exc)}.", after_s=1.0) from exc
        except MeterpostError:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @staticmethod
    def _deliver(group: Sequence[_Waiting], outcome: Outcome) -> None:
        for one in group:
            one.done(outcome)


def _line(exc: Exception) -> str:
    """The server's first line, without the values that its details may quote."""
    return (str(exc).strip().splitlines() or ["no reason given"])[0].rstrip(".")
