"""The engine and the edge over the real application: what their processes run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import duckdb
import structlog

from meterpost.config import Workspace, open_workspace
from meterpost.core.clock import Clock
from meterpost.core.errors import MeterpostError, NotAuthenticated
from meterpost.core.ids import UserId
from meterpost.engine.backlog import Backlog, PostgresJournalCounts
from meterpost.engine.client import EngineClient
from meterpost.engine.edge import EdgeAddress, serve_edge
from meterpost.engine.figures import DatabaseFigures
from meterpost.engine.jobs import drain_job
from meterpost.engine.ops import (
    PATHS,
    AsgiApp,
    Receive,
    Scope,
    Send,
    all_metrics,
    measured,
    ops_app,
)
from meterpost.engine.ports import Caller, Job
from meterpost.engine.process import exit_with, run_engine, stop_on_signals
from meterpost.engine.readiness import EdgeReadiness
from meterpost.engine.run_dir import RunDirectory
from meterpost.metering.model import Position
from meterpost.observe.logging import configure_logging
from meterpost.observe.metrics import EdgeMetrics, exposition
from meterpost.posting.service import Poster
from meterpost.storage.postgres.access import PostgresIdempotencyStore

if TYPE_CHECKING:
    from meterpost.bootstrap import Application
    from meterpost.operations.registry import Context, Progress

_log = structlog.get_logger(__name__)

#: After these DuckDB refuses everything until its file is opened anew.
FATAL = (duckdb.FatalException, duckdb.InternalException)
#: Between two looks at whether the engine is to stop.
_SENDS_PER_ROUND = 20
_SEAL_EVERY_S = 0.5
_FORGET_EVERY_S = 600.0


@dataclass(frozen=True, slots=True)
class EdgeParts:
    """What the API of one worker is made of. ``backlog`` answers from memory."""

    application: Application
    backlog: Backlog
    engine: EngineClient
    metrics: EdgeMetrics


#: Makes the API, with a lifespan of its own; importable.
MakeApi = Callable[[EdgeParts], AsgiApp]


class WiredEngine:
    """`EngineApplication` over an `Application`."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._posters: dict[str, Poster] = {}

    @property
    def clock(self) -> Clock:
        """The time."""
        return self._application.clock

    def open_events(self) -> None:
        """Open the event store and apply the meters."""
        _log.info("event_store_open", position=str(self._application.events.position()))

    def position(self) -> Position | None:
        """The journal position that the event store includes."""
        return self._application.events.position()

    def jobs(self, stopping: threading.Event) -> Sequence[Job]:
        """Drain, seal, forget, and one poster per connection."""
        return [
            drain_job(self._application.metering, stopping),
            Job("seal", self._seal, _SEAL_EVERY_S),
            Job("forget", self._forget, _FORGET_EVERY_S),
            *(
                Job(f"post:{connection.name}", partial(self._post, connection.name), 0.5)
                for connection in self._application.workspace.connections
            ),
        ]

    def context(self, caller: Caller, correlation_id: str, progress: Progress) -> Context:
        """What an operation is handed. Raises: NotAuthenticated."""
        from meterpost.operations.registry import Context

        access = self._application.access
        if caller.token is not None:
            principal = access.authenticate(caller.token, self.clock.now())
        elif caller.user is not None:
            principal = access.person(UserId(caller.user))
        else:
            raise NotAuthenticated("The request names neither a key nor a person.")
        return Context(self._application, principal, correlation_id, progress)

    def close(self) -> None:
        """Release the posters' presence, the event store and the database."""
        for name, poster in self._posters.items():
            try:
                poster.close()
            except MeterpostError as exc:  # its connection is gone, and with it its presence
                _log.warning("poster_not_closed", connection=name, why=str(exc))
        self._application.close()

    def _seal(self) -> bool:
        return bool(self._application.sealer.seal(self.clock.now()))

    def _forget(self) -> bool:
        hours = self._application.workspace.settings.retention.idempotency_hours
        before = self.clock.now() - timedelta(hours=hours)
        PostgresIdempotencyStore(self._application.database).forget(before)
        return False

    def _post(self, connection: str) -> bool:
        # Made here and not at the start: a missing secret fails this job alone.
        if connection not in self._posters:
            self._posters[connection] = self._application.poster(connection)
        report = self._posters[connection].run_once(sends_max=_SENDS_PER_ROUND)
        return report.paused is None and not report.idle


def engine_process(root: Path, *, log_file: Path | None = None) -> NoReturn:
    """Be the engine of a workspace until SIGTERM; ends the process with its exit code.

    Raises: MeterpostError where it cannot start.
    """
    from meterpost.bootstrap import open_application

    stopping = threading.Event()
    with stop_on_signals(stopping):
        workspace = _workspace(root, "engine", log_file)
        with open_application(workspace, name="meterpost-engine", migrate=False) as application:
            code = run_engine(
                WiredEngine(application),
                RunDirectory(workspace.places.sockets),
                stopping,
                fatal=FATAL,
            )
            if code != 0:
                exit_with(code)
    raise SystemExit(code)


def edge_process(
    root: Path,
    make_api: MakeApi,
    *,
    log_file: Path | None = None,
) -> None:
    """Be the edge of a workspace until SIGTERM.

    ``make_api`` makes what serves everything but the pages of `ops_app`.

    Raises: MeterpostError where it cannot start.
    """
    workspace = open_workspace(root)
    edge = workspace.settings.edge
    make_app = partial(edge_app, root, make_api, log_file)
    serve_edge(make_app, EdgeAddress(edge.host, edge.port))


def edge_app(
    root: Path,
    make_api: MakeApi,
    log_file: Path | None,
) -> AsgiApp:
    """The whole ASGI application of one worker, opened over the workspace's database."""
    from meterpost.bootstrap import open_application

    workspace = _workspace(root, "edge", log_file)
    run_directory = RunDirectory(workspace.places.sockets)
    stack = ExitStack()
    application = stack.enter_context(
        open_application(workspace, name="meterpost-edge", migrate=False)
    )
    engine = EngineClient(run_directory)
    backlog = Backlog(PostgresJournalCounts(application.database), run_directory.engine_state)
    metrics = EdgeMetrics()
    metrics.events_behind.set_function(backlog)
    metrics.registry.register(DatabaseFigures(application.database))
    ops = ops_app(
        EdgeReadiness(
            application.database,
            engine,
            backlog,
            workspace.settings.edge.limits.backlog_events_max,
        ),
        all_metrics(partial(exposition, metrics.registry), engine),
        backlog,
    )
    api = make_api(EdgeParts(application, backlog, engine, metrics))
    backlog.start()
    stack.callback(backlog.stop)
    return measured(_Mounted(api, ops, stack.close), metrics, [*PATHS, "/v1/events", "/v1"])


class _Mounted:
    """The API with the pages of `ops_app` before it; closes what it stands on at the end."""

    def __init__(self, api: AsgiApp, ops: AsgiApp, close: Callable[[], None]) -> None:
        self._api = api
        self._ops = ops
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] in PATHS:
            await self._ops(scope, receive, send)
        else:
            await self._api(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Any) -> None:
            if message["type"] in (
                "lifespan.shutdown.complete",
                "lifespan.shutdown.failed",
                "lifespan.startup.failed",
            ):
                self._close()
            await send(message)

        await self._api(scope, receive, sending)


def _workspace(root: Path, process: str, log_file: Path | None) -> Workspace:
    workspace = open_workspace(root)
    logging = workspace.settings.logging
    configure_logging(process, level=logging.level, format=logging.format, file=log_file)
    return workspace
