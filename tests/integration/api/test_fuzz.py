"""Arbitrary input: whatever is asked, the answer is a decision, never a failure of ours."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meterpost.access.model import Scope
from meterpost.api.routes import ROUTES, Route
from meterpost.operations.registry import find_operation

pytestmark = pytest.mark.integration

_FUZZED = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

_NASTY = st.sampled_from(
    [
        "",
        "0",
        "-1",
        "1",
        "99999999999999999999",
        "9223372036854775807",
        "NaN",
        "1e400",
        "\0",
        "\ud7ff\uffff",
        "'; DROP TABLE x; --",
        "%",
        "2026-10",
        "2026-13",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "0001-01-01",
        "9999-12-31",
        "acme",
        "erp",
        "tokens",
        "customers",
        "crosswalk",
        "accounting_periods",
        "event:1",
        "close:99999999999999999999",
        "record:٣",
        "transaction:99999999999999999999",
        "document:x",
        "OTk5OTk5OTk5OTk5OTk5OTk5OTk5",
        "a:b",
        "true",
        "Europe/Vienna",
        "../../etc/passwd",
        "day",
    ]
)
_TEXT = _NASTY | st.text(max_size=20).filter(lambda text: text.isprintable())

#: Values that fit, so that much of what is asked gets past the first check.
_FITTING = {
    "meter": ["calls", "tokens"],
    "period": ["2026-10", "2026-11"],
    "zone": ["Europe/Vienna", "America/Santiago"],
    "window": ["total", "hour", "day"],
    "by": ["subject", "source"],
    "where": ["subject:alpha", "id:initech", "source:a:b"],
    "entity": ["customers", "crosswalk", "accounting_periods", "contracts", "acme", "unassigned"],
    "key": ["initech", "acme/2026-10", "erp/item/E-TOK", "a/b/c/d"],
    "id": ["1", "2", "9223372036854775807"],
    "limit": ["1", "1000"],
    "state": ["open", "all", "approved", "in_review"],
    "ref": ["transaction:1", "close:1", "record:1", "event:r-1", "subject:alpha"],
    "system": ["erp", "//api.test"],
    "kind": ["item", "subject"],
    "external_id": ["alpha", "E-TOK"],
    "canonical_id": ["S-1", "tokens"],
    "connection": ["erp"],
}
_NEEDED = {
    "usage.query": {"meter": "calls", "period": "2026-10"},
    "events.find": {"id": "r-1"},
    "crosswalk.find": {"system": "erp", "kind": "item", "external_id": "E-TOK"},
    "crosswalk.unlink": {"system": "erp", "kind": "item", "external_id": "E-TOK"},
}

_GETS = [route for route in ROUTES if route.method in ("GET", "DELETE")]
#: Not those that change who may do what, or wait for an ERP.
_POSTS = [
    route
    for route in ROUTES
    if route.body and route.tag != "People" and route.operation != "post.run"
]


def _fields(route: Route) -> list[str]:
    asked = route.shape.asked if route.shape else find_operation(route.operation).arguments
    return list(asked.__dataclass_fields__)


@pytest.fixture(scope="module")
def token(world: Any, masterdata: str) -> str:
    engineer = world.key(Scope.MASTERDATA_WRITE)
    kind = {"Content-Type": "application/yaml"}
    text = masterdata.encode()
    done = world.http("POST", "/v1/masterdata/imports", engineer, content=text, headers=kind)
    assert done.status_code == 200
    found: str = world.key(*Scope)
    return found


def _value(name: str) -> st.SearchStrategy[str]:
    fitting = _FITTING.get(name)
    return _TEXT if fitting is None else st.sampled_from(fitting) | st.sampled_from(fitting) | _TEXT


def _path(route: Route, draw: st.DataObject) -> str:
    path = route.path.replace(":path", "")
    while "{" in path:
        start, end = path.index("{"), path.index("}")
        value = draw.draw(_value(path[start + 1 : end]).filter(bool))
        # A dot alone would be resolved by the client before it is sent.
        value = "x" if set(value) <= {".", "/"} else value
        path = path[:start] + quote(value, safe="") + path[end + 1 :]
    return path


@_FUZZED
@given(data=st.data())
def test_no_query_breaks_a_read(world: Any, token: str, data: st.DataObject) -> None:
    """Any path and query of a GET or DELETE, with the fields of the route and nasty values."""
    route = data.draw(st.sampled_from(_GETS))
    named = data.draw(st.lists(st.sampled_from(_fields(route) or ["other"]), max_size=3))
    given_ = {name: data.draw(_value(name)) for name in named if f"{{{name}" not in route.path}
    pairs = {**_NEEDED.get(route.operation, {}), **given_}
    query = urlencode(pairs, errors="replace")
    response = world.http(route.method, f"{_path(route, data)}?{query}", token)
    assert response.status_code < 500, (route.path, pairs, response.text)
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/problem+json"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


@_FUZZED
@given(data=st.data())
def test_no_body_breaks_a_write(world: Any, token: str, data: st.DataObject) -> None:
    """Any JSON in the fields of a POST or PUT."""
    route = data.draw(st.sampled_from(_POSTS))
    named = data.draw(st.lists(st.sampled_from(_fields(route) or ["other"]), max_size=3))
    changed = {
        name: data.draw(_value(name) | _JSON) for name in named if f"{{{name}" not in route.path
    }
    body = {**(route.example or {}), **changed}
    response = world.http(
        route.method,
        _path(route, data),
        token,
        content=json.dumps(body),
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code < 500, (route.path, body, response.text)


@_FUZZED
@given(route=st.sampled_from(_POSTS), body=st.binary(max_size=200))
def test_no_bytes_break_a_write(world: Any, token: str, route: Route, body: bytes) -> None:
    """Bytes that are no JSON at all."""
    path = route.path.replace("{id}", "1")
    kind = {"Content-Type": "application/json"}
    response = world.http(route.method, path, token, content=body, headers=kind)
    assert response.status_code < 500, (route.path, body, response.text)


@_FUZZED
@given(text=st.text(max_size=200), csv=st.booleans())
def test_no_file_breaks_an_import(world: Any, token: str, text: str, csv: bool) -> None:
    """Any text as YAML or CSV."""
    kind = "text/csv" if csv else "application/yaml"
    response = world.http(
        "POST",
        f"/v1/masterdata/imports?dry_run=true&name=customers.{'csv' if csv else 'yaml'}",
        token,
        content=text.encode("utf-8", "replace"),
        headers={"Content-Type": kind},
    )
    assert response.status_code < 500, (text, response.text)
