"""/healthz, /readyz and /metrics, as a small ASGI app to be mounted beside the API.

None of them needs a key; the edge listens on loopback unless told otherwise.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any

from meterpost.core.errors import MeterpostError
from meterpost.engine.client import EngineClient
from meterpost.engine.operate import METRICS
from meterpost.engine.readiness import NotReady
from meterpost.observe.metrics import EdgeMetrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

PATHS = ("/healthz", "/readyz", "/metrics")
_METRICS_TIMEOUT_S = 2.0


def ops_app(
    readiness: Callable[[], Sequence[NotReady]],
    metrics: Callable[[], bytes],
    backlog: Callable[[], int],
) -> AsgiApp:
    """The three pages. ``readiness`` and ``metrics`` may block: they run in a thread.

    ``/healthz`` is 200 as long as this process answers; ``/readyz`` is 503 with the reasons as
    JSON while something stands in the way. It also tells what needs a person without being in
    the way (``warnings``), and how many events the engine is behind.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served here")
        if scope["method"] not in ("GET", "HEAD"):
            await _send(send, scope, 405, {"code": "method-not-allowed"})
            return
        match scope["path"]:
            case "/healthz":
                await _send(send, scope, 200, {"status": "ok"})
            case "/readyz":
                reasons = await asyncio.to_thread(readiness)
                blocking = [each for each in reasons if each.blocking]
                answer = {
                    "status": "not ready" if blocking else "ready",
                    "reasons": _listed(blocking),
                    "warnings": _listed(each for each in reasons if not each.blocking),
                    "events_behind": backlog(),
                }
                await _send(send, scope, 503 if blocking else 200, answer)
            case "/metrics":
                text = await asyncio.to_thread(metrics)
                await _send_bytes(
                    send, scope, 200, b"text/plain; version=0.0.4; charset=utf-8", text
                )
            case _:
                await _send(send, scope, 404, {"code": "not-found"})

    return app


def all_metrics(own: Callable[[], bytes], engine: EngineClient) -> Callable[[], bytes]:
    """The edge's metrics and, while it runs, the engine's; their names do not overlap."""

    def metrics() -> bytes:
        try:
            text = str(engine.call(METRICS, timeout_s=_METRICS_TIMEOUT_S)).encode()
        except MeterpostError:
            up, text = 0, b""
        else:
            up = 1
        said = (
            "# HELP meterpost_engine_up 1 while the engine answers.\n"
            f"# TYPE meterpost_engine_up gauge\nmeterpost_engine_up {up}\n"
        )
        return own() + said.encode() + text

    return metrics


def measured(app: AsgiApp, metrics: EdgeMetrics, routes: Sequence[str]) -> AsgiApp:
    """The app, counting requests per route and status.

    ``routes`` are path prefixes; the longest that fits is the label, so that no id gets into
    one. Everything else counts as ``other``.
    """
    ordered = sorted(routes, key=len, reverse=True)
    known = {
        route: (
            metrics.request_seconds.labels(route),
            {
                status: metrics.requests.labels(route, status)
                for status in ("2xx", "3xx", "4xx", "5xx")
            },
        )
        for route in (*ordered, "other")
    }

    async def counting(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        path: str = scope["path"]
        seconds, statuses = known[
            next((each for each in ordered if path.startswith(each)), "other")
        ]
        started, answered = time.perf_counter(), "5xx"

        async def watching(message: MutableMapping[str, Any]) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = f"{message['status'] // 100}xx"
            await send(message)

        try:
            await app(scope, receive, watching)
        finally:
            seconds.observe(time.perf_counter() - started)
            statuses[answered if answered in statuses else "5xx"].inc()

    return counting


def _listed(reasons: Iterable[NotReady]) -> list[dict[str, str]]:
    return [{"part": each.part, "sentence": each.sentence} for each in reasons]


async def _send(send: Send, scope: Scope, status: int, content: object) -> None:
    await _send_bytes(send, scope, status, b"application/json", json.dumps(content).encode())


async def _send_bytes(send: Send, scope: Scope, status: int, kind: bytes, body: bytes) -> None:
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
