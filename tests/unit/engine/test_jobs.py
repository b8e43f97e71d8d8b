"""Jobs that work, wait, fail and go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from meterpost.core.clock import ManualClock
from meterpost.core.errors import Permanent, Transient
from meterpost.engine.jobs import Backoff, JobThread
from meterpost.engine.ports import Job
from meterpost.observe.metrics import EngineMetrics

_WAIT_S = 20.0


class _Script:
    """A job that does one step after the other, then ends the test."""

    def __init__(self, *steps: Callable[[], bool] | Exception | bool) -> None:
        self.steps = list(steps)
        self.done = threading.Event()
        self.stopping = threading.Event()

    def run_once(self) -> bool:
        if not self.steps:
            self.done.set()
            self.stopping.set()
            return False
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, bool) else step()


@pytest.fixture
def run() -> Iterator[Callable[..., JobThread]]:
    """Runs a script to its end; the thread, for its status."""
    scripts: list[_Script] = []

    def run(script: _Script, **how: object) -> JobThread:
        scripts.append(script)
        metrics = EngineMetrics()
        job = JobThread(
            Job("job", script.run_once, 0.001),
            ManualClock(datetime(2026, 10, 1, tzinfo=UTC)),
            metrics,
            script.stopping,
            backoff=Backoff(0.001, 0.002),
            failed_retry_s=0.001,
            **how,  # type: ignore[arg-type]
        )
        job.thread.start()
        assert script.done.wait(_WAIT_S)
        job.thread.join(_WAIT_S)
        assert not job.thread.is_alive()
        return job

    yield run
    for script in scripts:
        script.stopping.set()


def test_a_job_is_called_again_until_told_to_stop(run: Callable[..., JobThread]) -> None:
    """Rounds with and without work are counted; stopping ends the thread."""
    status = run(_Script(True, True, False)).status
    assert (status.state, status.rounds, status.worked, status.failures) == ("stopped", 4, 2, 0)


def test_a_transient_failure_and_a_defect_are_retried(run: Callable[..., JobThread]) -> None:
    """The job goes on by itself; what was wrong stays readable, without a defect's own words."""
    secret = ValueError("password=hunter2")
    status = run(_Script(Transient("Down."), secret, True)).status
    assert status.failures == 0
    assert status.problem == "ValueError"
    assert status.worked == 1


def test_a_permanent_failure_marks_the_job_failed_until_it_works(
    run: Callable[..., JobThread],
) -> None:
    """While a person has to act the state says so; after they did the job runs again."""
    seen: list[str] = []
    thread: list[JobThread] = []

    def look() -> bool:
        seen.append(threading.current_thread().name)
        return True

    script = _Script(Permanent("Mend it."), look)
    thread.append(run(script))
    assert seen == ["job-job"]
    assert thread[0].status.problem == "Mend it."
    assert thread[0].status.failures == 0


def test_a_fatal_failure_is_told_to_the_engine(run: Callable[..., JobThread]) -> None:
    """A store that is unusable from now on is nothing a job can wait out."""

    class Broken(Exception):
        pass

    told: list[BaseException] = []
    broken = Broken("database has been invalidated")
    run(_Script(broken), fatal=(Broken,), on_fatal=told.append)
    assert told == [broken]


def test_waits_grow_up_to_a_bound() -> None:
    """Each failure in a row doubles the wait, however long the row gets."""
    backoff = Backoff(0.2, 15.0)
    assert [backoff.after(n) for n in (1, 2, 3, 8, 10_000)] == [0.2, 0.4, 0.8, 15.0, 15.0]
