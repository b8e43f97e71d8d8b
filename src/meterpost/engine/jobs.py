"""Jobs: one thread each, called again and again, waiting longer the longer they fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

import structlog

from meterpost.core.clock import Clock
from meterpost.core.errors import MeterpostError, NeedsPerson, Permanent, Transient
from meterpost.engine.ports import Job
from meterpost.metering.model import DrainReport
from meterpost.metering.service import Metering
from meterpost.observe.metrics import EngineMetrics

_log = structlog.get_logger(__name__)

JobState = Literal["running", "waiting", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits after the n-th failure in a row: twice as long each time, up to a bound."""

    first_s: float = 0.2
    max_s: float = 15.0

    def after(self, failures: int) -> float:
        """Seconds to wait; ``failures`` counts from 1."""
        return float(min(self.max_s, self.first_s * 2.0 ** min(failures - 1, 64)))


#: The job without which accepted events only pile up.
DRAIN = "drain"

#: A job that needs a person is tried again this often, so that it goes on by itself afterwards.
FAILED_RETRY_S = 60.0


@dataclass(slots=True)
class JobStatus:
    """What became of a job so far. ``failures`` are those in a row; ``problem`` is the last."""

    name: str
    state: JobState = "running"
    rounds: int = 0
    worked: int = 0
    failures: int = 0
    problem: str | None = None
    problem_at: datetime | None = None

    def to_plain(self) -> dict[str, object]:
        """As shown in a status."""
        at = self.problem_at
        return {**asdict(self), "problem_at": None if at is None else at.isoformat()}


class JobThread:
    """Runs one job until told to stop; a round in progress is finished first."""

    def __init__(
        self,
        job: Job,
        clock: Clock,
        metrics: EngineMetrics,
        stopping: threading.Event,
        *,
        fatal: tuple[type[BaseException], ...] = (),
        on_fatal: Callable[[BaseException], None] | None = None,
        backoff: Backoff | None = None,
        failed_retry_s: float = FAILED_RETRY_S,
    ) -> None:
        self._job = job
        self._clock = clock
        self._metrics = metrics
        self._stopping = stopping
        self._fatal = fatal
        self._on_fatal = on_fatal
        self._backoff = backoff or Backoff()
        self._failed_retry_s = failed_retry_s
        self.status = JobStatus(job.name)
        self.thread = threading.Thread(target=self._run, name=f"job-{job.name}", daemon=True)
        metrics.job_failed.labels(job.name).set(0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            wait_s = self._round()
            if wait_s > 0:
                self._stopping.wait(wait_s)
        self.status.state = "stopped"

    def _round(self) -> float:
        """One call; how long to wait before the next."""
        started = time.monotonic()
        self.status.rounds += 1
        try:
            worked = self._job.run_once()
        except (Permanent, NeedsPerson) as exc:
            return self._failed(exc)
        except (Transient, MeterpostError) as exc:
            return self._again(exc, "transient")
        except Exception as exc:  # noqa: BLE001  (a defect in one job must not stop the others)
            if isinstance(exc, self._fatal) and self._on_fatal is not None:
                self._on_fatal(exc)
            return self._again(exc, "error")
        self._well()
        self._metrics.job_runs.labels(self._job.name, "worked" if worked else "idle").inc()
        if worked:
            self.status.worked += 1
            self._metrics.job_seconds.labels(self._job.name).observe(time.monotonic() - started)
            return 0.0
        return self._job.interval_s

    def _well(self) -> None:
        if self.status.failures:
            _log.info("job_goes_on", job=self._job.name, after_failures=self.status.failures)
            self._metrics.job_failed.labels(self._job.name).set(0)
        self.status.state, self.status.failures = "running", 0

    def _again(self, error: Exception, outcome: str) -> float:
        self._note(error, outcome)
        self.status.state = "waiting"
        wait_s = self._backoff.after(self.status.failures)
        if isinstance(error, Transient) and error.after_s is not None:
            wait_s = max(wait_s, min(error.after_s, self._failed_retry_s))
        if outcome == "error":
            _log.error("job_broke", job=self._job.name, again_in_s=wait_s, exc_info=error)
        else:
            _log.warning("job_waits", job=self._job.name, again_in_s=wait_s, why=str(error))
        return wait_s

    def _failed(self, error: MeterpostError) -> float:
        news = self.status.problem != str(error) or self.status.state != "failed"
        self._note(error, "failed")
        self.status.state = "failed"
        self._metrics.job_failed.labels(self._job.name).set(1)
        if news:
            _log.error("job_failed", job=self._job.name, why=str(error))
        return self._failed_retry_s

    def _note(self, error: Exception, outcome: str) -> None:
        status = self.status
        status.failures += 1
        # What a defect says may hold anything; it stands in the log, masked.
        status.problem = str(error) if isinstance(error, MeterpostError) else type(error).__name__
        status.problem_at = self._clock.now()
        self._metrics.job_runs.labels(self._job.name, outcome).inc()


class _Stopping(Exception):
    """The engine is to stop."""


def drain_job(metering: Metering, stopping: threading.Event, *, interval_s: float = 0.1) -> Job:
    """The job that follows the journal: each round drains to its end and relays what that owes.

    A long backlog is left between two batches when the engine is to stop.
    """

    def look(_report: DrainReport) -> None:
        if stopping.is_set():
            raise _Stopping

    def run_once() -> bool:
        try:
            return metering.drain(look).accepted > 0
        except _Stopping:
            return False

    return Job(DRAIN, run_once, interval_s)
