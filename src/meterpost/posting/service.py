"""The poster: brings one connection's approved transactions into its ERP, exactly once."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import structlog

from meterpost.core.clock import Clock
from meterpost.core.errors import MeterpostError, Transient
from meterpost.posting.calls import PosterReport, Tally
from meterpost.posting.config import ConnectionConfig
from meterpost.posting.connector import ErpConnector
from meterpost.posting.context import BackOffs, Context
from meterpost.posting.doubt import Doubts
from meterpost.posting.ports import PostingStores
from meterpost.posting.read_back import ReadBack
from meterpost.posting.sending import NoPermit, Sender, pauses_connection
from meterpost.staging.model import State

_log = structlog.get_logger(__name__)

_PROMOTED_MAX = 500


class Poster:
    """One sender on one connection; several may run, in one process or in many.

    Each round first settles the past (calls left open, documents in doubt), then sends. Every
    step is a short database transaction of its own; nothing is kept in memory that matters.
    """

    def __init__(
        self,
        config: ConnectionConfig,
        connector: ErpConnector,
        stores: PostingStores,
        clock: Clock,
        *,
        poster: str,
        back_offs: BackOffs | None = None,
    ) -> None:
        self._context = Context(config, connector, stores, clock, poster, back_offs or BackOffs())
        self._sender = Sender(self._context)
        self._doubts = Doubts(self._context)
        self._read_back = ReadBack(self._context)
        self._presence = stores.register(poster)
        self._failures = 0
        self._pause: tuple[datetime, str] | None = None
        self._checks = 0
        self._check_at: datetime | None = None

    def run_once(self, *, sends_max: int = 200) -> PosterReport:
        """One round: take over, look up, send up to ``sends_max``, read back.

        Raises: Transient when our own database fails.
        """
        tally = Tally()
        self._presence.renew()
        self._doubts.take_over(tally)
        problem = self._credentials_problem()
        if problem is not None:
            return tally.report(self._check_at, problem)
        if self._pause is not None:
            until, why = self._pause
            if self._context.clock.now() < until:
                return tally.report(until, why)
            self._pause = None
        self._promote()
        permit_at = self._doubts.probe(tally) or self._send(tally, sends_max)
        if permit_at is None and self._pause is None:
            self._read_back.read()
        return self._report(tally, permit_at)

    def run(self, stop: threading.Event, *, poll_s: float = 1.0) -> None:
        """Rounds until told to stop; a round in progress is finished first.

        A database that does not answer is waited for with growing pauses; there is nothing
        else a poster could do, so this wait alone has no end.
        """
        failures = 0
        while not stop.is_set():
            try:
                report = self.run_once()
            except Transient as exc:
                failures += 1
                wait = self._context.back_offs.connection.after(failures).total_seconds()
                _log.warning("poster_waits", connection=self._context.config.name, why=str(exc))
            else:
                failures = 0
                wait = self._wait_s(report, poll_s)
            stop.wait(wait)

    def close(self) -> None:
        """Leave; open calls of this poster are then anybody's to take over."""
        self._presence.close()

    def _wait_s(self, report: PosterReport, poll_s: float) -> float:
        if report.paused is None and not report.idle:
            return 0.0
        if report.next_at is None:
            return poll_s
        wait = (report.next_at - self._context.clock.now()).total_seconds()
        return min(max(wait, 0.02), poll_s)

    def _promote(self) -> None:
        """Deferred transactions whose time has come are approved again."""
        context = self._context
        now = context.clock.now()
        with context.stores.begin() as store:
            due = store.due_deferred(context.config.name, now, _PROMOTED_MAX)
        for transaction in due:
            with context.stores.begin() as store:
                pending = store.lock(transaction)
                if pending.state is State.DEFERRED:
                    store.step(pending, State.APPROVED, "Its time has come.", context.actor, now)

    def _send(self, tally: Tally, sends_max: int) -> datetime | None:
        """When a permit will be free, where the rate limit stopped us."""
        for _ in range(sends_max):
            result = self._sender.send_next(tally)
            if isinstance(result, NoPermit):
                return result.free_at
            if result is None:
                return None
            if result.failure is not None and pauses_connection(result.failure):
                self._note_failure(result.failure)
                return None
            self._failures = 0
            if self._credentials_refused():
                return None
        return None

    def _note_failure(self, failure: Exception) -> None:
        self._failures += 1
        wait = self._context.back_offs.connection.after(self._failures)
        if isinstance(failure, Transient) and failure.after_s is not None:
            wait = max(wait, timedelta(seconds=failure.after_s))
        self._pause = (self._context.clock.now() + wait, str(failure))

    def _credentials_refused(self) -> bool:
        with self._context.stores.begin() as store:
            return store.connection_problem(self._context.config.name) is not None

    def _credentials_problem(self) -> str | None:
        """Why the connection is paused for a person; checked again now and then."""
        context = self._context
        name = context.config.name
        with context.stores.begin() as store:
            problem = store.connection_problem(name)
        if problem is None:
            self._checks, self._check_at = 0, None
            return None
        now = context.clock.now()
        if self._check_at is not None and now < self._check_at:
            return problem
        self._checks += 1
        self._check_at = now + context.back_offs.credentials.after(self._checks)
        try:
            health = context.connector.check()
        except MeterpostError as exc:
            _log.warning("connection_check_failed", connection=name, why=str(exc))
            return problem
        if not health.ok:
            return problem
        with context.stores.begin() as store:
            store.close_exceptions(
                ("connection_credentials",), str(name), now, by=context.actor, why=health.sentence
            )
            store.audit("connection.resumed", "connection", str(name), context.actor, now, {})
        self._checks, self._check_at = 0, None
        return None

    def _report(self, tally: Tally, permit_at: datetime | None) -> PosterReport:
        name = self._context.config.name
        with self._context.stores.begin() as store:
            wake = store.next_wake(name)
            problem = store.connection_problem(name)
        if problem is not None:
            return tally.report(self._check_at, problem)
        if self._pause is not None:
            return tally.report(*self._pause)
        moments = [moment for moment in (wake, permit_at) if moment is not None]
        return tally.report(min(moments, default=None), None)
