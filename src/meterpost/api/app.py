"""The whole HTTP API as one ASGI application.

`create_app` puts the parts side by side: ``POST /v1/events`` (plain ASGI, whose cost per request
counts), the pages of operation, and FastAPI for everything else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import FastAPI

from meterpost.api.calling import Calls, EngineTransport
from meterpost.api.endpoints import Endpoints
from meterpost.api.events import EventsApp
from meterpost.bootstrap import Application
from meterpost.core.errors import MeterpostError
from meterpost.engine.ops import PATHS, AsgiApp
from meterpost.ingest.ports import Backlog
from meterpost.observe.metrics import EdgeMetrics

if TYPE_CHECKING:
    from meterpost.engine.wiring import EdgeParts

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_EVENTS = "/v1/events"
_log = structlog.get_logger(__name__)


def create_app(
    application: Application,
    engine: EngineTransport,
    *,
    backlog: Backlog = lambda: 0,
    ops: AsgiApp | None = None,
    metrics: EdgeMetrics | None = None,
) -> AsgiApp:
    """The API over an application and its engine.

    ``ops`` answers ``/healthz``, ``/readyz`` and ``/metrics``; without it they are not found
    here, because somebody in front answers them. The application stays the caller's to close.
    """
    writer = application.journal_writer()
    access, clock = application.access, application.clock
    events = EventsApp(
        application.intake(writer),
        lambda token: access.authenticate(token, clock.now()),
        backlog=backlog,
        start=writer.start,
        stop=writer.stop,
        ids=application.ids,
    )
    if metrics is not None:
        metrics.in_flight_bytes.set_function(lambda: events.in_flight_bytes)
    rest = Endpoints(Calls(application, engine), application.ids)
    return _Dispatcher(events, rest.app(), rest, ops)


def http_api(parts: EdgeParts) -> AsgiApp:
    """`create_app` in the form that the edge process asks for, which serves ``ops`` itself."""
    return create_app(parts.application, parts.engine, backlog=parts.backlog, metrics=parts.metrics)


class _Dispatcher:
    """One door: each request goes to the part that answers it; the parts live together."""

    def __init__(
        self, events: EventsApp, api: FastAPI, guard: Endpoints, ops: AsgiApp | None
    ) -> None:
        self._events = events
        self._api = api
        self._guard = guard
        self._ops = ops

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            path = scope["path"]
            if path == _EVENTS and scope["method"] not in ("GET", "HEAD"):
                await self._events(scope, receive, send)
            elif self._ops is not None and path in PATHS:
                await self._ops(scope, receive, send)
            else:
                await self._guard.guarded(self._api, scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Starts the parts in order and stops those that started in the reverse order."""
        async with AsyncExitStack() as running:
            started = False
            while True:
                message = await receive()
                if message["type"] == "lifespan.startup":
                    try:
                        await self._start(running)
                    except MeterpostError as exc:
                        _log.error("edge_cannot_start", reason=str(exc))
                        await send({"type": "lifespan.startup.failed", "message": str(exc)})
                        return
                    started = True
                    await send({"type": "lifespan.startup.complete"})
                elif message["type"] == "lifespan.shutdown":
                    await running.aclose()
                    if started:
                        await send({"type": "lifespan.shutdown.complete"})
                    return

    async def _start(self, running: AsyncExitStack) -> None:
        await running.enter_async_context(self._api.router.lifespan_context(self._api))
        await self._events.startup()
        running.push_async_callback(self._events.shutdown)
