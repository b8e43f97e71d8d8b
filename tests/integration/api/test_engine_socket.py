"""The API with the engine's real socket behind it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meterpost.access.model import Principal, Scope
from meterpost.api.app import create_app, http_api
from meterpost.bootstrap import Application
from meterpost.engine.backlog import Backlog, PostgresJournalCounts
from meterpost.engine.client import EngineClient
from meterpost.engine.operate import Operate
from meterpost.engine.ops import ops_app
from meterpost.engine.run_dir import RunDirectory
from meterpost.engine.socket import SocketServer
from meterpost.engine.wiring import EdgeParts, WiredEngine
from meterpost.observe.metrics import EdgeMetrics, EngineMetrics

pytestmark = pytest.mark.integration


@pytest.fixture
def run_directory() -> Iterator[RunDirectory]:
    with tempfile.TemporaryDirectory(prefix="mp") as folder:
        directory = RunDirectory(Path(folder) / "run")
        directory.prepare()
        yield directory


@pytest.fixture
def socket_server(application: Application, run_directory: RunDirectory) -> Iterator[SocketServer]:
    metrics = EngineMetrics()
    operate = Operate(WiredEngine(application), dict, metrics, (), lambda exc: None)
    server = SocketServer(run_directory.new_socket(), operate, metrics)
    server.start()
    yield server
    assert server.stop(30) == []


def _key(application: Application, admin: Principal, *scopes: Scope) -> str:
    made = application.access.create_key(admin, admin.user, scopes, application.clock.now())
    return made.token


@pytest.mark.usefixtures("socket_server")
def test_what_needs_events_is_asked_over_the_socket(
    application: Application,
    admin: Principal,
    run_directory: RunDirectory,
    make_client: Callable[..., Any],
) -> None:
    """Results, refusals with their problems, and the pages of operation come through."""
    engine = EngineClient(run_directory)
    ops = ops_app(lambda: (), lambda: b"metrics 1\n", lambda: 0)
    http = make_client(create_app(application, engine, ops=ops))
    token = _key(application, admin, Scope.USAGE_READ, Scope.CLOSES_RUN)
    usage = http("GET", "/v1/usage?meter=calls&period=2026-10", token)
    assert (usage.status_code, usage.json()["meter"]) == (200, "calls")
    missing = http("GET", "/v1/usage?meter=nothing&period=2026-10", token)
    assert missing.status_code == 404
    assert "calls" in missing.json()["hint"]
    key = {"Idempotency-Key": "socket-1"}
    refused = http("POST", "/v1/closes", token, json={"period": "2026-10"}, headers=key)
    assert refused.status_code == 400, refused.text  # there is no legal entity yet
    assert http("GET", "/healthz").json() == {"status": "ok"}
    assert http("GET", "/metrics").content == b"metrics 1\n"


def test_without_an_engine_the_rest_answers(
    application: Application,
    admin: Principal,
    run_directory: RunDirectory,
    make_client: Callable[..., Any],
) -> None:
    """503 with Retry-After for what needs the engine, answers for what does not."""
    engine = EngineClient(run_directory)
    backlog = Backlog(PostgresJournalCounts(application.database), run_directory.engine_state)
    http = make_client(http_api(EdgeParts(application, backlog, engine, EdgeMetrics())))
    token = _key(application, admin, Scope.USAGE_READ, Scope.TRANSACTIONS_READ)
    response = http("GET", "/v1/usage?meter=calls&period=2026-10", token)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "2"
    assert response.json()["type"] == "urn:meterpost:problem:engine-not-running"
    assert http("GET", "/v1/status", token).status_code == 200
    assert http("GET", "/healthz").status_code == 404
