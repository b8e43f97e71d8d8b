"""SIGKILL of the postmaster, at a moment when work is seen to be in progress."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import psycopg

from meterpost.core.errors import Conflict
from meterpost.testing.kills.installation import Installation
from meterpost.testing.kills.plan import Kill, Stage

_POLL_S = 0.001
_RECONNECT_S = 0.1

#: A transaction of the stage that has written something and is not over.
_OPEN_TRANSACTION: Mapping[Stage, tuple[str, str]] = {
    "ingest": (
        "meterpost-edge",
        "^(UPDATE meterpost.journal_state|COPY meterpost.journal|INSERT INTO meterpost.intake)",
    ),
    "close": (
        "meterpost-engine",
        'COPY "meterpost"."(usage_record|staged_transaction|transaction_line|transition|approval)"'
        "|INSERT INTO meterpost.claim",
    ),
}
_FIND = """
    SELECT pid FROM pg_stat_activity
    WHERE application_name = %s AND xact_start IS NOT NULL AND state <> 'idle' AND query ~ %s
    LIMIT 1
"""
_STILL = "SELECT xact_start IS NOT NULL FROM pg_stat_activity WHERE pid = %s"
_OPEN_CALL = """
    SELECT id, clock_timestamp() FROM meterpost.call
    WHERE purpose = 'post' AND outcome IS NULL AND poster LIKE %s
    LIMIT 1
"""
_CALL_SINCE = "SELECT finished_at FROM meterpost.call WHERE id = %s"


class PostmasterKill:
    """Watches from a thread of its own until the stage's work is in progress, then kills.

    In ingest and close the backend is halted (SIGSTOP) in its open transaction, seen to be in
    it, and goes with its postmaster or is let go after it: both happen to real servers. In
    posting a call must be open at the kill, and not be found answered before it afterwards.
    """

    def __init__(self, installation: Installation, kill: Kill, source: random.Random) -> None:
        self._installation = installation
        self._kill = kill
        self._take_backend_along = source.random() < 0.5
        self._done = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kills-postmaster")
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def done(self) -> bool:
        """Whether it has happened and counts."""
        return self._done.is_set() or self._failure is not None

    def _run(self) -> None:
        try:
            while not (self._stop.is_set() or self._done.is_set()):
                with suppress(psycopg.Error, Conflict), self._connected() as connection:
                    self._watch(connection)
                self._stop.wait(_RECONNECT_S)
        except Exception as exc:  # noqa: BLE001  (raised again where the thread is joined)
            self._failure = exc

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        with psycopg.connect(
            self._installation.server.dsn(),
            autocommit=True,
            application_name="kills",
            connect_timeout=5,
            # A backend halted while it writes its own status would be waited for without end.
            options="-c statement_timeout=2000",
        ) as connection:
            yield connection

    def _watch(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        hit = self._hit_call if self._kill.stage == "posting" else self._hit_transaction
        while not self._stop.is_set():
            if hit(connection):
                self._installation.killed(self._kill)
                self._done.set()
                return
            time.sleep(_POLL_S)

    def _hit_transaction(self, connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
        row = connection.execute(_FIND, _OPEN_TRANSACTION[self._kill.stage]).fetchone()
        if row is None:
            return False
        backend = row[0]
        with suppress(ProcessLookupError):
            os.kill(backend, signal.SIGSTOP)
            try:
                still = connection.execute(_STILL, (backend,)).fetchone()
                if still is not None and still[0] and self._kill_postmaster():
                    if self._take_backend_along:
                        os.kill(backend, signal.SIGKILL)
                    return True
            finally:
                os.kill(backend, signal.SIGCONT)
        return False

    def _hit_call(self, connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
        engine = self._installation.engine.pid()
        row = connection.execute(_OPEN_CALL, (f"%:{engine}:%",)).fetchone()
        if row is None:
            return False
        call, at = row
        return self._kill_postmaster() and self._was_open(call, at)

    def _was_open(self, call: int, at: datetime) -> bool:
        """Whether the call was not answered before the moment at which we saw it open.

        Asked once the server is back; the answer may well have been recorded in between.
        """
        while not self._stop.is_set():
            self._stop.wait(_RECONNECT_S)
            with suppress(psycopg.Error, Conflict), self._connected() as connection:
                row = connection.execute(_CALL_SINCE, (call,)).fetchone()
                return row is not None and (row[0] is None or row[0] > at)
        return False

    def _kill_postmaster(self) -> bool:
        pid = self._installation.server.pid()
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        return True
