"""Who is let in, and what every answer says of itself."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from meterpost.access.model import Role, Scope
from meterpost.api.endpoints import BODY_BYTES_MAX
from meterpost.api.routes import ROUTES, Route
from meterpost.core.errors import OutcomeUnknown, Throttled, Transient
from meterpost.core.ids import UserId
from meterpost.engine.client import EngineNotRunning
from meterpost.operations.registry import find_operation

pytestmark = pytest.mark.integration

EACH_ROUTE = pytest.mark.parametrize(
    "route", ROUTES, ids=[f"{route.method} {route.path}" for route in ROUTES]
)


def _ask(world: Any, route: Route, token: str | None) -> httpx.Response:
    path = re.sub(r"\{\w+(:path)?\}", "1", route.path)
    example = route.example
    if route.operation == "keys.create":
        example = {"scopes": [find_operation(route.operation).scope]}  # a narrow key makes no wider
    body = None if example is None else json.dumps(example)
    needed = {
        "usage.query": {"meter": "calls", "period": "2026-10"},
        "events.find": {"id": "x"},
        "crosswalk.find": {"system": "erp", "kind": "item", "external_id": "x"},
        "crosswalk.unlink": {"system": "erp", "kind": "item", "external_id": "x"},
    }
    return world.http(  # type: ignore[no-any-return]
        route.method,
        path,
        token,
        params=needed.get(route.operation),
        content=body if route.body else None,
        headers={"Content-Type": "application/json"} if route.body else {},
    )


def problem(response: httpx.Response) -> dict[str, Any]:
    """The problem in an answer, its shape checked."""
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found["status"] == response.status_code
    assert found["type"].startswith("urn:meterpost:problem:")
    assert found["title"]
    assert found["detail"]
    assert found["correlation_id"] == response.headers["x-correlation-id"]
    return found


@EACH_ROUTE
def test_without_a_key_nothing_is_answered(world: Any, route: Route) -> None:
    """No key and a wrong key are a 401 that says how to come in."""
    for token in (None, "mp_ABCDEFGHJK." + "0" * 32, "nonsense"):
        response = _ask(world, route, token)
        assert response.status_code == 401
        assert problem(response)["type"].endswith(":not-authenticated")
        assert response.headers["www-authenticate"].startswith("Bearer")


@EACH_ROUTE
def test_a_key_without_the_scope_is_told_which(world: Any, route: Route) -> None:
    """Every other scope together is not enough: 403 names the one that is missing."""
    scope = find_operation(route.operation).scope
    response = _ask(world, route, world.key_without(scope))
    assert response.status_code == 403
    assert problem(response)["scope"] == scope
    assert f'scope="{scope}"' in response.headers["www-authenticate"]


@EACH_ROUTE
def test_a_key_with_the_scope_is_let_in(world: Any, route: Route) -> None:
    """The one scope suffices to be answered, be it that there is no such thing."""
    scope = find_operation(route.operation).scope
    response = _ask(world, route, world.key(scope))
    assert response.status_code in (200, 201, 400, 404, 409) or (
        # Retrying does another deed, and others' keys are an administrator's.
        response.status_code == 403
        and route.operation in ("exceptions.retry", "keys.revoke")
        and response.json()["scope"] != scope
    ), response.text
    if response.status_code >= 400:
        problem(response)


def test_revoked_keys_stop_working(world: Any) -> None:
    """Within the five seconds that keys are remembered; a key never seen at once."""
    made = world.app.access.create_key(
        world.admin, UserId("boss"), [Scope.USAGE_READ], datetime.now(UTC)
    )
    world.app.access.revoke_key(world.admin, made.key.id, datetime.now(UTC))
    assert world.http("GET", "/v1/meters", made.token).status_code == 401


def test_answers_name_the_request(world: Any) -> None:
    """A usable correlation id comes back; another is replaced; the answer is not to be kept."""
    token = world.key(Scope.USAGE_READ)
    headers = {"X-Correlation-ID": "run-7"}
    response = world.http("GET", "/v1/meters", token, headers=headers)
    assert response.headers["x-correlation-id"] == "run-7"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in response.headers
    other = world.http("GET", "/v1/meters", token, headers={"X-Correlation-ID": "a b"})
    assert re.fullmatch(r"[0-9A-Z]{26}", other.headers["x-correlation-id"])


def test_unknown_paths_and_methods_are_problems(world: Any) -> None:
    """404 and 405 look like every other failure; 405 says what is possible."""
    assert problem(world.http("GET", "/v1/nowhere"))["status"] == 404
    assert problem(world.http("GET", "/v1/meters/"))["status"] == 404
    response = world.http("POST", "/v1/meters")
    assert problem(response)["status"] == 405
    assert response.headers["allow"] == "GET"


def test_more_than_the_limits_is_refused(world: Any) -> None:
    """Body 413, query, path and headers 431; a compressed body 400, another kind 415."""
    token = world.key(*Scope)
    large = b" " * (BODY_BYTES_MAX + 1)
    response = world.http("POST", "/v1/closes", token, content=large)
    assert problem(response)["status"] == 413
    assert problem(world.http("GET", "/v1/meters?" + "a" * 20_000, token))["status"] == 431
    assert problem(world.http("GET", "/v1/trace/" + "a" * 9_000, token))["status"] == 431
    headers = {"X-Large": "a" * 40_000}
    assert problem(world.http("GET", "/v1/meters", token, headers=headers))["status"] == 431
    zipped = {"Content-Encoding": "gzip"}
    response = world.http("POST", "/v1/closes", token, content=b"x", headers=zipped)
    assert problem(response)["status"] == 400
    response = world.http("POST", "/v1/closes", token, data={"period": "2026-10"})
    assert problem(response)["status"] == 415


def test_arguments_that_do_not_fit_are_listed(world: Any) -> None:
    """Each with its place, so that a form can show it beside the field."""
    token = world.key(Scope.TRANSACTIONS_READ)
    found = problem(world.http("GET", "/v1/transactions?limit=0&state=gone&close=x", token))
    assert found["status"] == 400
    assert {each["where"].split(".")[0] for each in found["problems"]} == {
        "limit",
        "state",
        "close",
    }
    assert found["problems_total"] == 3


def test_an_absent_engine_is_a_503_with_a_time(world: Any) -> None:
    """Nothing was done; Retry-After says when to come again. Others are not kept waiting."""
    token = world.key(Scope.USAGE_READ)
    url = "/v1/usage?meter=calls&period=2026-10"
    assert world.http("GET", url, token).status_code == 200
    try:
        world.engine.failure = EngineNotRunning("The engine is not running.", after_s=2.0)
        response = world.http("GET", url, token)
        assert problem(response)["type"].endswith(":engine-not-running")
        assert (response.status_code, response.headers["retry-after"]) == (503, "2")
        assert world.http("GET", "/v1/meters", token).status_code == 200
        world.engine.failure = OutcomeUnknown("The engine ended before it answered.")
        response = world.http("GET", url, token)
        assert response.status_code == 504
        assert "retry-after" not in response.headers
        world.engine.failure = Throttled("Slowly.", after_s=7.0)
        response = world.http("GET", url, token)
        assert (response.status_code, response.headers["retry-after"]) == (429, "7")
        world.engine.failure = Transient("The database connection failed: 10.0.0.7:5432 refused.")
        assert "10.0.0.7" not in world.http("GET", url, token).text
    finally:
        world.engine.failure = None


def test_a_defect_tells_nothing_of_our_insides(world: Any) -> None:
    """500 with the correlation id; what failed is in the log alone."""
    token = world.key(Scope.USAGE_READ)

    def fail() -> None:
        raise ZeroDivisionError("secret inside")

    try:
        world.engine.meanwhile = fail
        response = world.http("GET", "/v1/usage?meter=calls&period=2026-10", token)
    finally:
        world.engine.meanwhile = lambda: None
    assert problem(response)["type"].endswith(":internal")
    assert response.status_code == 500
    assert "secret" not in response.text
    assert "Zero" not in response.text


def test_the_reference_is_open_to_all(world: Any) -> None:
    """The OpenAPI document and the page need no key and hold none."""
    document = world.http("GET", "/v1/openapi.json")
    assert document.json()["openapi"] == "3.1.0"
    page = world.http("GET", "/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_events_pass_through_the_same_door(world: Any) -> None:
    """POST /v1/events is taken, found again by GET on the same path, and other methods refused."""
    token = world.key(Scope.EVENTS_WRITE, Scope.USAGE_READ)
    event = {
        "specversion": "1.0",
        "id": "door-1",
        "source": "//api.test",
        "type": "api.call",
        "subject": "alpha",
        "time": "2026-09-03T10:00:00Z",
        "data": {"tokens": 5},
    }
    kind = {"Content-Type": "application/cloudevents+json"}
    response = world.http("POST", "/v1/events", token, json=event, headers=kind)
    assert (response.status_code, response.json()["accepted"]) == (202, 1)
    world.app.metering.drain()
    found = world.http("GET", "/v1/events?id=door-1", token).json()
    assert [each["id"] for each in found["items"]] == ["door-1"]
    assert world.http("DELETE", "/v1/events", token).status_code == 405
    assert world.http("POST", "/v1/events", None, json=event, headers=kind).status_code == 401


def test_keys_are_shown_once_and_never_kept(world: Any) -> None:
    """A new key works, its token stands nowhere in the database, no Idempotency-Key is taken."""
    token = world.person(Role.VIEWER)
    body = {"scopes": ["usage:read"]}
    response = world.http("POST", "/v1/keys", token, json=body)
    assert response.status_code == 201
    new = response.json()["token"]
    assert world.http("GET", "/v1/meters", new).status_code == 200
    listed = world.http("GET", "/v1/keys", token).text
    assert new.split(".")[1] not in listed
    refused = world.http("POST", "/v1/keys", token, json=body, headers={"Idempotency-Key": "k"})
    assert problem(refused)["status"] == 400
    with world.app.database.begin() as connection:
        kept = connection.execute(
            text("SELECT count(*) FROM meterpost.idempotency WHERE position(:secret IN body) > 0"),
            {"secret": new.split(".")[1].encode()},
        ).scalar_one()
    assert kept == 0
