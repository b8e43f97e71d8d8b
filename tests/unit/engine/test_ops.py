"""/healthz, /readyz and /metrics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from meterpost.engine.ops import measured, ops_app
from meterpost.engine.readiness import NotReady
from meterpost.observe.metrics import EdgeMetrics, exposition


def get(app: Any, path: str, method: str = "GET") -> tuple[int, bytes]:
    """One request to an ASGI app."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app({"type": "http", "method": method, "path": path}, receive, send))
    return sent[0]["status"], sent[1]["body"]


def app_with(*reasons: NotReady) -> Any:
    def readiness() -> Sequence[NotReady]:
        return reasons

    return ops_app(readiness, lambda: b"metric 1\n", lambda: 42)


def test_healthz_only_says_that_the_process_lives() -> None:
    """Restarting the edge mends no database: its health does not depend on one."""
    assert get(app_with(NotReady("database", "Down.")), "/healthz") == (200, b'{"status": "ok"}')


def test_readyz_gives_every_reason() -> None:
    """503 with reasons while something stands in the way, 200 otherwise."""
    status, body = get(
        app_with(NotReady("database", "Down."), NotReady("engine", "No.")), "/readyz"
    )
    assert status == 503
    assert json.loads(body) == {
        "status": "not ready",
        "reasons": [
            {"part": "database", "sentence": "Down."},
            {"part": "engine", "sentence": "No."},
        ],
        "warnings": [],
        "events_behind": 42,
    }
    assert get(app_with(), "/readyz")[0] == 200


def test_what_only_a_person_can_mend_is_shown_but_turns_no_event_away() -> None:
    """An ERP without its secret is a warning: the door stays open."""
    status, body = get(app_with(NotReady("job", "post:erp: No secret.", blocking=False)), "/readyz")
    assert status == 200
    assert json.loads(body)["warnings"] == [{"part": "job", "sentence": "post:erp: No secret."}]


def test_other_paths_and_methods_are_refused() -> None:
    """Nothing else is served, and nothing is changed by any request."""
    assert get(app_with(), "/metrics") == (200, b"metric 1\n")
    assert get(app_with(), "/metrics", "HEAD") == (200, b"")
    assert get(app_with(), "/nothing")[0] == 404
    assert get(app_with(), "/healthz", "POST")[0] == 405


def test_requests_are_counted_by_route_never_by_path() -> None:
    """An id in a path does not become a label."""
    metrics = EdgeMetrics()
    app = measured(app_with(), metrics, ["/healthz", "/v1"])
    get(app, "/healthz")
    get(app, "/v1/customers/ACME")
    get(app, "/elsewhere")
    text = exposition(metrics.registry).decode()
    assert 'meterpost_edge_requests_total{route="/healthz",status="2xx"} 1.0' in text
    assert 'meterpost_edge_requests_total{route="/v1",status="4xx"} 1.0' in text
    assert 'meterpost_edge_requests_total{route="other",status="4xx"} 1.0' in text
    assert "ACME" not in text
