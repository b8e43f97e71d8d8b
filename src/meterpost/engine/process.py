"""The engine process: owns the event store, runs the jobs, answers on the socket."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import structlog

from meterpost.core.errors import MeterpostError
from meterpost.engine.backlog import EngineState
from meterpost.engine.jobs import JobThread
from meterpost.engine.lock import EventStoreLock
from meterpost.engine.operate import STATUS, Operate
from meterpost.engine.ports import EngineApplication
from meterpost.engine.run_dir import RunDirectory
from meterpost.engine.socket import SocketServer
from meterpost.observe.metrics import EngineMetrics

_log = structlog.get_logger(__name__)

#: Operations in progress may take this long to finish after a request to stop.
STOP_WITHIN_S = 45.0
PUBLISH_EVERY_S = 0.2
#: Left behind by an operation that did not end in time.
EXIT_UNFINISHED = 75


def run_engine(
    application: EngineApplication,
    run_directory: RunDirectory,
    stopping: threading.Event,
    *,
    fatal: tuple[type[BaseException], ...] = (),
    stop_within_s: float = STOP_WITHIN_S,
) -> int:
    """The exit code, after everything was closed: 0 when asked to stop.

    ``fatal`` are failures after which the event store cannot be used by this process any more;
    the engine then ends with 1, to be started anew. Operations that do not end within
    ``stop_within_s`` are left: the result is `EXIT_UNFINISHED`, and the caller ends the process
    by `exit_with`, without waiting for their threads.

    Raises: Conflict naming the process that holds the event store; what `open_events` raises.
    """
    engine = _Engine(application, run_directory, stopping, fatal)
    with EventStoreLock(run_directory):
        run_directory.engine_ready.unlink(missing_ok=True)
        application.open_events()
        return engine.run(stop_within_s)


@contextmanager
def stop_on_signals(stopping: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set the event while inside; for the main thread."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Engine:
    """One run."""

    def __init__(
        self,
        application: EngineApplication,
        run_directory: RunDirectory,
        stopping: threading.Event,
        fatal: tuple[type[BaseException], ...],
    ) -> None:
        self._application = application
        self._run_directory = run_directory
        self._stopping = stopping
        self._fatal = fatal
        self._broken: BaseException | None = None
        self._metrics = EngineMetrics()
        self._started_at = application.clock.now()
        self._jobs: list[JobThread] = []
        self._server: SocketServer | None = None
        self._published: EngineState | None = None

    def run(self, stop_within_s: float) -> int:
        application = self._application
        self._jobs = [
            JobThread(
                job,
                application.clock,
                self._metrics,
                self._stopping,
                fatal=self._fatal,
                on_fatal=self._on_fatal,
            )
            for job in application.jobs(self._stopping)
        ]
        operate = Operate(application, self.status, self._metrics, self._fatal, self._on_fatal)
        self._server = SocketServer(self._run_directory.new_socket(), operate, self._metrics)
        self._server.start()
        for job in self._jobs:
            job.thread.start()
        self._publish()
        self._run_directory.engine_ready.write_text(f"{os.getpid()}\n", encoding="ascii")
        _log.info("engine_ready", jobs=[job.status.name for job in self._jobs])
        while not self._stopping.wait(PUBLISH_EVERY_S):
            self._publish()
        return self._stop(self._server, stop_within_s)

    def _stop(self, server: SocketServer, within_s: float) -> int:
        _log.info("engine_stops", operations=server.running())
        self._run_directory.engine_ready.unlink(missing_ok=True)
        unfinished = server.stop(within_s)
        for job in self._jobs:
            job.thread.join(within_s)
        unfinished += [job.status.name for job in self._jobs if job.thread.is_alive()]
        if unfinished:
            _log.error("engine_leaves_unfinished", unfinished=unfinished)
            return EXIT_UNFINISHED
        if self._broken is not None:
            return 1  # the next start recovers the event store; this process cannot close it
        self._publish()
        self._application.close()
        _log.info("engine_stopped")
        return 0

    def status(self) -> dict[str, object]:
        """How the engine is, for people and for /readyz."""
        assert self._server is not None
        position = self._application.position()
        return {
            "pid": os.getpid(),
            "started_at": self._started_at.isoformat(),
            "stopping": self._stopping.is_set(),
            "position": None
            if position is None
            else {"incarnation": position.incarnation, "sequence": position.sequence},
            "jobs": [job.status.to_plain() for job in self._jobs],
            "operations": [name for name in self._server.running() if name != STATUS],
        }

    def _publish(self) -> None:
        """Write down how far the engine is, where it moved."""
        try:
            position = self._application.position()
        except MeterpostError as exc:
            _log.warning("position_unknown", why=str(exc))
            return
        except self._fatal as exc:
            self._on_fatal(exc)
            return
        if position is None:
            return
        state = EngineState(os.getpid(), position.incarnation, position.sequence)
        if state != self._published:
            self._metrics.drained.set(position.sequence)
            with suppress(FileNotFoundError):  # the workspace is being removed under us
                state.write(self._run_directory.engine_state)
            self._published = state

    def _on_fatal(self, error: BaseException) -> None:
        if self._broken is None:
            _log.critical("engine_broken", exc_info=error)
        self._broken = error
        self._stopping.set()


def exit_with(code: int) -> None:
    """End the process with the code; at once where threads are left behind."""
    if code == EXIT_UNFINISHED:
        os._exit(code)
    raise SystemExit(code)
