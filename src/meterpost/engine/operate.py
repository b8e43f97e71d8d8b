"""Runs what is asked for on the socket: the application's operations, and the engine's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from meterpost.core.errors import MeterpostError
from meterpost.engine.ports import EngineApplication
from meterpost.engine.wire import Request
from meterpost.observe.metrics import EngineMetrics, exposition
from meterpost.operations.registry import Operation, Progress, find_operation

#: Answered without a key: whoever reaches the socket may know how the engine is.
STATUS = "engine.status"
METRICS = "engine.metrics"


class Operate:
    """`meterpost.engine.socket.Handler` over the table of operations.

    The event store lets readers read while somebody writes, and puts writers in order by
    itself. Operations that create over the event store (closes) wait for each other as a whole:
    two at once would only take each other's memory.
    """

    def __init__(
        self,
        application: EngineApplication,
        status: Callable[[], dict[str, object]],
        metrics: EngineMetrics,
        fatal: tuple[type[BaseException], ...],
        on_fatal: Callable[[BaseException], None],
        *,
        find: Callable[[str], Operation] = find_operation,
    ) -> None:
        self._application = application
        self._status = status
        self._metrics = metrics
        self._fatal = fatal
        self._on_fatal = on_fatal
        self._find = find
        self._creating = threading.Lock()

    def __call__(self, request: Request, progress: Progress) -> object:
        """The result as plain JSON. Raises: what the operation raises; NotFound."""
        match request.operation:
            case "engine.status":
                return self._status()
            case "engine.metrics":
                return exposition(self._metrics.registry).decode()
        operation = self._find(request.operation)
        started, outcome = time.monotonic(), "ok"
        try:
            return self._run(operation, request, progress)
        except MeterpostError as exc:
            outcome = exc.code
            raise
        except BaseException as exc:
            outcome = "internal"
            if isinstance(exc, self._fatal):
                self._on_fatal(exc)
            raise
        finally:
            self._metrics.operations.labels(operation.name, outcome).inc()
            self._metrics.operation_seconds.labels(operation.name).observe(
                time.monotonic() - started
            )

    def _run(self, operation: Operation, request: Request, progress: Progress) -> object:
        assert request.correlation_id is not None  # the socket gives one to every request
        context = self._application.context(request.caller, request.correlation_id, progress)
        if not (operation.creates and operation.needs_events):
            return operation.run(context, request.arguments)
        if not self._creating.acquire(blocking=False):
            progress("waiting for another operation", 0, None)
            self._creating.acquire()
        try:
            return operation.run(context, request.arguments)
        finally:
            self._creating.release()
